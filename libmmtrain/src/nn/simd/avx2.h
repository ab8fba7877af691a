#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "nn/kernels.h"

// The vocabulary of kernels.inl for AVX2 and FMA; scalar.h says what each word means.
namespace mmtrain::nn::detail {
namespace {

inline constexpr int kNarrowRows = 4, kWideRows = 2, kWideVectors = 2;

struct F16 {
  __m256 low, high;
};

inline F16 broadcast(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
inline F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F16 a) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}
inline F16 operator+(F16 a, F16 b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline F16 operator-(F16 a, F16 b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline F16 operator*(F16 a, F16 b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline F16 fma(F16 a, F16 b, F16 c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline F16 max(F16 a, F16 b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline F16 zero_if_less(F16 a, F16 b, F16 x) {
  return {_mm256_and_ps(_mm256_cmp_ps(a.low, b.low, _CMP_NLT_UQ), x.low),
          _mm256_and_ps(_mm256_cmp_ps(a.high, b.high, _CMP_NLT_UQ), x.high)};
}

inline __m256 keep_eight(__m256i bits, __m256i places, __m256 x) {
  const __m256i kept = _mm256_cmpeq_epi32(_mm256_and_si256(bits, places), places);
  return _mm256_and_ps(_mm256_castsi256_ps(kept), x);
}
inline F16 keep_lanes(std::uint32_t bits, F16 x) {
  const __m256i all = _mm256_set1_epi32(static_cast<int>(bits));
  const __m256i places = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return {keep_eight(all, places, x.low), keep_eight(all, _mm256_slli_epi32(places, 8), x.high)};
}

inline __m256 power_of_two(__m256 a) {
  const __m256i shifted = _mm256_slli_epi32(_mm256_castps_si256(a), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(shifted, _mm256_set1_epi32(0x3F800000)));
}
inline F16 power_of_two(F16 a) { return {power_of_two(a.low), power_of_two(a.high)}; }

inline float sum_lanes(F16 a) {
  const __m256 eight = _mm256_add_ps(a.low, a.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float max_lanes(F16 a) {
  const __m256 eight = _mm256_max_ps(a.low, a.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/// The numbers stay in the low halves of 64-bit lanes, which the multiplication reads; what is above them is noise.
class MaskSource {
 public:
  explicit MaskSource(const MaskStream& stream)
      : sample_low_(_mm256_set1_epi64x(static_cast<std::uint32_t>(stream.sample))),
        sample_high_(_mm256_set1_epi64x(static_cast<std::uint32_t>(stream.sample >> 32))),
        threshold_(_mm256_set1_epi32(static_cast<int>(stream.threshold))) {
    std::uint32_t a = stream.key[0], b = stream.key[1];
    for (int round = 0; round < 10; ++round, a += 0x9E3779B9, b += 0xBB67AE85) {
      keys_[round][0] = a;
      keys_[round][1] = b;
    }
  }

  std::uint64_t group(std::size_t index) const {
    const __m256i first =
        _mm256_add_epi64(_mm256_set1_epi64x(static_cast<long long>(8 * index)), _mm256_setr_epi64x(0, 1, 2, 3));
    const Block low = philox(first), high = philox(_mm256_add_epi64(first, _mm256_set1_epi64x(4)));
    return kept(low.c0, low.c1, high.c0, high.c1) | kept(low.c2, low.c3, high.c2, high.c3) << 32;
  }

 private:
  struct Block {
    __m256i c0, c1, c2, c3;
  };

  Block philox(__m256i c0) const {
    const __m256i m0 = _mm256_set1_epi64x(0xD2511F53), m1 = _mm256_set1_epi64x(0xCD9E8D57);
    __m256i c1 = _mm256_setzero_si256(), c2 = sample_low_, c3 = sample_high_;
    for (const auto& key : keys_) {
      const __m256i p0 = _mm256_mul_epu32(c0, m0), p1 = _mm256_mul_epu32(c2, m1);
      c0 = xor3(_mm256_srli_epi64(p1, 32), c1, _mm256_set1_epi64x(static_cast<long long>(key[0])));
      c1 = p1;
      c2 = xor3(_mm256_srli_epi64(p0, 32), c3, _mm256_set1_epi64x(static_cast<long long>(key[1])));
      c3 = p0;
    }
    return {c0, c1, c2, c3};
  }

  static __m256i xor3(__m256i a, __m256i b, __m256i c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }

  std::uint64_t kept(__m256i even_low, __m256i odd_low, __m256i even_high, __m256i odd_high) const {
    const __m256i low = words(even_low, odd_low), high = words(even_high, odd_high);
    return at_least_threshold(low) | at_least_threshold(high) << 8 | at_least_threshold(rotate(low)) << 16 |
           at_least_threshold(rotate(high)) << 24;
  }

  static __m256i words(__m256i even, __m256i odd) { return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA); }
  static __m256i rotate(__m256i a) { return _mm256_or_si256(_mm256_slli_epi32(a, 16), _mm256_srli_epi32(a, 16)); }
  std::uint64_t at_least_threshold(__m256i a) const {
    const __m256i kept = _mm256_cmpeq_epi32(_mm256_max_epu32(a, threshold_), a);
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(kept)));
  }

  std::uint64_t keys_[10][2];
  __m256i sample_low_, sample_high_, threshold_;
};

}  // namespace
}  // namespace mmtrain::nn::detail
