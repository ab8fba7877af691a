#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "mmtrain/core/export.h"

namespace mmtrain::optim {

/// Scales the gradients of `parameters` so that their norm, as if they were one vector, is at most `max_norm`, and
/// returns the norm that they had: `torch.nn.utils.clip_grad_norm_`, number for number. `norm_type` 2, 1, infinity or
/// any other positive order.
///
/// Nothing waits for the device: the norm is a scalar tensor, on the device of the first gradient, to be read when a
/// log line is due. A norm that is infinite or NaN shows in it, and the gradients then become NaN or 0; with
/// `error_if_nonfinite` it is waited for and throws `Error` before any gradient was changed. Parameters without
/// gradient do not count. Throws `ConfigError` for a `norm_type` or `max_norm` that is not positive.
MMTRAIN_API at::Tensor clip_grad_norm(const std::vector<at::Tensor>& parameters, double max_norm,
                                      double norm_type = 2.0, bool error_if_nonfinite = false);

/// The norm alone, nothing is changed: for logging without clipping.
MMTRAIN_API at::Tensor grad_norm(const std::vector<at::Tensor>& parameters, double norm_type = 2.0);

/// Limits each element of the gradients to [-limit, limit]: `torch.nn.utils.clip_grad_value_`. A NaN stays. Throws
/// `ConfigError` if `limit` is negative or no number.
MMTRAIN_API void clip_grad_value(const std::vector<at::Tensor>& parameters, double limit);

}  // namespace mmtrain::optim
