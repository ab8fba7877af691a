#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/options/linear.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <ostream>

#include "mmtrain/core/export.h"

namespace mmtrain::nn {

/// `y = x W^T + b` over the last dimension, `[...,in] -> [...,out]`, with the options, parameter names and initial
/// values of `torch::nn::Linear`. Unlike that, and like Python's, it is one operator for inputs of any dimension:
/// LibTorch's C++ layer adds the bias to all but matrices in a pass of its own, which is slower and rounds differently.
class MMTRAIN_API LinearImpl : public torch::nn::Cloneable<LinearImpl> {
 public:
  LinearImpl(std::int64_t in_features, std::int64_t out_features)
      : LinearImpl(torch::nn::LinearOptions(in_features, out_features)) {}
  explicit LinearImpl(const torch::nn::LinearOptions& options_);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  torch::Tensor forward(const torch::Tensor& input);

  torch::nn::LinearOptions options;
  torch::Tensor weight;  ///< `[out,in]`
  torch::Tensor bias;    ///< `[out]`; undefined without
};
TORCH_MODULE(Linear);

}  // namespace mmtrain::nn
