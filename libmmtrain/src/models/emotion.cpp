#include "mmtrain/models/emotion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/pooling.h>

#include <array>
#include <utility>

#include "mmtrain/core/error.h"
#include "mmtrain/models/options.h"
#include "models/checks.h"

namespace mmtrain::models {
namespace {

constexpr std::int64_t kFeedForward = 4;  // hidden features, in multiples of d_model

torch::nn::ReLU relu() { return torch::nn::ReLU(torch::nn::ReLUOptions(/*inplace=*/true)); }

torch::nn::LayerNorm layer_norm(std::int64_t features) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({features}));
}

void check(const EmotionOptions& options) {
  constexpr const char* kWho = "EmotionRecognizer";
  check_positive(options.num_emotions, "num_emotions", kWho);
  check_heads(options.d_model, options.n_heads, kWho);
  if (options.d_model % 2 != 0) {
    throw ConfigError(fmt::format("[{}] d_model must be even, half for each direction of the recurrent net, got {}",
                                  kWho, options.d_model));
  }
  check_probability(options.dropout, "dropout", kWho);
  check_probability(options.inner_dropout, "inner_dropout", kWho);
  check_width(options.width, kWho);
}

template <class Enum, std::size_t N>
Enum parse(std::string_view name, std::string_view what,
           const std::array<std::pair<std::string_view, Enum>, N>& names) {
  for (const auto& [known, value] : names) {
    if (known == name) return value;
  }
  std::array<std::string_view, N> all;
  for (std::size_t i = 0; i < N; ++i) all[i] = names[i].first;
  throw ConfigError(
      fmt::format("[EmotionRecognizer] {} must be one of {}, got '{}'", what, fmt::join(all, ", "), name));
}

}  // namespace

Fusion parse_fusion(std::string_view name) {
  return parse<Fusion, 4>(name, "fusion",
                          {{{"attention", Fusion::attention},
                            {"cross_attention", Fusion::attention},
                            {"concat", Fusion::concat},
                            {"transformer", Fusion::transformer}}});
}

Modality parse_modality(std::string_view name) {
  return parse<Modality, 3>(name, "modality",
                            {{{"both", Modality::both}, {"visual", Modality::visual}, {"audio", Modality::audio}}});
}

VisualEncoderImpl::VisualEncoderImpl(const EmotionOptions& options_) : options(options_) { VisualEncoderImpl::reset(); }

void VisualEncoderImpl::reset() {
  backbone = register_module("backbone", ResNet18(ResNet18Options{.num_classes = 0, .width = options.width}));
  projection =
      register_module("projection", torch::nn::Sequential(nn::Linear(backbone->num_features(), options.d_model), relu(),
                                                          Dropout(options.inner_dropout)));
}

torch::Tensor VisualEncoderImpl::forward(const torch::Tensor& image) {
  if ((image.dim() != 4 && image.dim() != 5) || image.size(-3) != 3) {
    throw ConfigError(fmt::format("[EmotionRecognizer] images must be [B,3,H,W] or [B,F,3,H,W], got [{}]",
                                  fmt::join(image.sizes(), ",")));
  }
  const bool single = image.dim() == 4;
  const torch::Tensor features = backbone->features(single ? image : image.flatten(0, 1));
  // Frames are counted to their clip before dropout, so that its masks are the clip's own.
  return projection->forward(features.view({image.size(0), single ? 1 : image.size(1), -1}));
}

AudioEncoderImpl::AudioEncoderImpl(const EmotionOptions& options_) : options(options_) { AudioEncoderImpl::reset(); }

void AudioEncoderImpl::reset() {
  constexpr std::int64_t kLast = 128;
  conv = register_module("conv", torch::nn::Sequential());
  std::int64_t channels = 1;
  for (const std::int64_t reference : {std::int64_t{32}, std::int64_t{64}, kLast}) {
    const std::int64_t out = scaled(reference, options.width);
    conv->push_back(torch::nn::Conv2d(torch::nn::Conv2dOptions(channels, out, 3).padding(1)));
    conv->push_back(BatchNorm2d(out));
    conv->push_back(relu());
    if (reference != kLast) conv->push_back(torch::nn::MaxPool2d(2));
    channels = out;
  }
  gru = register_module("gru", nn::GRU(torch::nn::GRUOptions(channels, options.d_model / 2)
                                           .num_layers(2)
                                           .bidirectional(true)
                                           .batch_first(true)
                                           .dropout(options.inner_dropout)));
}

AudioFeatures AudioEncoderImpl::forward(const torch::Tensor& mel) {
  constexpr std::int64_t kPooling = 4;
  if (mel.dim() != 3 || mel.size(1) < kPooling || mel.size(2) < kPooling) {
    throw ConfigError(fmt::format("[EmotionRecognizer] mel must be [B,n_mels,T] with at least {} of both, got [{}]",
                                  kPooling, fmt::join(mel.sizes(), ",")));
  }
  const torch::Tensor map = conv->forward(mel.unsqueeze(1));  // [B,C,n_mels/4,T/4]
  const torch::Tensor rows = torch::adaptive_avg_pool2d(map, {1, map.size(3)}).squeeze(2);
  auto [sequence, states] = gru->forward(rows.transpose(1, 2));
  return {sequence, torch::cat({states[-2], states[-1]}, 1)};
}

CrossAttentionBlockImpl::CrossAttentionBlockImpl(const EmotionOptions& options_) : options(options_) {
  CrossAttentionBlockImpl::reset();
}

void CrossAttentionBlockImpl::reset() {
  const std::int64_t features = options.d_model;
  attention = register_module(
      "attention", nn::MultiheadAttention(nn::MultiheadAttentionOptions{
                       .embed_dim = features, .num_heads = options.n_heads, .dropout = options.inner_dropout}));
  norm1 = register_module("norm1", layer_norm(features));
  feed_forward = register_module("feed_forward", torch::nn::Sequential(nn::Linear(features, kFeedForward * features),
                                                                       relu(), Dropout(options.inner_dropout),
                                                                       nn::Linear(kFeedForward * features, features)));
  norm2 = register_module("norm2", layer_norm(features));
  dropout = register_module("dropout", Dropout(options.inner_dropout));
}

torch::Tensor CrossAttentionBlockImpl::forward(const torch::Tensor& query, const torch::Tensor& context) {
  const torch::Tensor middle = norm1(query + dropout(attention(query, context, context)));
  return norm2(middle + dropout(feed_forward->forward(middle)));
}

EmotionRecognizerImpl::EmotionRecognizerImpl(const EmotionOptions& options_) : options(options_) {
  check(options);
  EmotionRecognizerImpl::reset();
}

void EmotionRecognizerImpl::reset() {
  constexpr std::array<std::int64_t, 2> kHidden{512, 256};
  constexpr std::int64_t kFusionLayers = 3;
  const bool both = options.modality == Modality::both;
  if (options.modality != Modality::audio) {
    visual_encoder = register_module("visual_encoder", VisualEncoder(options));
  }
  if (options.modality != Modality::visual) audio_encoder = register_module("audio_encoder", AudioEncoder(options));
  if (both && options.fusion == Fusion::attention) {
    visual_to_audio = register_module("visual_to_audio", CrossAttentionBlock(options));
    audio_to_visual = register_module("audio_to_visual", CrossAttentionBlock(options));
  }
  if (both && options.fusion == Fusion::transformer) {
    modality_embedding = register_parameter("modality_embedding", 0.02 * torch::randn({2, options.d_model}));
    fusion_encoder = register_module("fusion_encoder", nn::TransformerEncoder(nn::TransformerEncoderOptions{
                                                           .layer = {.d_model = options.d_model,
                                                                     .nhead = options.n_heads,
                                                                     .dim_feedforward = kFeedForward * options.d_model,
                                                                     .dropout = options.inner_dropout},
                                                           .num_layers = kFusionLayers,
                                                       }));
  }
  const bool joined = both && options.fusion != Fusion::transformer;
  std::int64_t features = joined ? 2 * options.d_model : options.d_model;
  classifier = register_module("classifier", torch::nn::Sequential());
  for (const std::int64_t hidden : kHidden) {
    classifier->push_back(nn::Linear(features, hidden));
    classifier->push_back(relu());
    classifier->push_back(Dropout(options.dropout));
    features = hidden;
  }
  classifier->push_back(nn::Linear(features, options.num_emotions));
}

torch::Tensor EmotionRecognizerImpl::fuse(const torch::Tensor& frames, const AudioFeatures& sound) {
  if (options.fusion == Fusion::transformer) {
    return fusion_encoder(torch::cat({frames + modality_embedding[0], sound.sequence + modality_embedding[1]}, 1))
        .mean(1);
  }
  if (options.fusion == Fusion::concat) return torch::cat({frames.mean(1), sound.feature}, 1);
  const torch::Tensor seen = visual_to_audio(frames, sound.sequence).mean(1);
  const torch::Tensor heard = audio_to_visual(sound.sequence.mean(1, /*keepdim=*/true), frames).squeeze(1);
  return torch::cat({seen, heard}, 1);
}

torch::Tensor EmotionRecognizerImpl::forward(const torch::Tensor& image, const torch::Tensor& mel) {
  switch (options.modality) {
    case Modality::visual:
      return classifier->forward(visual_encoder(image).mean(1));
    case Modality::audio:
      return classifier->forward(audio_encoder(mel).feature);
    case Modality::both:
      break;
  }
  return classifier->forward(fuse(visual_encoder(image), audio_encoder(mel)));
}

std::shared_ptr<Model> as_model(EmotionRecognizer net) {
  return mmtrain::as_model(std::move(net), [](EmotionRecognizer& held, const NamedTensors& inputs) {
    const auto read = [&](const char* name, Modality unread) {
      return held->options.modality == unread ? torch::Tensor() : input_called(name, inputs);
    };
    return held->forward(read("image", Modality::audio), read("mel", Modality::visual));
  });
}

}  // namespace mmtrain::models
