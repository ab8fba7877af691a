#pragma once

#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <torch/types.h>

#include "mmtrain/batch/batch.h"

namespace mmtrain::detail {

// Copies page-locked batches to a device on a stream of its own, beside what the consumer's stream computes. Speaks
// to the device through LibTorch's device-independent interface, so that no CUDA header is needed.
class DeviceCopier {
 public:
  // Throws `DeviceError` if the device cannot be used.
  explicit DeviceCopier(torch::Device device);

  // A batch on its way.
  struct Copy {
    Batch batch;
    c10::Event done;
  };

  // Returns at once.
  Copy start(const Batch& batch) const;

  // The batch, for use on the calling thread's current stream of the device. Does not block the thread either.
  Batch finish(Copy copy) const;

 private:
  c10::Stream stream_;
};

// Throws `DeviceError` naming the option if this machine cannot provide page-locked memory.
void require_cuda(const char* option);

}  // namespace mmtrain::detail
