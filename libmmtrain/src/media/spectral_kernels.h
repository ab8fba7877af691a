#pragma once

#include <cstddef>

/// The loops of spectral features and resampling, compiled once for each `SimdLevel`; all levels give equal bits. Apart
/// from the transform itself they work on blocks of `kFrames` frames, stored value by value: `[values, kFrames]`. So
/// each step is the same arithmetic for neighbouring numbers, and what comes out has the order of a spectrogram.
namespace mmtrain::media::detail {

inline constexpr std::size_t kFrames = 16;

/// A row of a sparse matrix: `count` weights for the inputs from `first` on.
struct SparseRow {
  std::size_t first;
  std::size_t count;
  const float* weights;
};

struct SpectralKernels {
  /// `out[i] = values[i] * window[i]`.
  void (*multiply)(const float* values, const float* window, std::size_t n, float* out);
  /// `kFrames` rows, `pitch` floats apart, to a block `[n, kFrames]`; n is a multiple of 4.
  void (*interleave)(const float* rows, std::size_t pitch, std::size_t n, float* block);
  /// A real frame of 2 `half` samples was transformed as `half` complex numbers (even samples real, odd ones
  /// imaginary), times 1/2: `block` `[half, 2, kFrames]`. Finds the spectrum `[half + 1, 2, kFrames]`, or its squared
  /// magnitude `[half + 1, kFrames]`. `twiddles` are cosine and sine of -2 pi k / (2 half).
  void (*split_spectrum)(const float* block, std::size_t half, const float* twiddles, float* spectrum);
  void (*split_power)(const float* block, std::size_t half, const float* twiddles, float* power);
  /// Squared magnitudes `[bins, kFrames]` of a spectrum `[bins, 2, kFrames]`.
  void (*power)(const float* spectrum, std::size_t bins, float* power);
  /// Each row of a sparse matrix times a block.
  void (*apply_rows)(const SparseRow* rows, std::size_t count, const float* block, float* out);
  /// `scale * ln(max(x, floor))`, or with `add` `scale * ln(x + floor)`, in place; NaN where x is not finite.
  void (*logarithm)(float* values, std::size_t n, float floor, bool add, float scale);
  /// `out[i] += factor * values[i]`.
  void (*accumulate)(const float* values, float factor, std::size_t n, float* out);
  /// Sum of products; n is a multiple of `kFrames`.
  float (*dot)(const float* a, const float* b, std::size_t n);
};

/// The kernels of `simd_level()`.
const SpectralKernels& spectral_kernels();

extern const SpectralKernels kScalarSpectralKernels;
extern const SpectralKernels kAvx2SpectralKernels;
extern const SpectralKernels kAvx512SpectralKernels;

}  // namespace mmtrain::media::detail
