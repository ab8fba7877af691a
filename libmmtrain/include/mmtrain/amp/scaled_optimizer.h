#pragma once

#include <ATen/core/Tensor.h>

#include "mmtrain/core/export.h"

namespace mmtrain::amp {

/// What a gradient scaler knows when an optimizer steps. All of it stays on the device.
struct StepScale {
  /// Float32 scalar by which the gradients are still multiplied; undefined: they are unscaled already.
  at::Tensor grad_scale;
  /// Float32 scalar: exactly 1 if a gradient is infinite or NaN, else 0.
  at::Tensor found_inf;
};

/// An optimizer that undoes the scale of its gradients and leaves a step out by itself, on the device, so that
/// `GradScaler::step` need not wait for the device to learn whether a gradient overflowed. The optimizers of
/// `mmtrain::optim` are such; a class of your own derives from `torch::optim::Optimizer` and from this.
class MMTRAIN_API ScaledOptimizer {
 public:
  virtual ~ScaledOptimizer();

  /// One step with the gradients divided by `grad_scale`. Where `found_inf` is 1, parameters and state, counts of
  /// steps included, must stay as they are.
  virtual void scaled_step(const StepScale& scale) = 0;
};

}  // namespace mmtrain::amp
