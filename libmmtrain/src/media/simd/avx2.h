#pragma once

#include "media/simd/x86_common.h"

// The vocabulary of image_kernels.inl for AVX2; scalar.h says what each word means.
namespace mmtrain::media::detail {
namespace {

inline constexpr std::size_t kLanes = 8;

struct Floats {
  __m256 v;
};

inline Floats broadcast(float v) { return {_mm256_set1_ps(v)}; }
inline Floats load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void store(float* p, Floats a) { _mm256_storeu_ps(p, a.v); }
inline Floats operator+(Floats a, Floats b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Floats min(Floats a, Floats b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Floats max(Floats a, Floats b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Floats truncate(Floats a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)}; }
inline Floats if_less(Floats a, Floats b, Floats x, Floats y) {
  return {_mm256_blendv_ps(y.v, x.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))};
}
inline Floats if_equal(Floats a, Floats b, Floats x, Floats y) {
  return {_mm256_blendv_ps(y.v, x.v, _mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ))};
}
inline std::int64_t sum(Floats a) {
  alignas(32) std::int32_t lanes[kLanes];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), _mm256_cvttps_epi32(a.v));
  std::int64_t total = 0;
  for (const std::int32_t lane : lanes) total += lane;
  return total;
}

inline constexpr std::size_t kParts = 2;
inline constexpr std::size_t kPixels = kLanes * kParts;
struct RgbParts {
  Floats channel[3][kParts];
};

inline Floats widen(__m128i bytes) { return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))}; }

template <bool kReversed>
inline RgbParts load_pixels(const std::uint8_t* p) {
  const PixelBytes bytes = load_pixel_bytes<kReversed>(p);
  RgbParts parts;
  for (int c = 0; c < 3; ++c) {
    parts.channel[c][0] = widen(bytes.channel[c]);
    parts.channel[c][1] = widen(_mm_srli_si128(bytes.channel[c], 8));
  }
  return parts;
}

inline constexpr std::size_t kBytes = 32;
class ByteSums {
 public:
  explicit ByteSums(std::int32_t start) {
    for (__m256i& part : sums_) part = _mm256_set1_epi32(start);
  }

  void add(const std::uint8_t* a, const std::uint8_t* b, const std::int16_t* weights) {
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a));
    const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
    const __m256i pair = _mm256_set1_epi32(load_weight_pair(weights)), zero = _mm256_setzero_si256();
    const __m256i low = _mm256_unpacklo_epi8(first, second), high = _mm256_unpackhi_epi8(first, second);
    const __m256i words[4] = {_mm256_unpacklo_epi8(low, zero), _mm256_unpackhi_epi8(low, zero),
                              _mm256_unpacklo_epi8(high, zero), _mm256_unpackhi_epi8(high, zero)};
    for (int i = 0; i < 4; ++i) sums_[i] = _mm256_add_epi32(sums_[i], _mm256_madd_epi16(words[i], pair));
  }

  void store(int precision, std::uint8_t* out) const {
    const __m128i count = _mm_cvtsi32_si128(precision);
    __m256i shifted[4];
    for (int i = 0; i < 4; ++i) shifted[i] = _mm256_sra_epi32(sums_[i], count);
    // Packing undoes the order that unpacking made: both work within halves.
    const __m256i low = _mm256_packs_epi32(shifted[0], shifted[1]), high = _mm256_packs_epi32(shifted[2], shifted[3]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_packus_epi16(low, high));
  }

 private:
  __m256i sums_[4];
};

}  // namespace
}  // namespace mmtrain::media::detail
