#include "nn/attention_core.h"

#include <cmath>
#include <limits>

#include "mmtrain/nn/dropout.h"

namespace mmtrain::nn::detail {
namespace {

// A mask as values to add to scores of the type of `like`.
torch::Tensor additive(const torch::Tensor& mask, const torch::Tensor& like) {
  if (mask.scalar_type() != torch::kBool) return mask.to(like.options());
  const auto blocked = -std::numeric_limits<double>::infinity();
  return torch::zeros(mask.sizes(), like.options().requires_grad(false)).masked_fill_(mask, blocked);
}

// Both masks as one that broadcasts to `[B,H,T,S]`; undefined without masks.
torch::Tensor joint_mask(const AttentionMasks& masks, const torch::Tensor& q, std::int64_t heads) {
  torch::Tensor joint;
  if (masks.attention.defined()) {
    joint = additive(masks.attention, q);
    if (joint.dim() == 3) joint = joint.view({-1, heads, joint.size(1), joint.size(2)});
  }
  if (masks.key_padding.defined()) {
    const torch::Tensor padding = additive(masks.key_padding, q).unsqueeze(1).unsqueeze(1);
    joint = joint.defined() ? joint + padding : padding;
  }
  return joint;
}

// [B,H,T,D] -> [B,T,E]
torch::Tensor join_heads(const torch::Tensor& heads) {
  return heads.transpose(1, 2).reshape({heads.size(0), heads.size(2), -1});
}

}  // namespace

HeadViews head_views(const std::vector<torch::Tensor>& packed, std::int64_t heads) {
  const auto part = [&](const torch::Tensor& tensor, std::int64_t index, std::int64_t parts) {
    return tensor.view({tensor.size(0), tensor.size(1), parts, heads, -1}).select(2, index);
  };
  switch (packed.size()) {
    case 1:
      return {part(packed[0], 0, 3), part(packed[0], 1, 3), part(packed[0], 2, 3)};
    case 2:
      return {part(packed[0], 0, 1), part(packed[1], 0, 2), part(packed[1], 1, 2)};
    default:
      return {part(packed[0], 0, 1), part(packed[1], 0, 1), part(packed[2], 0, 1)};
  }
}

torch::Tensor attend(const ProjectedInputs& inputs, const AttentionMasks& masks, double dropout, std::uint64_t layer) {
  if (can_fuse(inputs, masks, dropout)) return fused_attend(inputs, masks, dropout, layer);
  if (dropout > 0) return attend_with_weights(inputs, masks, dropout, layer).first;
  return scaled_dot_product(inputs, masks);
}

torch::Tensor scaled_dot_product(const ProjectedInputs& inputs, const AttentionMasks& masks) {
  const HeadViews views = head_views(inputs.packed, inputs.heads);
  const torch::Tensor mask = joint_mask(masks, views.q, inputs.heads);
  return join_heads(
      at::scaled_dot_product_attention(views.q.transpose(1, 2), views.k.transpose(1, 2), views.v.transpose(1, 2),
                                       mask.defined() ? std::optional<torch::Tensor>(mask) : std::nullopt));
}

std::pair<torch::Tensor, torch::Tensor> attend_with_weights(const ProjectedInputs& inputs, const AttentionMasks& masks,
                                                            double dropout, std::uint64_t layer) {
  const HeadViews views = head_views(inputs.packed, inputs.heads);
  const double scale = 1 / std::sqrt(static_cast<double>(views.q.size(3)));
  torch::Tensor scores = torch::matmul(views.q.transpose(1, 2) * scale, views.k.permute({0, 2, 3, 1}));
  const torch::Tensor mask = joint_mask(masks, scores, inputs.heads);
  if (mask.defined()) scores = scores + mask;
  // Unlike softmax, 0 instead of NaN for a row without a key.
  torch::Tensor weights = at::_safe_softmax(scores, -1);
  if (dropout > 0) weights = nn::dropout(weights, dropout, layer);
  return {join_heads(torch::matmul(weights, views.v.transpose(1, 2))), weights};
}

}  // namespace mmtrain::nn::detail
