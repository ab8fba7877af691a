#pragma once

#include <optional>
#include <string>
#include <vector>

namespace mmtrain {

class CudaDriver;

// What decides whether CUDA can be used, gathered once so that the reasoning about it is a pure function.
struct CudaSituation {
  int libtorch_cuda = 0;  // CUDA version LibTorch was built for, 13000 is 13.0; 0 for a CPU-only LibTorch
  bool driver_found = false;
  int driver_version = 0;                      // CUDA version the driver serves
  int driver_devices = 0;                      // devices the driver shows
  bool driver_no_device = false;               // the driver works but has no device
  std::string driver_error;                    // why the driver did not start
  std::optional<std::string> visible_devices;  // CUDA_VISIBLE_DEVICES
};

CudaSituation cuda_situation(int libtorch_cuda, const CudaDriver& driver);

// `13.0` for 13000.
std::string cuda_version_text(int version);

// Why CUDA cannot be used, as the middle of a sentence; empty if it can.
std::string explain_no_cuda(const CudaSituation& situation);

// CUDA indices named by `spec` on a machine with the GPUs `names`; empty means the CPU. `unavailable` is the reason why
// there are none. See `parse_devices`.
std::vector<int> select_devices(const std::string& spec, const std::vector<std::string>& names,
                                const std::string& unavailable);

}  // namespace mmtrain
