#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "media/image_kernels.h"

namespace mmtrain::media::detail {

/// The weights of one axis of a resize, as fixed-point numbers of PIL's and torch's form, so that results are equal.
class ResizeTable {
 public:
  bool matches(int inputs, int outputs, bool antialias) const {
    return inputs == inputs_ && outputs == outputs_ && antialias == antialias_;
  }
  void build(int inputs, int outputs, bool antialias);

  ResizeTaps taps() const { return {start_.data(), weights_.data(), outputs_, taps_, precision_}; }
  int inputs() const { return inputs_; }

 private:
  void add_filtered(int output, double scale, double support);
  void add_interpolated(int output, double scale);
  void quantize();
  /// A weight as a fixed-point number, and the range of those of an output that are not 0: the others would cost time
  /// and change nothing.
  std::int16_t rounded(int output, int k) const;
  std::array<int, 2> used_weights(int output) const;

  int inputs_ = 0, outputs_ = 0, taps_ = 0, precision_ = 0;
  bool antialias_ = false;
  std::vector<std::int32_t> start_;
  std::vector<std::int16_t> weights_;
  /// Before rounding: `width_` weights for each output, from `start_` on.
  int width_ = 0;
  std::vector<double> exact_;
};

/// Pixels of a part of an image: rows are `pitch` bytes apart, and memory may be read up to `end`.
struct PixelRows {
  const std::uint8_t* data;
  std::size_t pitch;
  int height;
  int width;
  const std::uint8_t* end;

  const std::uint8_t* row(int y) const { return data + static_cast<std::size_t>(y) * pitch; }
};

/// Separable resize, horizontal first, with weights and buffers kept from call to call.
class Resizer {
 public:
  /// Writes `height` x `width` pixels without gaps to `out`.
  void resize(const PixelRows& source, int height, int width, bool antialias, std::uint8_t* out);

 private:
  const ResizeTable& table(int inputs, int outputs, bool antialias);
  PixelRows resize_width(const PixelRows& source, const ResizeTable& table, std::uint8_t* out);
  void resize_height(const PixelRows& source, const ResizeTable& table, std::uint8_t* out);

  std::vector<ResizeTable> tables_;
  std::vector<std::uint8_t> narrowed_;  ///< result of the horizontal pass
  std::vector<std::uint8_t> padded_;    ///< rows at the end of memory, with room to read past them
  std::vector<const std::uint8_t*> rows_;
};

}  // namespace mmtrain::media::detail
