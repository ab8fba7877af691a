#pragma once

#include <torch/types.h>

#include "nn/random_draw.h"

namespace mmtrain::nn::detail {

/// The mask that the CPU kernels apply, made of tensor operations on any device: bool, shape and strides of `like`,
/// whose samples lie one after the other.
torch::Tensor keep_mask(const RandomDraw& draw, const torch::Tensor& like);

/// Philox4x32-10 on int64 tensors that hold 32-bit numbers and broadcast. `Key`: numbers or tensors.
using PhiloxWords = std::array<torch::Tensor, 4>;
template <class Key>
PhiloxWords philox(PhiloxWords counter, std::array<Key, 2> key);

}  // namespace mmtrain::nn::detail
