#include "device/cuda_driver.h"

#include <fmt/format.h>

#include <array>

#include "device/shared_library.h"

namespace mmtrain {
namespace {

// Of enum CUdevice_attribute.
constexpr int kMultiprocessorCount = 16, kCapabilityMajor = 75, kCapabilityMinor = 76;

std::string uuid_text(const std::array<unsigned char, 16>& bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", bytes[i]);
  }
  return text;
}

}  // namespace

CudaDriver::CudaDriver(const char* library) {
  const SharedLibrary driver(library);
  found_ = driver.load("cuInit", init_) && driver.load("cuDriverGetVersion", driver_version_) &&
           driver.load("cuGetErrorString", error_string_) && driver.load("cuDeviceGetCount", count_) &&
           driver.load("cuDeviceGet", get_) && driver.load("cuDeviceGetName", name_) &&
           driver.load("cuDeviceTotalMem_v2", total_memory_) && driver.load("cuDeviceGetAttribute", attribute_) &&
           driver.load("cuDeviceGetUuid_v2", uuid_);
  if (found_) start();
}

const CudaDriver& CudaDriver::instance() {
  static const CudaDriver driver;
  return driver;
}

void CudaDriver::start() {
  if (driver_version_(&version_) != 0) version_ = 0;
  status_ = init_(0);
  if (status_ == 0) status_ = count_(&device_count_);
  if (status_ == 0) return;
  device_count_ = 0;
  const char* text = nullptr;
  error_string_(status_, &text);
  error_ = fmt::format("{} (error {})", text ? text : "unknown error", status_);
}

std::optional<CudaDeviceProperties> CudaDriver::properties(int index) const {
  int device = 0;
  if (index < 0 || index >= device_count_ || get_(&device, index) != 0) return std::nullopt;
  CudaDeviceProperties found;
  std::array<char, 256> name{};
  if (name_(name.data(), static_cast<int>(name.size()), device) == 0) found.name = name.data();
  std::size_t bytes = 0;
  if (total_memory_(&bytes, device) == 0) found.total_memory = static_cast<std::int64_t>(bytes);
  attribute_(&found.capability_major, kCapabilityMajor, device);
  attribute_(&found.capability_minor, kCapabilityMinor, device);
  attribute_(&found.multiprocessors, kMultiprocessorCount, device);
  std::array<unsigned char, 16> uuid{};
  if (uuid_(uuid.data(), device) == 0) found.uuid = uuid_text(uuid);
  return found;
}

}  // namespace mmtrain
