#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string_view>

#include "mmtrain/batch/model.h"
#include "mmtrain/core/export.h"
#include "mmtrain/models/resnet.h"
#include "mmtrain/nn/attention.h"
#include "mmtrain/nn/gru.h"
#include "mmtrain/nn/linear.h"
#include "mmtrain/nn/transformer.h"

/// Emotion recognition from video and speech: a ResNet-18 on frames, convolutions and a recurrent net on the log-mel
/// spectrogram, and three ways to bring the two together.
namespace mmtrain::models {

/// How the two modalities meet.
enum class Fusion {
  attention,   ///< frames attend to sound and sound to frames; the results joined
  concat,      ///< the two features joined
  transformer  ///< one encoder over frames and sound in a row
};

/// What is looked at. With one alone the other's encoder and the fusion are not built.
enum class Modality { both, visual, audio };

/// By name: `attention`, `cross_attention` (the same), `concat`, `transformer`. Throws `ConfigError`.
MMTRAIN_API Fusion parse_fusion(std::string_view name);
/// By name: `both`, `visual`, `audio`. Throws `ConfigError`.
MMTRAIN_API Modality parse_modality(std::string_view name);

struct EmotionOptions {
  std::int64_t num_emotions = 7;
  std::int64_t d_model = 256;  ///< features of each modality; even
  std::int64_t n_heads = 8;    ///< must divide `d_model`
  Fusion fusion = Fusion::attention;
  Modality modality = Modality::both;
  double dropout = 0.3;        ///< in the classifier
  double inner_dropout = 0.1;  ///< in the encoders and the fusion
  double width = 1.0;          ///< factor on the channels of all convolutions (see `scaled`), in (0, 16]
};

/// ResNet-18 without its last layer (`backbone`, torchvision's names), then linear, ReLU and dropout. Images
/// `[B,3,H,W]` or `[B,F,3,H,W]` -> a sequence `[B,F,d_model]`, F = 1 for single images. Its mean over the frames is the
/// clip's feature.
class MMTRAIN_API VisualEncoderImpl : public torch::nn::Cloneable<VisualEncoderImpl> {
 public:
  explicit VisualEncoderImpl(const EmotionOptions& options_);
  void reset() override;
  torch::Tensor forward(const torch::Tensor& image);

  EmotionOptions options;
  ResNet18 backbone{nullptr};
  torch::nn::Sequential projection{nullptr};
};
TORCH_MODULE(VisualEncoder);

/// What an `AudioEncoder` hears.
struct AudioFeatures {
  torch::Tensor sequence;  ///< `[B,T/4,d_model]`
  torch::Tensor feature;   ///< the last layer's two final states, `[B,d_model]`
};

/// Three 3x3 convolutions 32, 64, 128 with batch norm and ReLU, max-pool 2 after the first two, mean over frequency,
/// then a GRU of two layers in both directions. Takes a log-mel spectrogram `[B,n_mels,T]` with any `n_mels` and T of
/// at least 4.
class MMTRAIN_API AudioEncoderImpl : public torch::nn::Cloneable<AudioEncoderImpl> {
 public:
  explicit AudioEncoderImpl(const EmotionOptions& options_);
  void reset() override;
  AudioFeatures forward(const torch::Tensor& mel);

  EmotionOptions options;
  torch::nn::Sequential conv{nullptr};
  nn::GRU gru{nullptr};
};
TORCH_MODULE(AudioEncoder);

/// Attention of queries `[B,T,d]` to another sequence `[B,S,d]`, then a feed-forward part with 4 d hidden features and
/// ReLU, each with residual sum and LayerNorm after it. -> `[B,T,d]`.
class MMTRAIN_API CrossAttentionBlockImpl : public torch::nn::Cloneable<CrossAttentionBlockImpl> {
 public:
  explicit CrossAttentionBlockImpl(const EmotionOptions& options_);
  void reset() override;
  torch::Tensor forward(const torch::Tensor& query, const torch::Tensor& context);

  EmotionOptions options;
  nn::MultiheadAttention attention{nullptr};
  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  torch::nn::Sequential feed_forward{nullptr};
  Dropout dropout{nullptr};
};
TORCH_MODULE(CrossAttentionBlock);

/// The whole net. Parameters begin with `visual_encoder.` (`visual_encoder.backbone.` takes torchvision's `resnet18`
/// weights), `audio_encoder.`, or belong to fusion and classifier: learning rates go by these prefixes.
class MMTRAIN_API EmotionRecognizerImpl : public torch::nn::Cloneable<EmotionRecognizerImpl> {
 public:
  /// Throws `ConfigError` for options out of range.
  explicit EmotionRecognizerImpl(const EmotionOptions& options_ = {});
  void reset() override;

  /// Images `[B,3,H,W]` or `[B,F,3,H,W]` with ImageNet's mean and standard deviation, and log-mel `[B,n_mels,T]` ->
  /// logits `[B,num_emotions]`. The one that `modality` leaves out is not read and may be undefined.
  torch::Tensor forward(const torch::Tensor& image, const torch::Tensor& mel);

  EmotionOptions options;
  VisualEncoder visual_encoder{nullptr};
  AudioEncoder audio_encoder{nullptr};
  CrossAttentionBlock visual_to_audio{nullptr}, audio_to_visual{nullptr};  ///< with Fusion::attention
  torch::Tensor modality_embedding;                                        ///< `[2,d_model]`, Fusion::transformer
  nn::TransformerEncoder fusion_encoder{nullptr};                          ///< 3 layers, Fusion::transformer
  torch::nn::Sequential classifier{nullptr};                               ///< 512, 256, num_emotions

 private:
  torch::Tensor fuse(const torch::Tensor& frames, const AudioFeatures& sound);
};
TORCH_MODULE(EmotionRecognizer);

/// Reads the inputs `image` and `mel` of a batch, or the one that the net's modality leaves.
MMTRAIN_API std::shared_ptr<Model> as_model(EmotionRecognizer net);

}  // namespace mmtrain::models
