#pragma once

#include <cstddef>
#include <cstdint>

/// The loops over pixels, compiled once for each `SimdLevel`. Colour work is done on planes of floats that hold whole
/// grey levels 0..255, so the bits are the same at every level.
namespace mmtrain::media::detail {

/// Red, green and blue, each `n` floats.
struct Planes {
  float* channel[3];

  Planes operator+(std::size_t offset) const { return {channel[0] + offset, channel[1] + offset, channel[2] + offset}; }
};

/// `value * scale[c] + bias[c]`.
struct Affine {
  float scale[3];
  float bias[3];
};

/// Where an axis of a resized image takes its values from: output `i` is the sum of `weights[i * taps + k] *
/// input[start[i] + k]`, divided by 2^precision and rounded. `taps` is even; unused weights are 0.
struct ResizeTaps {
  const std::int32_t* start;
  const std::int16_t* weights;
  int outputs;
  int taps;
  int precision;
};

/// Rows that `resize_rows` works on at once.
inline constexpr int kResizeRows = 2;
/// Bytes that `resize_rows` may read (and ignore) behind the last pixel it uses.
inline constexpr int kResizeSlack = 2;

struct ImageKernels {
  /// `n` interleaved RGB pixels to planes, through `affine`; `reversed` writes the last pixel first.
  void (*unpack)(const std::uint8_t* pixels, std::size_t n, bool reversed, const Affine& affine, Planes out);
  /// Planes through `affine`, in place.
  void (*transform)(Planes planes, std::size_t n, const Affine& affine);

  /// torchvision's colour adjustments, in place; values stay whole numbers.
  void (*brightness)(Planes planes, std::size_t n, float factor);
  void (*contrast)(Planes planes, std::size_t n, float factor, float mean_grey);
  void (*saturation)(Planes planes, std::size_t n, float factor);
  void (*hue)(Planes planes, std::size_t n, float shift);
  /// Sum of the grey levels (rounded down) of `n` pixels.
  std::int64_t (*sum_grey)(Planes planes, std::size_t n);

  /// Resizes `kResizeRows` rows of RGB pixels to `taps.outputs` pixels each.
  void (*resize_rows)(const std::uint8_t* const* rows, const ResizeTaps& taps, std::uint8_t* const* out);
  /// One row of bytes as the weighted sum of `taps` rows.
  void (*blend_rows)(const std::uint8_t* const* rows, const std::int16_t* weights, int taps, int precision,
                     std::size_t bytes, std::uint8_t* out);
};

/// The kernels of `simd_level()`.
const ImageKernels& image_kernels();

extern const ImageKernels kScalarImageKernels;
extern const ImageKernels kAvx2ImageKernels;
extern const ImageKernels kAvx512ImageKernels;

}  // namespace mmtrain::media::detail
