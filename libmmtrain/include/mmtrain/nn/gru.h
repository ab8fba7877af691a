#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any_value.h>
#include <torch/nn/options/rnn.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/nn/random_context.h"

namespace mmtrain::nn {

/// Gated recurrent units (Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014) with the
/// options, parameter names, initial values and results of `torch::nn::GRU`; dropout between layers is this library's.
/// Packed sequences are not taken.
class MMTRAIN_API GRUImpl : public torch::nn::Cloneable<GRUImpl>, public RandomLayer {
 public:
  GRUImpl(std::int64_t input_size, std::int64_t hidden_size)
      : GRUImpl(torch::nn::GRUOptions(input_size, hidden_size)) {}
  /// Throws `ConfigError` for sizes below 1 and a dropout outside [0, 1].
  explicit GRUImpl(const torch::nn::GRUOptions& options_);
  void reset() override;

  /// input `[T,B,input_size]`, or `[B,T,input_size]` with `batch_first`; initial state `[L*D,B,hidden_size]`,
  /// undefined: 0. Returns the last layer's states, shaped like the input with D*hidden_size features, and the final
  /// state of each layer and direction `[L*D,B,hidden_size]`; D is 2 where bidirectional.
  std::tuple<torch::Tensor, torch::Tensor> forward(const torch::Tensor& input, const torch::Tensor& initial = {});

  torch::nn::GRUOptions options;

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(torch::Tensor())})

 private:
  std::int64_t directions() const { return options.bidirectional() ? 2 : 1; }
  // In the order that at::gru takes them, for one layer.
  std::vector<torch::Tensor> layer_weights(std::int64_t layer) const;
};
TORCH_MODULE(GRU);

}  // namespace mmtrain::nn
