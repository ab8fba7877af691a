#pragma once

// GCC 12 takes the undefined vectors of its own header for a mistake of ours (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "nn/kernels.h"

// The vocabulary of kernels.inl for AVX512 F, BW, DQ and VL; scalar.h says what each word means.
namespace mmtrain::nn::detail {
namespace {

inline constexpr int kNarrowRows = 8, kWideRows = 4, kWideVectors = 4;

struct F16 {
  __m512 v;
};

inline F16 broadcast(float v) { return {_mm512_set1_ps(v)}; }
inline F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F16 a) { _mm512_storeu_ps(p, a.v); }
inline F16 operator+(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F16 operator-(F16 a, F16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F16 operator*(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F16 fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F16 max(F16 a, F16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F16 zero_if_less(F16 a, F16 b, F16 x) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ), x.v)};
}
inline F16 keep_lanes(std::uint32_t bits, F16 x) { return {_mm512_maskz_mov_ps(static_cast<__mmask16>(bits), x.v)}; }
inline F16 power_of_two(F16 a) {
  const __m512i shifted = _mm512_slli_epi32(_mm512_castps_si512(a.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(shifted, _mm512_set1_epi32(0x3F800000)))};
}

inline float sum_lanes(F16 a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float max_lanes(F16 a) { return _mm512_reduce_max_ps(a.v); }

/// The numbers stay in the low halves of 64-bit lanes, which the multiplication reads; what is above them is noise.
class MaskSource {
 public:
  explicit MaskSource(const MaskStream& stream)
      : sample_low_(_mm512_set1_epi64(static_cast<std::uint32_t>(stream.sample))),
        sample_high_(_mm512_set1_epi64(static_cast<std::uint32_t>(stream.sample >> 32))),
        threshold_(_mm512_set1_epi32(static_cast<int>(stream.threshold))) {
    std::uint32_t a = stream.key[0], b = stream.key[1];
    for (int round = 0; round < 10; ++round, a += 0x9E3779B9, b += 0xBB67AE85) {
      keys_[round][0] = a;
      keys_[round][1] = b;
    }
  }

  std::uint64_t group(std::size_t index) const {
    const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57);
    __m512i c0 = _mm512_add_epi64(_mm512_set1_epi64(static_cast<long long>(8 * index)),
                                  _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
    __m512i c1 = _mm512_setzero_si512(), c2 = sample_low_, c3 = sample_high_;
    for (const auto& key : keys_) {
      const __m512i p0 = _mm512_mul_epu32(c0, m0), p1 = _mm512_mul_epu32(c2, m1);
      c0 = xor3(_mm512_srli_epi64(p1, 32), c1, _mm512_set1_epi64(static_cast<long long>(key[0])));
      c1 = p1;
      c2 = xor3(_mm512_srli_epi64(p0, 32), c3, _mm512_set1_epi64(static_cast<long long>(key[1])));
      c3 = p0;
    }
    return kept(c0, c1) | kept(c2, c3) << 32;
  }

 private:
  static __m512i xor3(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }

  std::uint64_t kept(__m512i even, __m512i odd) const {
    const __m512i words = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
    const std::uint64_t plain = _mm512_cmpge_epu32_mask(words, threshold_);
    const std::uint64_t rotated = _mm512_cmpge_epu32_mask(_mm512_rol_epi32(words, 16), threshold_);
    return plain | rotated << 16;
  }

  std::uint64_t keys_[10][2];
  __m512i sample_low_, sample_high_, threshold_;
};

}  // namespace
}  // namespace mmtrain::nn::detail
