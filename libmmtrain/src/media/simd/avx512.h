#pragma once

#include "media/simd/x86_common.h"

// The vocabulary of image_kernels.inl for AVX512 F, BW, DQ and VL; scalar.h says what each word means.
namespace mmtrain::media::detail {
namespace {

inline constexpr std::size_t kLanes = 16;

struct Floats {
  __m512 v;
};

inline Floats broadcast(float v) { return {_mm512_set1_ps(v)}; }
inline Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Floats a) { _mm512_storeu_ps(p, a.v); }
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Floats min(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Floats max(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats truncate(Floats a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)}; }
inline Floats if_less(Floats a, Floats b, Floats x, Floats y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
inline Floats if_equal(Floats a, Floats b, Floats x, Floats y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ), y.v, x.v)};
}
inline std::int64_t sum(Floats a) { return _mm512_reduce_add_epi32(_mm512_cvttps_epi32(a.v)); }

inline constexpr std::size_t kParts = 1;
inline constexpr std::size_t kPixels = kLanes * kParts;
struct RgbParts {
  Floats channel[3][kParts];
};

template <bool kReversed>
inline RgbParts load_pixels(const std::uint8_t* p) {
  const PixelBytes bytes = load_pixel_bytes<kReversed>(p);
  RgbParts parts;
  for (int c = 0; c < 3; ++c) parts.channel[c][0] = {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes.channel[c]))};
  return parts;
}

inline constexpr std::size_t kBytes = 64;
class ByteSums {
 public:
  explicit ByteSums(std::int32_t start) {
    for (__m512i& part : sums_) part = _mm512_set1_epi32(start);
  }

  void add(const std::uint8_t* a, const std::uint8_t* b, const std::int16_t* weights) {
    const __m512i first = _mm512_loadu_si512(a), second = _mm512_loadu_si512(b);
    const __m512i pair = _mm512_set1_epi32(load_weight_pair(weights)), zero = _mm512_setzero_si512();
    const __m512i low = _mm512_unpacklo_epi8(first, second), high = _mm512_unpackhi_epi8(first, second);
    const __m512i words[4] = {_mm512_unpacklo_epi8(low, zero), _mm512_unpackhi_epi8(low, zero),
                              _mm512_unpacklo_epi8(high, zero), _mm512_unpackhi_epi8(high, zero)};
    for (int i = 0; i < 4; ++i) sums_[i] = _mm512_add_epi32(sums_[i], _mm512_madd_epi16(words[i], pair));
  }

  void store(int precision, std::uint8_t* out) const {
    const __m128i count = _mm_cvtsi32_si128(precision);
    __m512i shifted[4];
    for (int i = 0; i < 4; ++i) shifted[i] = _mm512_sra_epi32(sums_[i], count);
    const __m512i low = _mm512_packs_epi32(shifted[0], shifted[1]), high = _mm512_packs_epi32(shifted[2], shifted[3]);
    _mm512_storeu_si512(out, _mm512_packus_epi16(low, high));
  }

 private:
  __m512i sums_[4];
};

}  // namespace
}  // namespace mmtrain::media::detail
