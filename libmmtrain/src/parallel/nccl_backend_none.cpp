#include "parallel/nccl_backend.h"

#include <fmt/format.h>

#include "mmtrain/core/error.h"

// Stands in where the headers of the CUDA toolkit or of NCCL were not there.
namespace mmtrain::parallel {

c10::intrusive_ptr<c10d::Backend> make_nccl_backend(const c10::intrusive_ptr<c10d::Store>&, int rank, int,
                                                    c10::Device device, std::chrono::milliseconds) {
  throw DeviceError(fmt::format(
      "[ProcessGroup] rank {} on {}: this library was built without NCCL, so that several GPUs cannot train "
      "together: build it where the CUDA toolkit's headers and nccl.h are, or take one GPU",
      rank, device.str()));
}

}  // namespace mmtrain::parallel
