#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace mmtrain {

struct DeviceMemory {
  std::int64_t free = 0, total = 0;  // bytes
};

// NVIDIA's management library, looked up at run time: free memory of a GPU without a context on it (a context costs
// hundreds of MiB of that very memory), and the version of the driver.
class Nvml {
 public:
  explicit Nvml(const char* library = "libnvidia-ml.so.1");

  static const Nvml& instance();

  // Of the GPU, or the slice of one (MIG), with this UUID (see `CudaDeviceProperties`); nothing if it is not known.
  std::optional<DeviceMemory> memory(const std::string& uuid) const;

  // Such as `580.65.06`; empty if unknown.
  std::string driver_version() const;

 private:
  struct Memory {
    unsigned long long total, free, used;
  };

  bool started_ = false;

  // Prototypes of nvml.h: nvmlReturn_t is an enum, nvmlDevice_t a pointer.
  int (*init_)() = nullptr;
  int (*version_)(char*, unsigned) = nullptr;
  int (*handle_)(const char*, void**) = nullptr;
  int (*memory_)(void*, Memory*) = nullptr;
};

}  // namespace mmtrain
