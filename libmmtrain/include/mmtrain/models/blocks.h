#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "mmtrain/core/export.h"
#include "mmtrain/nn/batch_norm.h"
#include "mmtrain/nn/dropout.h"

/// Building blocks of convolutional nets. Maps are `[B,C,H,W]` in either memory format; names of parameters are those
/// a Python module with the same attributes has.
namespace mmtrain::models {

/// The layers of the image nets whose behavior depends on how training is run: what stands here, all nets use.
using BatchNorm2d = nn::BatchNorm2d;
using Dropout = nn::Dropout;
using Dropout2d = nn::Dropout2d;

struct ResidualBlockOptions {
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;
  std::int64_t stride = 1;
  double dropout = 0;                 ///< of whole channels, between the two convolutions
  const char* shortcut = "shortcut";  ///< name of the shortcut's layers; torchvision's is `downsample`
};

/// The basic block of He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016: conv3x3
/// (`stride`) - BN - ReLU - conv3x3 - BN, added to the input, ReLU after the sum. Where stride or channels differ the
/// shortcut is a 1x1 convolution with BN, else the input itself. No bias in the convolutions.
/// `[B,in,H,W] -> [B,out,ceil(H/stride),ceil(W/stride)]`.
class MMTRAIN_API ResidualBlockImpl : public torch::nn::Cloneable<ResidualBlockImpl> {
 public:
  explicit ResidualBlockImpl(const ResidualBlockOptions& options_);
  ResidualBlockImpl(std::int64_t in_channels, std::int64_t out_channels, std::int64_t stride = 1)
      : ResidualBlockImpl(ResidualBlockOptions{in_channels, out_channels, stride}) {}
  void reset() override;
  torch::Tensor forward(const torch::Tensor& input);

  ResidualBlockOptions options;
  torch::nn::Conv2d conv1{nullptr}, conv2{nullptr};
  BatchNorm2d bn1{nullptr}, bn2{nullptr};
  Dropout2d dropout{nullptr};               ///< null without dropout
  torch::nn::Sequential shortcut{nullptr};  ///< empty where the input itself is added
};
TORCH_MODULE(ResidualBlock);

/// Channel attention of Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018: every channel is scaled by a gate
/// in (0, 1) computed from the means of all channels. The two linear layers have no bias; the hidden one has
/// `channels / reduction` features, at least one. `[B,C,H,W] -> [B,C,H,W]`.
class MMTRAIN_API SqueezeExciteImpl : public torch::nn::Cloneable<SqueezeExciteImpl> {
 public:
  explicit SqueezeExciteImpl(std::int64_t channels, std::int64_t reduction = 16);
  void reset() override;
  torch::Tensor forward(const torch::Tensor& input);

  torch::nn::Sequential fc{nullptr};

 private:
  std::int64_t channels_, hidden_;
};
TORCH_MODULE(SqueezeExcite);

}  // namespace mmtrain::models
