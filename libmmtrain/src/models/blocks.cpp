#include "mmtrain/models/blocks.h"

#include <torch/nn/modules/activation.h>

#include <algorithm>

namespace mmtrain::models {
namespace {

torch::nn::Conv2d conv(std::int64_t in_channels, std::int64_t out_channels, std::int64_t kernel, std::int64_t stride) {
  return torch::nn::Conv2d(
      torch::nn::Conv2dOptions(in_channels, out_channels, kernel).stride(stride).padding(kernel / 2).bias(false));
}

torch::nn::Linear linear_without_bias(std::int64_t in_features, std::int64_t out_features) {
  return torch::nn::Linear(torch::nn::LinearOptions(in_features, out_features).bias(false));
}

}  // namespace

ResidualBlockImpl::ResidualBlockImpl(const ResidualBlockOptions& options_) : options(options_) {
  ResidualBlockImpl::reset();
}

void ResidualBlockImpl::reset() {
  const std::int64_t in = options.in_channels, out = options.out_channels;
  conv1 = register_module("conv1", conv(in, out, 3, options.stride));
  bn1 = register_module("bn1", BatchNorm2d(out));
  conv2 = register_module("conv2", conv(out, out, 3, 1));
  bn2 = register_module("bn2", BatchNorm2d(out));
  dropout = options.dropout > 0 ? register_module("dropout", Dropout2d(options.dropout)) : nullptr;
  shortcut = register_module(options.shortcut, torch::nn::Sequential());
  if (options.stride != 1 || in != out) {
    shortcut->push_back(conv(in, out, 1, options.stride));
    shortcut->push_back(BatchNorm2d(out));
  }
}

torch::Tensor ResidualBlockImpl::forward(const torch::Tensor& input) {
  torch::Tensor out = bn1->forward(conv1->forward(input)).relu_();
  if (!dropout.is_empty()) out = dropout->forward(out);
  out = bn2->forward(conv2->forward(out));
  // Batch norm's backward reads its input, never its output: the sum and the ReLU may overwrite it.
  out += shortcut->is_empty() ? input : shortcut->forward(input);
  return out.relu_();
}

SqueezeExciteImpl::SqueezeExciteImpl(std::int64_t channels, std::int64_t reduction)
    : channels_(channels), hidden_(std::max<std::int64_t>(1, channels / reduction)) {
  SqueezeExciteImpl::reset();
}

void SqueezeExciteImpl::reset() {
  fc = register_module("fc", torch::nn::Sequential(linear_without_bias(channels_, hidden_), torch::nn::ReLU(),
                                                   linear_without_bias(hidden_, channels_), torch::nn::Sigmoid()));
}

torch::Tensor SqueezeExciteImpl::forward(const torch::Tensor& input) {
  const torch::Tensor gate = fc->forward(input.mean({2, 3}));
  return input * gate.unsqueeze(-1).unsqueeze(-1);
}

}  // namespace mmtrain::models
