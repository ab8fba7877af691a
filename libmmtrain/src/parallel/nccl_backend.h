#pragma once

#include <c10/core/Device.h>

#include <chrono>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace mmtrain::parallel {

// NCCL's collectives for the tensors that one rank of `size` has on `device`. The ranks connect at their first
// collective. Throws `DeviceError` where there is no such device or this library was built without NCCL.
c10::intrusive_ptr<c10d::Backend> make_nccl_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                                    c10::Device device, std::chrono::milliseconds timeout);

}  // namespace mmtrain::parallel
