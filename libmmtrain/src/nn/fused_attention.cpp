#include "nn/attention_core.h"

#include <ATen/Parallel.h>
#include <torch/autograd.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "mmtrain/core/error.h"
#include "nn/kernels.h"
#include "nn/random_draw.h"

namespace mmtrain::nn::detail {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What both passes share besides the projected inputs.
struct Settings : torch::CustomClassHolder {
  std::int64_t heads = 1;
  double dropout = 0;
  RandomDrawPtr draw;      // null: no dropout
  torch::Tensor key_bias;  // [B or 1, padded S]
  torch::Tensor bias;      // [T, padded S], or undefined
};

// A mask of `[rows,S]`, or of none, as values to add, in rows of whole vectors. `padding` fills the rest.
torch::Tensor padded_bias(const torch::Tensor& mask, std::int64_t keys, float padding) {
  const std::int64_t rows = mask.defined() ? mask.size(0) : 1;
  const auto width = static_cast<std::int64_t>(padded(static_cast<std::size_t>(keys)));
  torch::Tensor bias = torch::full({rows, width}, padding, torch::kFloat);
  torch::Tensor values = bias.narrow(1, 0, keys);
  if (!mask.defined()) {
    values.zero_();
  } else if (mask.scalar_type() == torch::kBool) {
    values.zero_().masked_fill_(mask, -std::numeric_limits<double>::infinity());
  } else {
    values.copy_(mask);
  }
  return bias;
}

// Memory of a kernel, aligned to the cache's lines.
class WorkspaceMemory {
 public:
  explicit WorkspaceMemory(std::size_t floats)
      : memory_(torch::empty({static_cast<std::int64_t>(floats)}, torch::kFloat)) {}
  float* data() { return memory_.data_ptr<float>(); }

 private:
  torch::Tensor memory_;  // LibTorch's allocator aligns to 64 bytes
};

std::ptrdiff_t offset(const torch::Tensor& view, std::int64_t sample, std::int64_t head) {
  return sample * view.stride(0) + head * view.stride(2);
}

// One head's part of the work: describes it, and runs kernels on it.
class HeadLoop {
 public:
  HeadLoop(const HeadViews& views, const Settings& settings)
      : views_(views), settings_(settings), batch_(views.q.size(0)), heads_(views.q.size(2)) {
    shape_.queries = static_cast<std::size_t>(views.q.size(1));
    shape_.keys = static_cast<std::size_t>(views.k.size(1));
    shape_.head_size = static_cast<std::size_t>(views.q.size(3));
    shape_.q_row = views.q.stride(1);
    shape_.k_row = views.k.stride(1);
    shape_.v_row = views.v.stride(1);
    shape_.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(views.q.size(3))));
    shape_.bias = settings.bias.defined() ? settings.bias.const_data_ptr<float>() : nullptr;
    shape_.keep_scale = static_cast<float>(1 / (1 - settings.dropout));
  }

  // Calls `work(head, sample, head's number, workspace)` for all heads of all samples, in parallel.
  template <class Work>
  void run(const Work& work) const {
    at::parallel_for(0, batch_ * heads_, 1, [&](std::int64_t begin, std::int64_t end) {
      WorkspaceMemory memory(kernels().attention_workspace(shape_));
      for (std::int64_t i = begin; i < end; ++i) {
        MaskStream stream{};
        work(head(i / heads_, i % heads_, stream), i / heads_, i % heads_, memory.data());
      }
    });
  }

 private:
  AttentionHead head(std::int64_t sample, std::int64_t number, MaskStream& stream) const {
    AttentionHead head = shape_;
    head.q = views_.q.const_data_ptr<float>() + offset(views_.q, sample, number);
    head.k = views_.k.const_data_ptr<float>() + offset(views_.k, sample, number);
    head.v = views_.v.const_data_ptr<float>() + offset(views_.v, sample, number);
    const std::int64_t bias_row = settings_.key_bias.size(0) == 1 ? 0 : sample;
    head.key_bias = settings_.key_bias.const_data_ptr<float>() + bias_row * settings_.key_bias.size(1);
    if (settings_.draw) {
      // The numbers that a [B,H,T,S] tensor of weights would get.
      const std::int64_t rows_per_sample = batch_ / settings_.draw->count;
      stream = settings_.draw->stream(sample / rows_per_sample);
      head.dropout = &stream;
      const std::int64_t first_head = sample % rows_per_sample * heads_ + number;
      head.first_element = static_cast<std::size_t>(first_head) * head.queries * head.keys;
    }
    return head;
  }

  const HeadViews& views_;
  const Settings& settings_;
  std::int64_t batch_, heads_;
  AttentionHead shape_{};
};

struct FusedAttention : torch::autograd::Function<FusedAttention> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& first,
                               const std::optional<torch::Tensor>& second, const std::optional<torch::Tensor>& third,
                               const c10::intrusive_ptr<Settings>& settings) {
    variable_list packed{first};
    if (second) packed.push_back(*second);
    if (third) packed.push_back(*third);
    const HeadViews views = head_views(packed, settings->heads);
    const std::int64_t batch = views.q.size(0), queries = views.q.size(1), size = views.q.size(3);
    const torch::Tensor out = torch::empty({batch, queries, settings->heads * size}, torch::kFloat);
    const torch::Tensor log_sums = torch::empty({batch, settings->heads, queries}, torch::kFloat);
    const torch::Tensor out_heads = out.view({batch, queries, settings->heads, size});
    HeadLoop(views, *settings).run([&](const AttentionHead& head, std::int64_t b, std::int64_t h, float* workspace) {
      const AttentionResult result{out_heads.data_ptr<float>() + offset(out_heads, b, h), out_heads.stride(1),
                                   log_sums.data_ptr<float>() + (b * settings->heads + h) * queries};
      kernels().attention_forward(head, result, workspace);
    });
    ctx->saved_data["settings"] = c10::IValue::make_capsule(settings);
    packed.push_back(out);
    packed.push_back(log_sums);
    ctx->save_for_backward(packed);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list out_gradients) {
    if (torch::GradMode::is_enabled()) {
      throw ConfigError(
          "[attention] has no second derivatives in float32 on CPU: run the net in float64, or without create_graph");
    }
    const auto settings = c10::static_intrusive_pointer_cast<Settings>(ctx->saved_data["settings"].toCapsule());
    variable_list packed = ctx->get_saved_variables();
    const torch::Tensor log_sums = packed.back(), out = packed[packed.size() - 2];
    packed.resize(packed.size() - 2);
    variable_list gradients;
    for (const torch::Tensor& input : packed) gradients.push_back(torch::empty_like(input));

    const HeadViews views = head_views(packed, settings->heads), grads = head_views(gradients, settings->heads);
    const std::int64_t queries = views.q.size(1);
    const auto by_head = [&](const torch::Tensor& tensor) {
      return tensor.view({tensor.size(0), queries, settings->heads, -1});
    };
    const torch::Tensor out_heads = by_head(out), out_grads = by_head(out_gradients[0].contiguous());
    HeadLoop(views, *settings).run([&](const AttentionHead& head, std::int64_t b, std::int64_t h, float* workspace) {
      const auto at = [&](const torch::Tensor& view) { return view.data_ptr<float>() + offset(view, b, h); };
      const AttentionGradients pointers{
          at(out_heads),       at(out_grads),       log_sums.data_ptr<float>() + (b * settings->heads + h) * queries,
          out_heads.stride(1), out_grads.stride(1), at(grads.q),
          at(grads.k),         at(grads.v),         grads.q.stride(1),
          grads.k.stride(1),   grads.v.stride(1)};
      kernels().attention_backward(head, pointers, workspace);
    });
    gradients.resize(4);
    return gradients;
  }
};

bool is_plain(const torch::Tensor& mask) {
  return !mask.defined() || (mask.is_cpu() && mask.dim() == 2 && !mask.requires_grad());
}

}  // namespace

bool can_fuse(const ProjectedInputs& inputs, const AttentionMasks& masks, double dropout) {
  const auto fits = [](const torch::Tensor& tensor) {
    return tensor.is_cpu() && tensor.scalar_type() == torch::kFloat && tensor.numel() > 0;
  };
  return dropout < 1 && std::all_of(inputs.packed.begin(), inputs.packed.end(), fits) && is_plain(masks.key_padding) &&
         is_plain(masks.attention);
}

torch::Tensor fused_attend(const ProjectedInputs& inputs, const AttentionMasks& masks, double dropout,
                           std::uint64_t layer) {
  variable_list packed;
  for (const torch::Tensor& tensor : inputs.packed) packed.push_back(tensor.contiguous());
  const std::int64_t keys = packed.back().size(1);
  auto settings = c10::make_intrusive<Settings>();
  settings->heads = inputs.heads;
  settings->dropout = dropout;
  if (dropout > 0) settings->draw = draw_random(layer, packed[0].size(0), dropout);
  settings->key_bias = padded_bias(masks.key_padding, keys, -std::numeric_limits<float>::infinity());
  if (masks.attention.defined()) settings->bias = padded_bias(masks.attention, keys, 0);
  const auto part = [&](std::size_t i) {
    return i < packed.size() ? std::optional<torch::Tensor>(packed[i]) : std::nullopt;
  };
  return FusedAttention::apply(packed[0], part(1), part(2), settings);
}

}  // namespace mmtrain::nn::detail
