#pragma once

#include <cstdint>
#include <string_view>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// What the image nets of the name table are built from.
struct ModelOptions {
  /// Number of logits.
  std::int64_t num_classes = 200;
  /// Factor on all channel counts and hidden features (see `models::scaled`); 1 is the reference. In (0, 16].
  double width = 1.0;
  /// Height and width of the images in pixels, at least 8. Nets that flatten their last map are built for this size
  /// alone; those with global pooling take any.
  std::int64_t image_size = 64;
  /// False builds the net with every dropout probability 0; names and shapes of the parameters stay.
  bool dropout = true;
};

namespace models {

/// `channels * width`, to the nearest multiple of 16 (halves up) and at least 16. Widths 1, 1/2 and 1/4 scale all
/// reference nets exactly. Inputs (3 channels) and classes are never scaled; the hidden part of a squeeze-excite block
/// is the scaled channels divided by its reduction. Vectorized convolutions like 16, and oneDNN needs it: in
/// channels-last memory its backward pass of strided 1x1 convolutions writes out of bounds when there are fewer input
/// channels than vector lanes (https://github.com/uxlfoundation/oneDNN/issues/6035).
MMTRAIN_API std::int64_t scaled(std::int64_t channels, double width);

/// Returns `options`, or throws `ConfigError` naming `who` and the value that is out of range.
MMTRAIN_API const ModelOptions& validated(const ModelOptions& options, std::string_view who);

}  // namespace models
}  // namespace mmtrain
