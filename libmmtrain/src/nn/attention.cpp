#include "mmtrain/nn/attention.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/init.h>

#include "mmtrain/core/error.h"
#include "nn/attention_core.h"

namespace mmtrain::nn {
namespace {

void check(const MultiheadAttentionOptions& options) {
  if (options.embed_dim < 1 || options.num_heads < 1 || options.embed_dim % options.num_heads != 0) {
    throw ConfigError(fmt::format("[MultiheadAttention] num_heads must divide embed_dim, got {} and {}",
                                  options.num_heads, options.embed_dim));
  }
  if (!(options.dropout >= 0 && options.dropout <= 1)) {
    throw ConfigError(fmt::format("[MultiheadAttention] dropout must be between 0 and 1, got {}", options.dropout));
  }
}

void check_input(const char* name, const torch::Tensor& input, const torch::Tensor& query, std::int64_t features) {
  if (input.dim() != 3 || input.size(0) != query.size(0) || input.size(2) != features) {
    throw ConfigError(fmt::format("[MultiheadAttention] {} must be [B,T,{}] with the batch of the query, got [{}]",
                                  name, features, fmt::join(input.sizes(), ",")));
  }
}

void check_mask(const char* name, const torch::Tensor& mask, const std::vector<std::int64_t>& shape) {
  if (mask.defined() && mask.sizes() != torch::IntArrayRef(shape)) {
    throw ConfigError(fmt::format("[MultiheadAttention] the {} mask must be [{}], got [{}]", name,
                                  fmt::join(shape, ","), fmt::join(mask.sizes(), ",")));
  }
}

void check_call(const MultiheadAttentionOptions& options, const torch::Tensor& query, const torch::Tensor& key,
                const torch::Tensor& value, const AttentionMasks& masks) {
  check_input("query", query, query, options.embed_dim);
  check_input("key", key, query, options.kdim);
  check_input("value", value, query, options.vdim);
  const std::int64_t batch = query.size(0), queries = query.size(1), keys = key.size(1);
  if (value.size(1) != keys) {
    throw ConfigError(
        fmt::format("[MultiheadAttention] there must be as many values as keys, got {} and {}", value.size(1), keys));
  }
  check_mask("key padding", masks.key_padding, {batch, keys});
  const bool by_head = masks.attention.defined() && masks.attention.dim() == 3;
  check_mask("attention", masks.attention,
             by_head ? std::vector<std::int64_t>{batch * options.num_heads, queries, keys}
                     : std::vector<std::int64_t>{queries, keys});
}

}  // namespace

MultiheadAttentionImpl::MultiheadAttentionImpl(const MultiheadAttentionOptions& options_) : options(options_) {
  check(options);
  if (options.kdim == 0) options.kdim = options.embed_dim;
  if (options.vdim == 0) options.vdim = options.embed_dim;
  MultiheadAttentionImpl::reset();
}

void MultiheadAttentionImpl::reset() {
  const std::int64_t size = options.embed_dim;
  const auto weight = [&](const char* name, std::int64_t rows, std::int64_t columns) {
    torch::Tensor tensor = register_parameter(name, torch::empty({rows, columns}));
    torch::nn::init::xavier_uniform_(tensor);
    return tensor;
  };
  if (options.kdim == size && options.vdim == size) {
    in_proj_weight = weight("in_proj_weight", 3 * size, size);
  } else {
    q_proj_weight = weight("q_proj_weight", size, size);
    k_proj_weight = weight("k_proj_weight", size, options.kdim);
    v_proj_weight = weight("v_proj_weight", size, options.vdim);
  }
  if (options.bias) in_proj_bias = register_parameter("in_proj_bias", torch::zeros({3 * size}));
  out_proj = register_module("out_proj", Linear(torch::nn::LinearOptions(size, size).bias(options.bias)));
  if (options.bias) torch::nn::init::zeros_(out_proj->bias);
}

std::vector<torch::Tensor> MultiheadAttentionImpl::project(const torch::Tensor& query, const torch::Tensor& key,
                                                           const torch::Tensor& value, bool time_first) {
  const std::int64_t size = options.embed_dim;
  std::vector<torch::Tensor> packed;
  const auto add = [&](const torch::Tensor& input, const torch::Tensor& weight, const torch::Tensor& bias,
                       std::int64_t parts) {
    if (!time_first) {
      packed.push_back(torch::linear(input, weight, bias));
      return;
    }
    const torch::Tensor product = torch::linear(input.transpose(0, 1), weight, bias);
    const torch::Tensor apart = product.unflatten(-1, {parts, size}).movedim(-2, 0).contiguous();
    for (const torch::Tensor& part : apart.unbind(0)) packed.push_back(part.transpose(0, 1));
  };
  const auto bias = [&](std::int64_t first, std::int64_t parts) {
    return in_proj_bias.defined() ? in_proj_bias.narrow(0, first * size, parts * size) : torch::Tensor();
  };
  const auto weight = [&](std::int64_t first, std::int64_t parts) {
    return in_proj_weight.narrow(0, first * size, parts * size);
  };
  if (!in_proj_weight.defined()) {
    add(query, q_proj_weight, bias(0, 1), 1);
    add(key, k_proj_weight, bias(1, 1), 1);
    add(value, v_proj_weight, bias(2, 1), 1);
  } else if (!key.is_same(value)) {
    add(query, weight(0, 1), bias(0, 1), 1);
    add(key, weight(1, 1), bias(1, 1), 1);
    add(value, weight(2, 1), bias(2, 1), 1);
  } else if (!query.is_same(key)) {
    add(query, weight(0, 1), bias(0, 1), 1);
    add(key, weight(1, 2), bias(1, 2), 2);
  } else {
    add(query, in_proj_weight, in_proj_bias, 3);
  }
  return packed;
}

// Where there is nothing to drop, training can follow torch.nn.MultiheadAttention operator by operator, with rows that
// are time first as there, so that all sums round alike: runs of both stay together for as long as the rest of the net
// lets them. It costs a few per cent, but with small heads LibTorch's kernel takes several times as long as ours.
bool MultiheadAttentionImpl::rounds_as_python(const torch::Tensor& query) const {
  constexpr std::int64_t kSmallHead = 16;
  return is_training() && options.dropout == 0 && query.is_cpu() && options.embed_dim / options.num_heads > kSmallHead;
}

torch::Tensor MultiheadAttentionImpl::forward(const torch::Tensor& query, const torch::Tensor& key,
                                              const torch::Tensor& value, const AttentionMasks& masks) {
  check_call(options, query, key, value, masks);
  if (!rounds_as_python(query)) {
    return out_proj(
        detail::attend({project(query, key, value, false), options.num_heads}, masks, dropout_now(), random_layer()));
  }
  const torch::Tensor joined = detail::scaled_dot_product({project(query, key, value, true), options.num_heads}, masks);
  return out_proj(joined.transpose(0, 1).contiguous()).transpose(0, 1);
}

std::pair<torch::Tensor, torch::Tensor> MultiheadAttentionImpl::forward_with_weights(const torch::Tensor& query,
                                                                                     const torch::Tensor& key,
                                                                                     const torch::Tensor& value,
                                                                                     const AttentionMasks& masks) {
  check_call(options, query, key, value, masks);
  const auto [out, weights] = detail::attend_with_weights({project(query, key, value, false), options.num_heads}, masks,
                                                          dropout_now(), random_layer());
  return {out_proj(out), weights.mean(1)};
}

}  // namespace mmtrain::nn
