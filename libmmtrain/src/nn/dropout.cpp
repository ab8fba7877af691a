#include "mmtrain/nn/dropout.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <algorithm>

#include "mmtrain/core/error.h"
#include "nn/keep_mask.h"
#include "nn/kernels.h"
#include "nn/random_draw.h"

namespace mmtrain::nn {
namespace {

using detail::kMaskGroup;
using detail::RandomDraw;
using detail::RandomDrawPtr;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check_probability(const char* who, double p) {
  if (!(p >= 0 && p <= 1)) throw ConfigError(fmt::format("[{}] p must be between 0 and 1, got {}", who, p));
}

// Elements that a thread works on at a time: few enough for their mask to stay in registers and cache.
constexpr std::int64_t kChunk = 4096;

template <class T>
void drop_chunk(const detail::MaskStream& stream, std::size_t first_group, std::int64_t n, double scale, const T* in,
                T* out) {
  using Exact = at::opmath_type<T>;
  std::uint64_t words[kChunk / kMaskGroup];
  detail::kernels().keep_bits(stream, first_group, (static_cast<std::size_t>(n) + kMaskGroup - 1) / kMaskGroup, words);
  const auto factor = static_cast<Exact>(scale);
  for (std::int64_t i = 0; i < n; ++i) {
    const bool kept =
        (words[static_cast<std::size_t>(i) / kMaskGroup] >> (static_cast<std::size_t>(i) % kMaskGroup)) & 1;
    out[i] = kept ? static_cast<T>(static_cast<Exact>(in[i]) * factor) : T(0);
  }
}

template <>
void drop_chunk<float>(const detail::MaskStream& stream, std::size_t first_group, std::int64_t n, double scale,
                       const float* in, float* out) {
  detail::kernels().dropout(stream, first_group, static_cast<std::size_t>(n), static_cast<float>(scale), in, out);
}

template <class T>
void drop(const RandomDraw& draw, std::int64_t elements, double scale, const T* in, T* out) {
  const std::int64_t chunks = (elements + kChunk - 1) / kChunk;
  const std::int64_t grain = std::max<std::int64_t>(1, 4 * kChunk / std::min(elements, kChunk));
  at::parallel_for(0, draw.count * chunks, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t sample = task / chunks, first = task % chunks * kChunk;
      const std::int64_t offset = sample * elements + first;
      drop_chunk(draw.stream(sample), static_cast<std::size_t>(first) / kMaskGroup, std::min(kChunk, elements - first),
                 scale, in + offset, out + offset);
    }
  });
}

// Whether the samples lie one after the other, without gaps.
bool is_sample_major(const torch::Tensor& input) {
  return input.is_contiguous() || input.is_contiguous(at::MemoryFormat::ChannelsLast) ||
         input.is_contiguous(at::MemoryFormat::ChannelsLast3d);
}

torch::Tensor drop_on_cpu(const torch::Tensor& input, const RandomDraw& draw, double scale, torch::Tensor out) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "dropout", [&] {
    drop<scalar_t>(draw, input.numel() / draw.count, scale, input.const_data_ptr<scalar_t>(),
                   out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

// On CPU the backward pass draws the mask anew, which costs less than reading a stored one; elsewhere it is stored.
struct DropoutFunction : torch::autograd::Function<DropoutFunction> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& input, double p, const RandomDrawPtr& draw,
                               bool inplace) {
    const torch::Tensor source = is_sample_major(input) ? input : input.contiguous();
    const double scale = 1 / (1 - p);
    ctx->saved_data["p"] = p;
    ctx->saved_data["draw"] = c10::IValue::make_capsule(draw);
    ctx->saved_data["format"] = source.suggest_memory_format();
    torch::Tensor result;
    if (source.is_cpu()) {
      result = drop_on_cpu(source, *draw, scale, inplace && source.is_same(input) ? source : at::empty_like(source));
    } else {
      const torch::Tensor kept = detail::keep_mask(*draw, source);
      ctx->save_for_backward({kept});
      result = at::where(kept, source * scale, 0);
    }
    if (!inplace) return result;
    if (!result.is_same(input)) input.copy_(result);
    ctx->mark_dirty({input});
    return input;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const double p = ctx->saved_data["p"].toDouble();
    const variable_list saved = ctx->get_saved_variables();
    torch::Tensor gradient;
    if (saved.empty()) {
      const auto draw = c10::static_intrusive_pointer_cast<RandomDraw>(ctx->saved_data["draw"].toCapsule());
      const auto format = static_cast<at::MemoryFormat>(ctx->saved_data["format"].toInt());
      gradient = apply(gradients[0].contiguous(format), p, draw, /*inplace=*/false);
    } else {
      gradient = at::where(saved[0], gradients[0] * (1 / (1 - p)), 0);
    }
    return {gradient, {}, {}, {}};
  }
};

}  // namespace

torch::Tensor dropout(const torch::Tensor& input, double p, std::uint64_t layer, bool inplace) {
  check_probability("dropout", p);
  if (p == 0 || input.numel() == 0) return input;
  if (p == 1) return inplace ? input.zero_() : input * torch::zeros_like(input);
  const std::int64_t rows = input.dim() == 0 ? 1 : input.size(0);
  return DropoutFunction::apply(input, p, detail::draw_random(layer, rows, p), inplace);
}

torch::Tensor dropout_channels(const torch::Tensor& input, double p, std::uint64_t layer) {
  check_probability("dropout_channels", p);
  if (input.dim() < 3) {
    throw ConfigError(
        fmt::format("[dropout_channels] the input must be [B,C,...] with at least 3 dimensions, got {}", input.dim()));
  }
  if (p == 0) return input;
  const torch::Tensor ones = torch::ones({input.size(0), input.size(1)}, input.options().requires_grad(false));
  std::vector<std::int64_t> shape(static_cast<std::size_t>(input.dim()), 1);
  shape[0] = input.size(0);
  shape[1] = input.size(1);
  return input * dropout(ones, p, layer).view(shape);
}

DropoutImpl::DropoutImpl(const torch::nn::DropoutOptions& options_) : options(options_) { DropoutImpl::reset(); }

void DropoutImpl::reset() { check_probability("Dropout", options.p()); }

torch::Tensor DropoutImpl::forward(const torch::Tensor& input) {
  return is_training() ? dropout(input, options.p(), random_layer(), options.inplace()) : input;
}

void DropoutImpl::pretty_print(std::ostream& stream) const {
  stream << "mmtrain::nn::Dropout(p=" << options.p() << ')';
}

Dropout2dImpl::Dropout2dImpl(const torch::nn::Dropout2dOptions& options_) : options(options_) {
  Dropout2dImpl::reset();
}

void Dropout2dImpl::reset() { check_probability("Dropout2d", options.p()); }

torch::Tensor Dropout2dImpl::forward(const torch::Tensor& input) {
  return is_training() ? dropout_channels(input, options.p(), random_layer()) : input;
}

void Dropout2dImpl::pretty_print(std::ostream& stream) const {
  stream << "mmtrain::nn::Dropout2d(p=" << options.p() << ')';
}

}  // namespace mmtrain::nn
