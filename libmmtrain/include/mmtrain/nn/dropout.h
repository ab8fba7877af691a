#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/options/dropout.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <ostream>

#include "mmtrain/core/export.h"
#include "mmtrain/nn/random_context.h"

/// Dropout (Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014) whose
/// masks come from counters instead of a generator: reproducible on any number of ranks and threads, and parallel,
/// which LibTorch's CPU dropout is not. An element's number depends on its sample and on its place in the sample's
/// memory.
namespace mmtrain::nn {

/// Elements of `input` `[B,...]` are set to 0 with probability `p`, others are divided by 1 - p. Draws as `layer` from
/// the thread's `RandomContext`. Throws `ConfigError` unless 0 <= p <= 1. With `inplace` the result is `input` itself.
MMTRAIN_API torch::Tensor dropout(const torch::Tensor& input, double p, std::uint64_t layer = 0, bool inplace = false);

/// Whole channels of `input` `[B,C,...]` are dropped.
MMTRAIN_API torch::Tensor dropout_channels(const torch::Tensor& input, double p, std::uint64_t layer = 0);

/// `dropout` in training mode, the identity in evaluation mode. Takes the place of `torch::nn::Dropout`.
class MMTRAIN_API DropoutImpl : public torch::nn::Cloneable<DropoutImpl>, public RandomLayer {
 public:
  DropoutImpl(double p) : DropoutImpl(torch::nn::DropoutOptions(p)) {}
  explicit DropoutImpl(const torch::nn::DropoutOptions& options_ = {});
  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  torch::Tensor forward(const torch::Tensor& input);

  torch::nn::DropoutOptions options;
};
TORCH_MODULE(Dropout);

/// `dropout_channels` in training mode, the identity in evaluation mode. Takes the place of `torch::nn::Dropout2d`.
class MMTRAIN_API Dropout2dImpl : public torch::nn::Cloneable<Dropout2dImpl>, public RandomLayer {
 public:
  Dropout2dImpl(double p) : Dropout2dImpl(torch::nn::Dropout2dOptions(p)) {}
  explicit Dropout2dImpl(const torch::nn::Dropout2dOptions& options_ = {});
  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  torch::Tensor forward(const torch::Tensor& input);

  torch::nn::Dropout2dOptions options;
};
TORCH_MODULE(Dropout2d);

}  // namespace mmtrain::nn
