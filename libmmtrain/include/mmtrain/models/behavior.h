#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>

#include "mmtrain/core/export.h"
#include "mmtrain/models/blocks.h"
#include "mmtrain/models/resnet.h"
#include "mmtrain/nn/attention.h"
#include "mmtrain/nn/linear.h"
#include "mmtrain/nn/transformer.h"

/// Classification of windows of sensor recordings: from their short-time Fourier transform `[B,channels,129,frames]`,
/// from the series `[B,T,channels]` itself, or from both. All give logits `[B,num_classes]`; sizes of maps and series
/// are free. Constructors throw `ConfigError` for options out of range.
namespace mmtrain::models {

struct BehaviorOptions {
  std::int64_t num_classes = 4;
  std::int64_t channels = 6;
  /// Features, heads and layers of the transformer; 0: 512, 8, 6 in `BehaviorTransformer`, 256, 4, 4 in
  /// `BehaviorFusion`, 192, 8, 4 in `BehaviorDual`.
  std::int64_t d_model = 0, num_heads = 0, num_layers = 0;
  /// Hidden features of the encoder layers' feed-forward parts; 0: 4 `d_model`.
  std::int64_t d_ff = 0;
  /// Factor on the channels of convolutions and on the hidden features of `BehaviorCnn` (see `scaled`), in (0, 16].
  double cnn_width = 1.0;
  double dropout = 0.1;       ///< of channels in the convolutional part, and in the transformer
  double head_dropout = 0.3;  ///< in the classifier
};

/// What `BehaviorCnn` and `BehaviorFusion` read the transform with: ResNet-18 with `channels` inputs and dropout of
/// channels, then channel attention (reduction 16) on the pooled features. `[B,channels,H,W] -> [B,num_features()]`.
class MMTRAIN_API SpectralEncoderImpl : public torch::nn::Cloneable<SpectralEncoderImpl> {
 public:
  explicit SpectralEncoderImpl(const BehaviorOptions& options_);
  void reset() override;
  torch::Tensor forward(const torch::Tensor& stft);
  std::int64_t num_features() const { return backbone->num_features(); }

  BehaviorOptions options;
  ResNet18 backbone{nullptr};
  SqueezeExcite channel_attention{nullptr};
};
TORCH_MODULE(SpectralEncoder);

/// What `BehaviorTransformer` and `BehaviorFusion` read the series with: linear to `d_model`, times its square root,
/// sinusoidal positions, dropout, encoder layers, mean over time. `[B,T,channels] -> [B,d_model]`. The sizes in
/// `options` are taken as they are.
class MMTRAIN_API SeriesEncoderImpl : public torch::nn::Cloneable<SeriesEncoderImpl> {
 public:
  explicit SeriesEncoderImpl(const BehaviorOptions& options_);
  void reset() override;
  torch::Tensor forward(const torch::Tensor& series);

  BehaviorOptions options;
  nn::Linear input_projection{nullptr};
  Dropout dropout{nullptr};
  nn::TransformerEncoder encoder{nullptr};

 private:
  torch::Tensor positions(std::int64_t length, const torch::Tensor& like);

  torch::Tensor positions_;  // [at least the longest series yet, d_model]
};
TORCH_MODULE(SeriesEncoder);

/// `SpectralEncoder`, then 256, 128, classes with ReLU and dropout.
class MMTRAIN_API BehaviorCnnImpl : public torch::nn::Cloneable<BehaviorCnnImpl> {
 public:
  explicit BehaviorCnnImpl(const BehaviorOptions& options_ = {});
  void reset() override;
  torch::Tensor forward(const torch::Tensor& stft);

  BehaviorOptions options;
  SpectralEncoder encoder{nullptr};
  torch::nn::Sequential classifier{nullptr};
};
TORCH_MODULE(BehaviorCnn);

/// `SeriesEncoder`, then `d_model` / 2, `d_model` / 4, classes with ReLU and dropout.
class MMTRAIN_API BehaviorTransformerImpl : public torch::nn::Cloneable<BehaviorTransformerImpl> {
 public:
  explicit BehaviorTransformerImpl(const BehaviorOptions& options_ = {});
  void reset() override;
  torch::Tensor forward(const torch::Tensor& series);

  BehaviorOptions options;  ///< with the sizes that were 0 settled
  SeriesEncoder encoder{nullptr};
  torch::nn::Sequential classifier{nullptr};
};
TORCH_MODULE(BehaviorTransformer);

/// Both encoders; their features (the transform's brought to `d_model` by a linear layer) are two tokens that attend
/// to each other (8 heads, residual LayerNorm) and are added up with learned softmax weights; then `d_model` / 2,
/// `d_model` / 4, classes with ReLU and dropout. `d_model` must be a multiple of 8.
class MMTRAIN_API BehaviorFusionImpl : public torch::nn::Cloneable<BehaviorFusionImpl> {
 public:
  explicit BehaviorFusionImpl(const BehaviorOptions& options_ = {});
  void reset() override;
  torch::Tensor forward(const torch::Tensor& stft, const torch::Tensor& series);

  BehaviorOptions options;  ///< with the sizes that were 0 settled
  SpectralEncoder cnn{nullptr};
  nn::Linear cnn_projection{nullptr};
  SeriesEncoder transformer{nullptr};
  nn::MultiheadAttention attention{nullptr};
  torch::nn::LayerNorm norm{nullptr};
  torch::Tensor branch_weights;  ///< `[2]` before softmax: cnn, transformer
  torch::nn::Sequential classifier{nullptr};
};
TORCH_MODULE(BehaviorFusion);

/// One convolutional front end for each half of the channels (with six: light sensors, motion sensors): convolutions 64
/// and 128 over 9 rows, without bias, with batch norm and ReLU, max-pool 2, a convolution over 1 row to `d_model`. The
/// two results, joined, go through another convolution over 1 row, encoder layers without positions, mean over time and
/// one linear layer. Takes the series `[B,T,channels]`, T of at least 2.
class MMTRAIN_API BehaviorDualImpl : public torch::nn::Cloneable<BehaviorDualImpl> {
 public:
  explicit BehaviorDualImpl(const BehaviorOptions& options_ = {});
  void reset() override;
  torch::Tensor forward(const torch::Tensor& series);

  BehaviorOptions options;  ///< with the sizes that were 0 settled
  torch::nn::Sequential ppg{nullptr}, imu{nullptr};
  torch::nn::Conv1d ppg_embedding{nullptr}, imu_embedding{nullptr}, fusion{nullptr};
  nn::TransformerEncoder encoder{nullptr};
  nn::Linear fc{nullptr};
};
TORCH_MODULE(BehaviorDual);

}  // namespace mmtrain::models
