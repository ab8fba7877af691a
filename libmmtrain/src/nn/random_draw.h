#pragma once

#include <torch/custom_class.h>
#include <torch/types.h>

#include <array>
#include <cstdint>
#include <vector>

#include "nn/kernels.h"

namespace mmtrain::nn::detail {

/// What one call of one layer drew; kept for its backward pass, which needs the same numbers on any thread.
struct RandomDraw : torch::CustomClassHolder {
  std::array<std::uint32_t, 2> key{};
  std::uint32_t threshold = 0;  ///< p * 2^32
  std::int64_t count = 1;       ///< samples that the tensor consists of
  std::int64_t first_sample = 0;
  std::vector<std::int64_t> samples;  ///< place of each; empty: they follow `first_sample`
  /// Where the step is known on the device alone (see `StepContext`): `key` as int64 scalars there.
  std::array<torch::Tensor, 2> key_on_device{};

  std::int64_t sample(std::int64_t index) const {
    return samples.empty() ? first_sample + index : samples[static_cast<std::size_t>(index)];
  }
  MaskStream stream(std::int64_t index) const {
    return {{key[0], key[1]}, threshold, static_cast<std::uint64_t>(sample(index))};
  }
};

using RandomDrawPtr = c10::intrusive_ptr<RandomDraw>;

/// Draws for a tensor of `rows` rows, elements of which are dropped with probability `p` < 1.
RandomDrawPtr draw_random(std::uint64_t layer, std::int64_t rows, double p);

}  // namespace mmtrain::nn::detail
