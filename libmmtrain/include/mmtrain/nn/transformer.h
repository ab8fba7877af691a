#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any_value.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>

#include "mmtrain/core/export.h"
#include "mmtrain/nn/attention.h"
#include "mmtrain/nn/dropout.h"
#include "mmtrain/nn/linear.h"

namespace mmtrain::nn {

enum class Activation { relu, gelu };

struct TransformerEncoderLayerOptions {
  std::int64_t d_model = 0;  ///< features
  std::int64_t nhead = 1;
  std::int64_t dim_feedforward = 2048;
  double dropout = 0.1;  ///< of attention weights, after attention, inside and after the feed-forward part
  Activation activation = Activation::relu;
  double layer_norm_eps = 1e-5;
  bool norm_first = false;  ///< normalize before each part instead of after its residual sum
};

/// Encoder layer of Vaswani et al., "Attention is all you need", NeurIPS 2017: self-attention and a feed-forward part,
/// each with a residual connection. Batch first `[B,T,d_model]`; parameter names and results as Python's
/// `torch.nn.TransformerEncoderLayer`, dropout of this library.
class MMTRAIN_API TransformerEncoderLayerImpl : public torch::nn::Cloneable<TransformerEncoderLayerImpl> {
 public:
  explicit TransformerEncoderLayerImpl(const TransformerEncoderLayerOptions& options_);
  void reset() override;
  torch::Tensor forward(const torch::Tensor& input, const AttentionMasks& masks = {});

  TransformerEncoderLayerOptions options;
  MultiheadAttention self_attn{nullptr};
  Linear linear1{nullptr}, linear2{nullptr};
  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  Dropout dropout{nullptr}, dropout1{nullptr}, dropout2{nullptr};

 protected:
  // So that a Sequential can call it with the input alone.
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(AttentionMasks())})

 private:
  torch::Tensor attention_part(const torch::Tensor& input, const AttentionMasks& masks);
  torch::Tensor feedforward_part(const torch::Tensor& input);
};
TORCH_MODULE(TransformerEncoderLayer);

struct TransformerEncoderOptions {
  TransformerEncoderLayerOptions layer;
  std::int64_t num_layers = 1;
  bool final_norm = false;  ///< a LayerNorm after the last layer, which pre-norm layers need
  /// Keep only each layer's input for the backward pass and compute the rest again (`nn/checkpoint.h`).
  bool checkpoint = false;
};

/// A stack of encoder layers, `[B,T,d_model] -> [B,T,d_model]`; parameter names as Python's
/// `torch.nn.TransformerEncoder`. Every layer has initial weights of its own, where Python copies the first one's.
class MMTRAIN_API TransformerEncoderImpl : public torch::nn::Cloneable<TransformerEncoderImpl> {
 public:
  explicit TransformerEncoderImpl(const TransformerEncoderOptions& options_);
  void reset() override;
  torch::Tensor forward(torch::Tensor input, const AttentionMasks& masks = {});

  TransformerEncoderOptions options;
  torch::nn::ModuleList layers{nullptr};
  torch::nn::LayerNorm norm{nullptr};  ///< null without `final_norm`

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(AttentionMasks())})
};
TORCH_MODULE(TransformerEncoder);

}  // namespace mmtrain::nn
