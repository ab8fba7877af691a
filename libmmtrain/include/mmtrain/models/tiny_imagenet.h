#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include "mmtrain/core/export.h"
#include "mmtrain/models/blocks.h"
#include "mmtrain/models/options.h"

/// The nets of the TinyImageNet study. Each takes normalized images float `[B,3,S,S]` (S = `image_size`) in either
/// memory format and gives logits `[B,num_classes]`; widths below are those at `width` 1. 3x3 convolutions keep the
/// size. Constructors throw `ConfigError` for options out of range. `options` is what the net was built from.
namespace mmtrain::models {

/// Five convolutions 128, 256, 512, 512, 256 with ReLU; max-pool 2 and dropout 0.3 after the first, second and last;
/// then flattened, 512, 256, classes with ReLU and dropout 0.5. No batch norm. 13.59 M parameters at 200 classes.
class MMTRAIN_API BaselineImpl : public torch::nn::Cloneable<BaselineImpl> {
 public:
  explicit BaselineImpl(const ModelOptions& options = {});
  void reset() override;
  /// Throws `ConfigError` for images of another size than the net was built for.
  torch::Tensor forward(const torch::Tensor& image);

  ModelOptions options;
  torch::nn::Sequential features{nullptr}, classifier{nullptr};
};
TORCH_MODULE(Baseline);

/// Convolution 64 with bias - BN - ReLU, residual blocks 128, 256, 512, 512, each of stride 2, global average pool,
/// one linear layer. 9.91 M parameters at 200 classes.
class MMTRAIN_API ResidualImpl : public torch::nn::Cloneable<ResidualImpl> {
 public:
  explicit ResidualImpl(const ModelOptions& options = {});
  void reset() override;
  torch::Tensor forward(const torch::Tensor& image);

  ModelOptions options;
  torch::nn::Conv2d conv1{nullptr};
  BatchNorm2d bn1{nullptr};
  ResidualBlock layer1{nullptr}, layer2{nullptr}, layer3{nullptr}, layer4{nullptr};
  torch::nn::Linear fc{nullptr};
};
TORCH_MODULE(Residual);

/// Pairs of convolution (with bias) - BN - ReLU of 128, 256, 512 with max-pool 2 and dropout 0.2 after each pair, a
/// pair of 1024, global average pool, then 512, 256, classes with ReLU and dropout 0.5. 19.45 M parameters.
class MMTRAIN_API DeeperWiderImpl : public torch::nn::Cloneable<DeeperWiderImpl> {
 public:
  explicit DeeperWiderImpl(const ModelOptions& options = {});
  void reset() override;
  torch::Tensor forward(const torch::Tensor& image);

  ModelOptions options;
  torch::nn::Sequential features{nullptr}, classifier{nullptr};
};
TORCH_MODULE(DeeperWider);

/// `Baseline` with BN after each convolution and a squeeze-excite block (reduction 16) after each ReLU. 13.68 M
/// parameters at 200 classes.
class MMTRAIN_API SeAttentionImpl : public torch::nn::Cloneable<SeAttentionImpl> {
 public:
  explicit SeAttentionImpl(const ModelOptions& options = {});
  void reset() override;
  /// Throws `ConfigError` for images of another size than the net was built for.
  torch::Tensor forward(const torch::Tensor& image);

  ModelOptions options;
  torch::nn::Sequential features{nullptr}, classifier{nullptr};
};
TORCH_MODULE(SeAttention);

/// Residual blocks 128 (stride 1), 256, 512, 1024 (stride 2) with dropout 0.2 between them, global average pool and the
/// classifier of `DeeperWider`. 20.14 M parameters at 200 classes.
class MMTRAIN_API BestImpl : public torch::nn::Cloneable<BestImpl> {
 public:
  explicit BestImpl(const ModelOptions& options = {});
  void reset() override;
  torch::Tensor forward(const torch::Tensor& image);

  ModelOptions options;
  ResidualBlock layer1{nullptr}, layer2{nullptr}, layer3{nullptr}, layer4{nullptr};
  Dropout dropout{nullptr};
  torch::nn::Sequential classifier{nullptr};
};
TORCH_MODULE(Best);

/// One linear layer on the pixels: what a task is worth without a net. `width` and `dropout` do nothing here.
class MMTRAIN_API LinearClassifierImpl : public torch::nn::Cloneable<LinearClassifierImpl> {
 public:
  explicit LinearClassifierImpl(const ModelOptions& options = {});
  void reset() override;
  /// Throws `ConfigError` for images of another size than the net was built for.
  torch::Tensor forward(const torch::Tensor& image);

  ModelOptions options;
  torch::nn::Linear fc{nullptr};
};
TORCH_MODULE(LinearClassifier);

}  // namespace mmtrain::models
