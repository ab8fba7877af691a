// One of the files that include headers of the CUDA toolkit, and NCCL's.
#include "parallel/nccl_backend.h"

#include <c10/core/DeviceGuard.h>
#include <fmt/format.h>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "mmtrain/core/error.h"
#include "parallel/error_text.h"

namespace mmtrain::parallel {

c10::intrusive_ptr<c10d::Backend> make_nccl_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                                    c10::Device device, std::chrono::milliseconds timeout) {
  const auto options = c10d::ProcessGroupNCCL::Options::create();
  // Only the last resort, since it ends the process: ranks agree on each step through the group on the CPU, whose
  // timeout comes first and names the rank that stays away.
  options->timeout = 2 * timeout;
  try {
    const c10::OptionalDeviceGuard guard(device);
    return c10::make_intrusive<c10d::ProcessGroupNCCL>(c10::make_intrusive<c10d::PrefixStore>("nccl", store), rank,
                                                       size, options);
  } catch (const std::exception& error) {
    throw DeviceError(
        fmt::format("[ProcessGroup] rank {} cannot use NCCL on {}: {}", rank, device.str(), error_text(error)));
  }
}

}  // namespace mmtrain::parallel
