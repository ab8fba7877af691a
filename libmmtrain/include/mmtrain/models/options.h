#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// What the nets of the name table are built from. Each family reads its part; the nets' own headers have options with
/// all of their settings.
struct ModelOptions {
  /// Number of logits.
  std::int64_t num_classes = 200;
  /// Factor on all channel counts of convolutions, and on the hidden features behind them in nets that are nothing but
  /// convolutions (see `models::scaled`); 1 is the reference. In (0, 16].
  double width = 1.0;
  /// Image nets: height and width of the images in pixels, at least 8. Nets that flatten their last map are built for
  /// this size alone; those with global pooling take any.
  std::int64_t image_size = 64;
  /// False builds the net with every dropout probability 0; names and shapes of the parameters stay.
  bool dropout = true;

  /// Behavior nets: channels of the recordings.
  std::int64_t channels = 6;
  /// Behavior and emotion nets: features, attention heads, encoder layers and hidden features of their feed-forward
  /// parts. 0: the net's reference.
  std::int64_t d_model = 0, num_heads = 0, num_layers = 0, d_ff = 0;
  /// Behavior and emotion nets: dropout in the classifier.
  double head_dropout = 0.3;
  /// Emotion net: `attention` (or `cross_attention`), `concat`, `transformer`; and `both`, `visual`, `audio`.
  std::string fusion = "attention", modality = "both";
};

namespace models {

/// `channels * width`, to the nearest multiple of 16 (halves up) and at least 16. Widths 1, 1/2 and 1/4 scale all
/// reference nets exactly. Inputs (3 channels) and classes are never scaled; the hidden part of a squeeze-excite block
/// is the scaled channels divided by its reduction. Vectorized convolutions like 16, and oneDNN needs it: in
/// channels-last memory its backward pass of strided 1x1 convolutions writes out of bounds when there are fewer input
/// channels than vector lanes (https://github.com/uxlfoundation/oneDNN/issues/6035).
MMTRAIN_API std::int64_t scaled(std::int64_t channels, double width);

/// Returns `options`, or throws `ConfigError` naming `who` and the value of the image nets that is out of range.
MMTRAIN_API const ModelOptions& validated(const ModelOptions& options, std::string_view who);

}  // namespace models
}  // namespace mmtrain
