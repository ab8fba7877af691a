#include "device/nvml.h"

#include <array>

#include "device/shared_library.h"

namespace mmtrain {

Nvml::Nvml(const char* library) {
  const SharedLibrary nvml(library);
  started_ = nvml.load("nvmlInit_v2", init_) && nvml.load("nvmlSystemGetDriverVersion", version_) &&
             nvml.load("nvmlDeviceGetHandleByUUID", handle_) && nvml.load("nvmlDeviceGetMemoryInfo", memory_) &&
             init_() == 0;
}

const Nvml& Nvml::instance() {
  static const Nvml nvml;
  return nvml;
}

std::optional<DeviceMemory> Nvml::memory(const std::string& uuid) const {
  if (!started_) return std::nullopt;
  for (const char* prefix : {"GPU-", "MIG-"}) {
    void* device = nullptr;
    Memory memory{};
    if (handle_((prefix + uuid).c_str(), &device) == 0 && memory_(device, &memory) == 0) {
      return DeviceMemory{static_cast<std::int64_t>(memory.free), static_cast<std::int64_t>(memory.total)};
    }
  }
  return std::nullopt;
}

std::string Nvml::driver_version() const {
  std::array<char, 96> text{};
  if (!started_ || version_(text.data(), static_cast<unsigned>(text.size())) != 0) return {};
  return text.data();
}

}  // namespace mmtrain
