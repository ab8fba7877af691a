#include "mmtrain/nn/transformer.h"

#include <fmt/format.h>

#include "mmtrain/core/error.h"
#include "mmtrain/nn/checkpoint.h"

namespace mmtrain::nn {
namespace {

torch::nn::LayerNorm layer_norm(const TransformerEncoderLayerOptions& options) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({options.d_model}).eps(options.layer_norm_eps));
}

}  // namespace

TransformerEncoderLayerImpl::TransformerEncoderLayerImpl(const TransformerEncoderLayerOptions& options_)
    : options(options_) {
  if (options.dim_feedforward < 1) {
    throw ConfigError(
        fmt::format("[TransformerEncoderLayer] dim_feedforward must be positive, got {}", options.dim_feedforward));
  }
  TransformerEncoderLayerImpl::reset();
}

void TransformerEncoderLayerImpl::reset() {
  self_attn = register_module("self_attn", MultiheadAttention(MultiheadAttentionOptions{
                                               .embed_dim = options.d_model,
                                               .num_heads = options.nhead,
                                               .dropout = options.dropout,
                                           }));
  linear1 = register_module("linear1", Linear(options.d_model, options.dim_feedforward));
  dropout = register_module("dropout", Dropout(options.dropout));
  linear2 = register_module("linear2", Linear(options.dim_feedforward, options.d_model));
  norm1 = register_module("norm1", layer_norm(options));
  norm2 = register_module("norm2", layer_norm(options));
  dropout1 = register_module("dropout1", Dropout(options.dropout));
  dropout2 = register_module("dropout2", Dropout(options.dropout));
}

torch::Tensor TransformerEncoderLayerImpl::attention_part(const torch::Tensor& input, const AttentionMasks& masks) {
  return dropout1(self_attn(input, input, input, masks));
}

torch::Tensor TransformerEncoderLayerImpl::feedforward_part(const torch::Tensor& input) {
  const torch::Tensor hidden = linear1(input);
  return dropout2(linear2(dropout(options.activation == Activation::gelu ? torch::gelu(hidden) : torch::relu(hidden))));
}

torch::Tensor TransformerEncoderLayerImpl::forward(const torch::Tensor& input, const AttentionMasks& masks) {
  if (options.norm_first) {
    const torch::Tensor middle = input + attention_part(norm1(input), masks);
    return middle + feedforward_part(norm2(middle));
  }
  const torch::Tensor middle = norm1(input + attention_part(input, masks));
  return norm2(middle + feedforward_part(middle));
}

TransformerEncoderImpl::TransformerEncoderImpl(const TransformerEncoderOptions& options_) : options(options_) {
  if (options.num_layers < 1) {
    throw ConfigError(fmt::format("[TransformerEncoder] num_layers must be positive, got {}", options.num_layers));
  }
  TransformerEncoderImpl::reset();
}

void TransformerEncoderImpl::reset() {
  layers = register_module("layers", torch::nn::ModuleList());
  for (std::int64_t i = 0; i < options.num_layers; ++i) layers->push_back(TransformerEncoderLayer(options.layer));
  if (options.final_norm) norm = register_module("norm", layer_norm(options.layer));
}

torch::Tensor TransformerEncoderImpl::forward(torch::Tensor input, const AttentionMasks& masks) {
  for (const auto& module : *layers) {
    auto layer = std::static_pointer_cast<TransformerEncoderLayerImpl>(module);
    input = options.checkpoint
                ? checkpoint(*layer, input, [layer, masks](const torch::Tensor& x) { return layer->forward(x, masks); })
                : layer->forward(input, masks);
  }
  return norm.is_empty() ? input : norm(input);
}

}  // namespace mmtrain::nn
