#include "mmtrain/models/behavior.h"

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/pooling.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <optional>

#include "mmtrain/core/error.h"
#include "mmtrain/models/options.h"
#include "mmtrain/nn/conv1d.h"
#include "models/checks.h"

namespace mmtrain::models {
namespace {

constexpr std::int64_t kReduction = 16;

torch::nn::ReLU relu() { return torch::nn::ReLU(torch::nn::ReLUOptions(/*inplace=*/true)); }

struct TransformerSizes {
  std::int64_t d_model, num_heads, num_layers;
};

// The options with the reference's sizes where they are 0.
BehaviorOptions settled(BehaviorOptions options, const TransformerSizes& reference, const char* who) {
  const auto settle = [](std::int64_t& size, std::int64_t usual) {
    if (size == 0) size = usual;
  };
  settle(options.d_model, reference.d_model);
  settle(options.num_heads, reference.num_heads);
  settle(options.num_layers, reference.num_layers);
  settle(options.d_ff, 4 * options.d_model);
  check_positive(options.num_classes, "num_classes", who);
  check_positive(options.channels, "channels", who);
  check_heads(options.d_model, options.num_heads, who);
  check_positive(options.num_layers, "num_layers", who);
  check_positive(options.d_ff, "d_ff", who);
  check_width(options.cnn_width, who);
  check_probability(options.dropout, "dropout", who);
  check_probability(options.head_dropout, "head_dropout", who);
  return options;
}

// features -> each of `hidden` with ReLU and dropout -> classes.
torch::nn::Sequential make_classifier(std::int64_t features, std::initializer_list<std::int64_t> hidden,
                                      const BehaviorOptions& options) {
  torch::nn::Sequential layers;
  for (const std::int64_t next : hidden) {
    layers->push_back(nn::Linear(features, next));
    layers->push_back(relu());
    layers->push_back(Dropout(options.head_dropout));
    features = next;
  }
  layers->push_back(nn::Linear(features, options.num_classes));
  return layers;
}

torch::nn::Sequential make_classifier(const BehaviorOptions& options) {
  const auto part = [&](std::int64_t divisor) { return std::max<std::int64_t>(1, options.d_model / divisor); };
  return make_classifier(options.d_model, {part(2), part(4)}, options);
}

nn::TransformerEncoder make_encoder(const BehaviorOptions& options) {
  return nn::TransformerEncoder(nn::TransformerEncoderOptions{
      .layer = {.d_model = options.d_model,
                .nhead = options.num_heads,
                .dim_feedforward = options.d_ff,
                .dropout = options.dropout},
      .num_layers = options.num_layers,
  });
}

void require_series(const torch::Tensor& series, const BehaviorOptions& options, const char* who) {
  if (series.dim() == 3 && series.size(2) == options.channels) return;
  throw ConfigError(
      fmt::format("[{}] the series must be [B,T,{}], got [{}]", who, options.channels, fmt::join(series.sizes(), ",")));
}

// Sines in the even columns, cosines in the odd ones, of wavelengths from 2 pi to 10000 * 2 pi: "Attention is all you
// need", section 3.5. In double, rounded once.
torch::Tensor sinusoids(std::int64_t length, std::int64_t features) {
  constexpr double kLongest = 10000.0;
  const auto options = torch::TensorOptions().dtype(torch::kDouble);
  const torch::Tensor rates =
      torch::exp(torch::arange(0, features, 2, options) * (-std::log(kLongest) / static_cast<double>(features)));
  const torch::Tensor angles = torch::arange(length, options).unsqueeze(1) * rates;
  return torch::stack({angles.sin(), angles.cos()}, 2).flatten(1).narrow(1, 0, features);
}

// Channels of the front ends' last convolutions.
std::int64_t front_end_channels(const BehaviorOptions& options) { return scaled(128, options.cnn_width); }

torch::nn::Sequential front_end(std::int64_t channels, const BehaviorOptions& options) {
  constexpr std::int64_t kKernel = 9;
  torch::nn::Sequential layers;
  for (const std::int64_t out : {scaled(64, options.cnn_width), front_end_channels(options)}) {
    layers->push_back(nn::Conv1d(torch::nn::Conv1dOptions(channels, out, kKernel).padding(kKernel / 2).bias(false)));
    layers->push_back(nn::BatchNorm1d(out));
    layers->push_back(torch::nn::ReLU());  // not in place: the batch norm gives a view
    channels = out;
  }
  layers->push_back(torch::nn::MaxPool1d(2));
  return layers;
}

torch::nn::Conv1d pointwise(std::int64_t in_channels, std::int64_t out_channels) {
  return torch::nn::Conv1d(torch::nn::Conv1dOptions(in_channels, out_channels, 1));
}

// A convolution over single rows, as the product it is: [B,T,C] -> [B,T,C'].
torch::Tensor apply_pointwise(const torch::nn::Conv1d& conv, const torch::Tensor& rows) {
  return torch::linear(rows, conv->weight.squeeze(2), conv->bias);
}

}  // namespace

SpectralEncoderImpl::SpectralEncoderImpl(const BehaviorOptions& options_) : options(options_) {
  SpectralEncoderImpl::reset();
}

void SpectralEncoderImpl::reset() {
  backbone = register_module(
      "backbone",
      ResNet18(ResNet18Options{
          .in_channels = options.channels, .num_classes = 0, .width = options.cnn_width, .dropout = options.dropout}));
  channel_attention = register_module("channel_attention", SqueezeExcite(backbone->num_features(), kReduction));
}

torch::Tensor SpectralEncoderImpl::forward(const torch::Tensor& stft) {
  if (stft.dim() != 4 || stft.size(1) != options.channels) {
    throw ConfigError(fmt::format("[SpectralEncoder] the transform must be [B,{},bins,frames], got [{}]",
                                  options.channels, fmt::join(stft.sizes(), ",")));
  }
  // oneDNN's gradients of strided bfloat16 convolutions overflow where a map has one column, as the last maps here
  // have: on a CPU this part computes in float32.
  std::optional<c10::impl::ExcludeDispatchKeyGuard> in_float;
  if (stft.is_cpu()) in_float.emplace(c10::autocast_dispatch_keyset);
  const torch::Tensor pooled = backbone->features(stft);
  return pooled * channel_attention->fc->forward(pooled);
}

SeriesEncoderImpl::SeriesEncoderImpl(const BehaviorOptions& options_) : options(options_) {
  SeriesEncoderImpl::reset();
}

void SeriesEncoderImpl::reset() {
  input_projection = register_module("input_projection", nn::Linear(options.channels, options.d_model));
  dropout = register_module("dropout", Dropout(options.dropout));
  encoder = register_module("encoder", make_encoder(options));
}

torch::Tensor SeriesEncoderImpl::positions(std::int64_t length, const torch::Tensor& like) {
  const bool fits = positions_.defined() && positions_.size(0) >= length && positions_.device() == like.device() &&
                    positions_.scalar_type() == like.scalar_type();
  if (!fits) positions_ = sinusoids(length, options.d_model).to(like.options());
  return positions_.narrow(0, 0, length);
}

torch::Tensor SeriesEncoderImpl::forward(const torch::Tensor& series) {
  require_series(series, options, "SeriesEncoder");
  const torch::Tensor features = input_projection(series);
  const double scale = std::sqrt(static_cast<double>(options.d_model));
  return encoder(dropout(features * scale + positions(series.size(1), features))).mean(1);
}

BehaviorCnnImpl::BehaviorCnnImpl(const BehaviorOptions& options_)
    : options(settled(options_, {1, 1, 1}, "BehaviorCnn")) {
  BehaviorCnnImpl::reset();
}

void BehaviorCnnImpl::reset() {
  encoder = register_module("encoder", SpectralEncoder(options));
  classifier = register_module(
      "classifier", make_classifier(encoder->num_features(),
                                    {scaled(256, options.cnn_width), scaled(128, options.cnn_width)}, options));
}

torch::Tensor BehaviorCnnImpl::forward(const torch::Tensor& stft) { return classifier->forward(encoder(stft)); }

BehaviorTransformerImpl::BehaviorTransformerImpl(const BehaviorOptions& options_)
    : options(settled(options_, {512, 8, 6}, "BehaviorTransformer")) {
  BehaviorTransformerImpl::reset();
}

void BehaviorTransformerImpl::reset() {
  encoder = register_module("encoder", SeriesEncoder(options));
  classifier = register_module("classifier", make_classifier(options));
}

torch::Tensor BehaviorTransformerImpl::forward(const torch::Tensor& series) {
  return classifier->forward(encoder(series));
}

BehaviorFusionImpl::BehaviorFusionImpl(const BehaviorOptions& options_)
    : options(settled(options_, {256, 4, 4}, "BehaviorFusion")) {
  BehaviorFusionImpl::reset();
}

void BehaviorFusionImpl::reset() {
  constexpr std::int64_t kFusionHeads = 8;
  cnn = register_module("cnn", SpectralEncoder(options));
  cnn_projection = register_module("cnn_projection", nn::Linear(cnn->num_features(), options.d_model));
  transformer = register_module("transformer", SeriesEncoder(options));
  attention = register_module(
      "attention", nn::MultiheadAttention(nn::MultiheadAttentionOptions{
                       .embed_dim = options.d_model, .num_heads = kFusionHeads, .dropout = options.dropout}));
  norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({options.d_model})));
  branch_weights = register_parameter("branch_weights", torch::zeros(2));
  classifier = register_module("classifier", make_classifier(options));
}

torch::Tensor BehaviorFusionImpl::forward(const torch::Tensor& stft, const torch::Tensor& series) {
  torch::Tensor tokens = torch::stack({cnn_projection(cnn(stft)), transformer(series)}, 1);  // [B,2,d]
  tokens = norm(tokens + attention(tokens, tokens, tokens));
  const torch::Tensor weights = branch_weights.softmax(0);
  return classifier->forward((tokens * weights.unsqueeze(1)).sum(1));
}

BehaviorDualImpl::BehaviorDualImpl(const BehaviorOptions& options_)
    : options(settled(options_, {192, 8, 4}, "BehaviorDual")) {
  if (options.channels < 2) {
    throw ConfigError(
        fmt::format("[BehaviorDual] channels must be at least 2, one for each front end, got {}", options.channels));
  }
  BehaviorDualImpl::reset();
}

void BehaviorDualImpl::reset() {
  ppg = register_module("ppg", front_end(options.channels / 2, options));
  imu = register_module("imu", front_end(options.channels - options.channels / 2, options));
  ppg_embedding = register_module("ppg_embedding", pointwise(front_end_channels(options), options.d_model));
  imu_embedding = register_module("imu_embedding", pointwise(front_end_channels(options), options.d_model));
  fusion = register_module("fusion", pointwise(2 * options.d_model, options.d_model));
  encoder = register_module("encoder", make_encoder(options));
  fc = register_module("fc", nn::Linear(options.d_model, options.num_classes));
}

torch::Tensor BehaviorDualImpl::forward(const torch::Tensor& series) {
  require_series(series, options, "BehaviorDual");
  const std::int64_t first = options.channels / 2;
  const auto embed = [&](torch::nn::Sequential& net, const torch::nn::Conv1d& embedding, std::int64_t begin,
                         std::int64_t count) {
    const torch::Tensor channels = series.narrow(2, begin, count).transpose(1, 2);  // [B,count,T]
    return apply_pointwise(embedding, net->forward(channels).transpose(1, 2));
  };
  const torch::Tensor joined =
      torch::cat({embed(ppg, ppg_embedding, 0, first), embed(imu, imu_embedding, first, options.channels - first)}, 2);
  return fc(encoder(apply_pointwise(fusion, joined)).mean(1));
}

}  // namespace mmtrain::models
