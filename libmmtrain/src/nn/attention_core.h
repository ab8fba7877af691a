#pragma once

#include <torch/types.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "mmtrain/nn/attention.h"

namespace mmtrain::nn::detail {

/// What attention works on: projected queries, keys and values `[B,T,E]` as they leave the products, packed side by
/// side along the features: {qkv}, {q, kv} or {q, k, v}. Unpacking by views would cost copies in the backward pass.
struct ProjectedInputs {
  std::vector<torch::Tensor> packed;
  std::int64_t heads;
};

/// Queries, keys and values as views `[B,T,H,D]` of the packed tensors.
struct HeadViews {
  torch::Tensor q, k, v;
};
HeadViews head_views(const std::vector<torch::Tensor>& packed, std::int64_t heads);

/// softmax(q k^T / sqrt(D) + masks), dropped out with probability `dropout` as `layer`, times v: `[B,T,E]`.
torch::Tensor attend(const ProjectedInputs& inputs, const AttentionMasks& masks, double dropout, std::uint64_t layer);

/// The same without dropout, by LibTorch's kernel.
torch::Tensor scaled_dot_product(const ProjectedInputs& inputs, const AttentionMasks& masks);

/// The same composed of operators, with the weights after dropout `[B,H,T,S]`.
std::pair<torch::Tensor, torch::Tensor> attend_with_weights(const ProjectedInputs& inputs, const AttentionMasks& masks,
                                                            double dropout, std::uint64_t layer);

/// Whether the fused kernel can do it.
bool can_fuse(const ProjectedInputs& inputs, const AttentionMasks& masks, double dropout);

/// The same by the fused kernel.
torch::Tensor fused_attend(const ProjectedInputs& inputs, const AttentionMasks& masks, double dropout,
                           std::uint64_t layer);

}  // namespace mmtrain::nn::detail
