#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>

#include "mmtrain/core/export.h"
#include "mmtrain/models/blocks.h"

namespace mmtrain::models {

struct ResNet18Options {
  std::int64_t in_channels = 3;
  /// Number of logits of `fc`; 0: there is no `fc`, and `forward` gives the features.
  std::int64_t num_classes = 1000;
  /// Factor on all channel counts (see `scaled`); 1 is the reference. In (0, 16].
  double width = 1.0;
  /// Of whole channels, inside each block; the reference has none.
  double dropout = 0;
};

/// ResNet-18 of He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, with the parameter
/// names, initial spread of weights and results of torchvision's `resnet18`, whose weights it loads: a 7x7 stem of
/// stride 2 with 64 channels, max-pool, four stages of two blocks with 64, 128, 256, 512 channels, global average pool,
/// `fc`. Maps `[B,in_channels,H,W]` of any size and either memory format. Throws `ConfigError` for options out of
/// range.
class MMTRAIN_API ResNet18Impl : public torch::nn::Cloneable<ResNet18Impl> {
 public:
  explicit ResNet18Impl(const ResNet18Options& options_ = {});
  void reset() override;

  /// Logits `[B,num_classes]`, or `features` where there is no `fc`.
  torch::Tensor forward(const torch::Tensor& image);
  /// Means over the last map, `[B,num_features()]`.
  torch::Tensor features(const torch::Tensor& image);
  /// 512 at width 1.
  std::int64_t num_features() const;

  ResNet18Options options;
  torch::nn::Conv2d conv1{nullptr};
  BatchNorm2d bn1{nullptr};
  torch::nn::Sequential layer1{nullptr}, layer2{nullptr}, layer3{nullptr}, layer4{nullptr};
  torch::nn::Linear fc{nullptr};  ///< null where there is none
};
TORCH_MODULE(ResNet18);

}  // namespace mmtrain::models
