#pragma once

#include <torch/nn/modules/conv.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <ostream>

#include "mmtrain/core/export.h"

namespace mmtrain::nn {

/// Convolution over sequences, `[B,C,L] -> [B,C',L']`, with the options, parameter names, initial values and results
/// (up to rounding) of `torch::nn::Conv1d`.
///
/// On a CPU the sequence is taken as a map of height 1 whose channels lie last in memory, and so is the result: its
/// strides are those of `[B,L',C']`. The kernels read whole vectors of channels, and activations, pooling and
/// `nn::BatchNorm1d` keep that order. The results are views: do not change them in place, which autograd allows but
/// pays with a copy. On other devices it is the stock layer.
class MMTRAIN_API Conv1dImpl : public torch::nn::ConvNdImpl<1, Conv1dImpl> {
 public:
  Conv1dImpl(std::int64_t in_channels, std::int64_t out_channels, torch::ExpandingArray<1> kernel_size)
      : Conv1dImpl(torch::nn::Conv1dOptions(in_channels, out_channels, kernel_size)) {}
  /// Throws as `torch::nn::Conv1d` does for options that do not fit together.
  explicit Conv1dImpl(const torch::nn::Conv1dOptions& options_);

  torch::Tensor forward(const torch::Tensor& input);
  void pretty_print(std::ostream& stream) const override;
};
TORCH_MODULE(Conv1d);

}  // namespace mmtrain::nn
