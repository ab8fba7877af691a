#pragma once

#include <torch/types.h>

#include "nn/random_draw.h"

namespace mmtrain::nn::detail {

/// The mask that the CPU kernels apply, made of tensor operations on any device: bool, shape and strides of `like`,
/// whose samples lie one after the other.
torch::Tensor keep_mask(const RandomDraw& draw, const torch::Tensor& like);

}  // namespace mmtrain::nn::detail
