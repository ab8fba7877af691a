#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace mmtrain {

// What the CUDA driver says of a device. Asking does not create a context, so it takes no device memory.
struct CudaDeviceProperties {
  std::string name;
  std::int64_t total_memory = 0;  // bytes
  int capability_major = 0, capability_minor = 0;
  int multiprocessors = 0;
  std::string uuid;  // 8-4-4-4-12 hexadecimal digits, without prefix
};

// The CUDA driver, looked up at run time through its C API: LibTorch tells neither names nor capabilities without CUDA
// headers, and cannot tell why there is no device.
class CudaDriver {
 public:
  explicit CudaDriver(const char* library = "libcuda.so.1");

  // The driver of this process. The first call fixes CUDA_VISIBLE_DEVICES for good, and must not come before a fork
  // whose child uses CUDA.
  static const CudaDriver& instance();

  bool found() const { return found_; }
  int version() const { return version_; }                 // 13000 is CUDA 13.0; 0 if not found
  int device_count() const { return device_count_; }       // visible devices
  const std::string& error() const { return error_; }      // why the driver did not start; empty if it did
  bool no_device() const { return status_ == kNoDevice; }  // it works but sees no device

  std::optional<CudaDeviceProperties> properties(int index) const;

 private:
  static constexpr int kNoDevice = 100;  // CUDA_ERROR_NO_DEVICE

  void start();

  bool found_ = false;
  int version_ = 0, device_count_ = 0, status_ = 0;
  std::string error_;

  // Prototypes of cuda.h: CUresult is an enum, CUdevice an int, CUuuid 16 bytes.
  int (*init_)(unsigned) = nullptr;
  int (*driver_version_)(int*) = nullptr;
  int (*error_string_)(int, const char**) = nullptr;
  int (*count_)(int*) = nullptr;
  int (*get_)(int*, int) = nullptr;
  int (*name_)(char*, int, int) = nullptr;
  int (*total_memory_)(std::size_t*, int) = nullptr;
  int (*attribute_)(int*, int, int) = nullptr;
  int (*uuid_)(unsigned char*, int) = nullptr;
};

}  // namespace mmtrain
