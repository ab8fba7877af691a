#include "data/device_copy.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>
#include <torch/cuda.h>

#include <utility>

#include "mmtrain/core/error.h"

namespace mmtrain::detail {
namespace {

c10::Stream side_stream(torch::Device device) {
  if (!device.is_cuda()) {
    throw ConfigError(fmt::format("[DataLoader] prefetch_device must be a CUDA device, got {}", device.str()));
  }
  require_cuda("prefetch_device");
  const c10::impl::VirtualGuardImpl backend(device.type());
  if (!device.has_index()) device = backend.getDevice();
  if (device.index() >= backend.deviceCount()) {
    throw DeviceError(fmt::format("[DataLoader] prefetch_device is {}, but there are {} CUDA devices", device.str(),
                                  static_cast<int>(backend.deviceCount())));
  }
  return backend.getStreamFromGlobalPool(device);
}

template <class Use>
void for_each_tensor(const Batch& batch, Use use) {
  for (const auto& input : batch.inputs) use(input.value());
  for (const torch::Tensor* tensor : {&batch.target, &batch.weights, &batch.ids}) {
    if (tensor->defined()) use(*tensor);
  }
}

}  // namespace

void require_cuda(const char* option) {
  if (!torch::cuda::is_available()) {
    throw DeviceError(fmt::format("[DataLoader] {} needs a CUDA device, and there is none: leave it unset", option));
  }
}

DeviceCopier::DeviceCopier(torch::Device device) : stream_(side_stream(device)) {}

DeviceCopier::Copy DeviceCopier::start(const Batch& batch) const {
  const c10::StreamGuard on_side_stream(stream_);
  Copy copy{batch.to(stream_.device(), /*non_blocking=*/true), c10::Event(stream_.device_type())};
  copy.done.record(stream_);
  return copy;
}

Batch DeviceCopier::finish(Copy copy) const {
  const c10::Stream consumer = c10::impl::VirtualGuardImpl(stream_.device_type()).getStream(stream_.device());
  copy.done.block(consumer);
  // The memory was allocated for the side stream: it may not be used again there before the consumer is done.
  for_each_tensor(copy.batch, [&](const torch::Tensor& tensor) { tensor.record_stream(consumer); });
  return std::move(copy.batch);
}

}  // namespace mmtrain::detail
