#include "mmtrain/models/resnet.h"

#include <fmt/format.h>
#include <torch/nn/init.h>

#include "mmtrain/core/error.h"
#include "mmtrain/models/options.h"
#include "models/checks.h"

namespace mmtrain::models {
namespace {

constexpr std::int64_t kLastChannels = 512;

void check(const ResNet18Options& options) {
  if (options.in_channels < 1 || options.num_classes < 0) {
    throw ConfigError(fmt::format("[ResNet18] in_channels must be positive and num_classes not negative, got {} and {}",
                                  options.in_channels, options.num_classes));
  }
  check_width(options.width, "ResNet18");
  check_probability(options.dropout, "dropout", "ResNet18");
}

torch::nn::Sequential stage(std::int64_t in_channels, std::int64_t out_channels, std::int64_t stride, double dropout) {
  const auto block = [&](std::int64_t in, std::int64_t step) {
    return ResidualBlock(ResidualBlockOptions{
        .in_channels = in, .out_channels = out_channels, .stride = step, .dropout = dropout, .shortcut = "downsample"});
  };
  return torch::nn::Sequential(block(in_channels, stride), block(out_channels, 1));
}

}  // namespace

ResNet18Impl::ResNet18Impl(const ResNet18Options& options_) : options(options_) {
  check(options);
  ResNet18Impl::reset();
}

void ResNet18Impl::reset() {
  const auto channels = [this](std::int64_t reference) { return scaled(reference, options.width); };
  conv1 = register_module(
      "conv1", torch::nn::Conv2d(
                   torch::nn::Conv2dOptions(options.in_channels, channels(64), 7).stride(2).padding(3).bias(false)));
  bn1 = register_module("bn1", BatchNorm2d(channels(64)));
  const auto add = [&](const char* name, std::int64_t in, std::int64_t out, std::int64_t stride) {
    return register_module(name, stage(channels(in), channels(out), stride, options.dropout));
  };
  layer1 = add("layer1", 64, 64, 1);
  layer2 = add("layer2", 64, 128, 2);
  layer3 = add("layer3", 128, 256, 2);
  layer4 = add("layer4", 256, kLastChannels, 2);
  for (const auto& module : modules(/*include_self=*/false)) {
    if (auto* conv = module->as<torch::nn::Conv2dImpl>()) {
      torch::nn::init::kaiming_normal_(conv->weight, 0, torch::kFanOut, torch::kReLU);
    }
  }
  fc = options.num_classes == 0 ? nullptr
                                : register_module("fc", torch::nn::Linear(num_features(), options.num_classes));
}

std::int64_t ResNet18Impl::num_features() const { return scaled(kLastChannels, options.width); }

torch::Tensor ResNet18Impl::features(const torch::Tensor& image) {
  torch::Tensor map = bn1->forward(conv1->forward(image)).relu_();
  map = torch::max_pool2d(map, /*kernel_size=*/3, /*stride=*/2, /*padding=*/1);
  for (torch::nn::Sequential* layer : {&layer1, &layer2, &layer3, &layer4}) map = (*layer)->forward(map);
  return map.mean({2, 3});
}

torch::Tensor ResNet18Impl::forward(const torch::Tensor& image) {
  return fc.is_empty() ? features(image) : fc->forward(features(image));
}

}  // namespace mmtrain::models
