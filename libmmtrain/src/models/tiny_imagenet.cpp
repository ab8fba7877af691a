#include "mmtrain/models/tiny_imagenet.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/pooling.h>

#include <array>
#include <string_view>

#include "mmtrain/core/error.h"

namespace mmtrain::models {
namespace {

constexpr std::int64_t kImageChannels = 3;

double dropout_probability(double p, const ModelOptions& options) { return options.dropout ? p : 0.0; }

torch::nn::Conv2d conv3x3(std::int64_t in_channels, std::int64_t out_channels) {
  return torch::nn::Conv2d(torch::nn::Conv2dOptions(in_channels, out_channels, 3).padding(1));
}

torch::nn::ReLU relu() { return torch::nn::ReLU(torch::nn::ReLUOptions(/*inplace=*/true)); }

void append_pool_and_dropout(torch::nn::Sequential& layers, double p, const ModelOptions& options) {
  layers->push_back(torch::nn::MaxPool2d(2));
  layers->push_back(Dropout(dropout_probability(p, options)));
}

torch::Tensor global_average(const torch::Tensor& map) { return map.mean({2, 3}); }

// in_features -> 512 -> 256 -> classes.
torch::nn::Sequential make_classifier(std::int64_t in_features, const ModelOptions& options) {
  torch::nn::Sequential layers;
  for (const std::int64_t hidden : {512, 256}) {
    const std::int64_t features = scaled(hidden, options.width);
    layers->push_back(torch::nn::Linear(in_features, features));
    layers->push_back(relu());
    layers->push_back(Dropout(dropout_probability(0.5, options)));
    in_features = features;
  }
  layers->push_back(torch::nn::Linear(in_features, options.num_classes));
  return layers;
}

enum class Attention { none, squeeze_excite };

// The convolutions that Baseline and SeAttention share; batch norm comes with the attention.
torch::nn::Sequential make_baseline_features(const ModelOptions& options, Attention attention) {
  struct Stage {
    std::int64_t channels;
    bool pool;
  };
  constexpr std::array<Stage, 5> kStages{{{128, true}, {256, true}, {512, false}, {512, false}, {256, true}}};
  torch::nn::Sequential layers;
  std::int64_t in_channels = kImageChannels;
  for (const Stage& stage : kStages) {
    const std::int64_t channels = scaled(stage.channels, options.width);
    layers->push_back(conv3x3(in_channels, channels));
    if (attention == Attention::squeeze_excite) layers->push_back(BatchNorm2d(channels));
    layers->push_back(relu());
    if (attention == Attention::squeeze_excite) layers->push_back(SqueezeExcite(channels));
    if (stage.pool) append_pool_and_dropout(layers, 0.3, options);
    in_channels = channels;
  }
  return layers;
}

// Features of make_baseline_features once flattened: three poolings halve each side, rounding down.
std::int64_t flattened_features(const ModelOptions& options) {
  const std::int64_t side = options.image_size / 8;
  return scaled(256, options.width) * side * side;
}

void require_image_size(const torch::Tensor& image, const ModelOptions& options, std::string_view who) {
  if (image.dim() == 4 && image.size(2) == options.image_size && image.size(3) == options.image_size) return;
  throw ConfigError(fmt::format("[{0}] was built for images [B,3,{1},{1}], got [{2}]: set image_size", who,
                                options.image_size, fmt::join(image.sizes().vec(), ",")));
}

}  // namespace

BaselineImpl::BaselineImpl(const ModelOptions& options_) : options(validated(options_, "Baseline")) {
  BaselineImpl::reset();
}

void BaselineImpl::reset() {
  features = register_module("features", make_baseline_features(options, Attention::none));
  classifier = register_module("classifier", make_classifier(flattened_features(options), options));
}

torch::Tensor BaselineImpl::forward(const torch::Tensor& image) {
  require_image_size(image, options, "Baseline");
  return classifier->forward(features->forward(image).flatten(1));
}

ResidualImpl::ResidualImpl(const ModelOptions& options_) : options(validated(options_, "Residual")) {
  ResidualImpl::reset();
}

void ResidualImpl::reset() {
  const auto channels = [this](std::int64_t reference) { return scaled(reference, options.width); };
  conv1 = register_module("conv1", conv3x3(kImageChannels, channels(64)));
  bn1 = register_module("bn1", BatchNorm2d(channels(64)));
  layer1 = register_module("layer1", ResidualBlock(channels(64), channels(128), 2));
  layer2 = register_module("layer2", ResidualBlock(channels(128), channels(256), 2));
  layer3 = register_module("layer3", ResidualBlock(channels(256), channels(512), 2));
  layer4 = register_module("layer4", ResidualBlock(channels(512), channels(512), 2));
  fc = register_module("fc", torch::nn::Linear(channels(512), options.num_classes));
}

torch::Tensor ResidualImpl::forward(const torch::Tensor& image) {
  torch::Tensor map = bn1->forward(conv1->forward(image)).relu_();
  for (ResidualBlock* layer : {&layer1, &layer2, &layer3, &layer4}) map = (*layer)->forward(map);
  return fc->forward(global_average(map));
}

DeeperWiderImpl::DeeperWiderImpl(const ModelOptions& options_) : options(validated(options_, "DeeperWider")) {
  DeeperWiderImpl::reset();
}

void DeeperWiderImpl::reset() {
  constexpr std::int64_t kLastChannels = 1024;
  features = register_module("features", torch::nn::Sequential());
  std::int64_t in_channels = kImageChannels;
  for (const std::int64_t reference : {std::int64_t{128}, std::int64_t{256}, std::int64_t{512}, kLastChannels}) {
    const std::int64_t channels = scaled(reference, options.width);
    for (int of_pair = 0; of_pair < 2; ++of_pair) {
      features->push_back(conv3x3(in_channels, channels));
      features->push_back(BatchNorm2d(channels));
      features->push_back(relu());
      in_channels = channels;
    }
    if (reference != kLastChannels) append_pool_and_dropout(features, 0.2, options);
  }
  classifier = register_module("classifier", make_classifier(in_channels, options));
}

torch::Tensor DeeperWiderImpl::forward(const torch::Tensor& image) {
  return classifier->forward(global_average(features->forward(image)));
}

SeAttentionImpl::SeAttentionImpl(const ModelOptions& options_) : options(validated(options_, "SeAttention")) {
  SeAttentionImpl::reset();
}

void SeAttentionImpl::reset() {
  features = register_module("features", make_baseline_features(options, Attention::squeeze_excite));
  classifier = register_module("classifier", make_classifier(flattened_features(options), options));
}

torch::Tensor SeAttentionImpl::forward(const torch::Tensor& image) {
  require_image_size(image, options, "SeAttention");
  return classifier->forward(features->forward(image).flatten(1));
}

BestImpl::BestImpl(const ModelOptions& options_) : options(validated(options_, "Best")) { BestImpl::reset(); }

void BestImpl::reset() {
  const auto channels = [this](std::int64_t reference) { return scaled(reference, options.width); };
  layer1 = register_module("layer1", ResidualBlock(kImageChannels, channels(128), 1));
  layer2 = register_module("layer2", ResidualBlock(channels(128), channels(256), 2));
  layer3 = register_module("layer3", ResidualBlock(channels(256), channels(512), 2));
  layer4 = register_module("layer4", ResidualBlock(channels(512), channels(1024), 2));
  dropout = register_module("dropout", Dropout(dropout_probability(0.2, options)));
  classifier = register_module("classifier", make_classifier(channels(1024), options));
}

torch::Tensor BestImpl::forward(const torch::Tensor& image) {
  torch::Tensor map = image;
  for (ResidualBlock* layer : {&layer1, &layer2, &layer3}) map = dropout->forward((*layer)->forward(map));
  return classifier->forward(global_average(layer4->forward(map)));
}

LinearClassifierImpl::LinearClassifierImpl(const ModelOptions& options_)
    : options(validated(options_, "LinearClassifier")) {
  LinearClassifierImpl::reset();
}

void LinearClassifierImpl::reset() {
  const std::int64_t pixels = kImageChannels * options.image_size * options.image_size;
  fc = register_module("fc", torch::nn::Linear(pixels, options.num_classes));
}

torch::Tensor LinearClassifierImpl::forward(const torch::Tensor& image) {
  require_image_size(image, options, "LinearClassifier");
  return fc->forward(image.flatten(1));
}

}  // namespace mmtrain::models
