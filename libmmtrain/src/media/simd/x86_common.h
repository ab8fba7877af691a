#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

// What the AVX2 and the AVX512 vocabulary share.
namespace mmtrain::media::detail {
namespace {

/// Sixteen RGB pixels taken apart, as bytes.
struct PixelBytes {
  __m128i channel[3];
};

/// Selects, for `pshufb`, the bytes of one channel that lie in one of the three 16-byte pieces of 16 pixels.
struct ChannelMask {
  alignas(16) std::int8_t index[16];

  constexpr ChannelMask(int channel, int piece, bool reversed) : index{} {
    for (int pixel = 0; pixel < 16; ++pixel) {
      const int byte = 3 * pixel + channel - 16 * piece;
      index[reversed ? 15 - pixel : pixel] = static_cast<std::int8_t>(byte >= 0 && byte < 16 ? byte : -128);
    }
  }
};

template <int kChannel, bool kReversed>
inline __m128i take_channel(__m128i a, __m128i b, __m128i c) {
  static constexpr ChannelMask kMasks[3] = {
      {kChannel, 0, kReversed}, {kChannel, 1, kReversed}, {kChannel, 2, kReversed}};
  const auto take = [](__m128i piece, const ChannelMask& mask) {
    return _mm_shuffle_epi8(piece, _mm_load_si128(reinterpret_cast<const __m128i*>(mask.index)));
  };
  return _mm_or_si128(_mm_or_si128(take(a, kMasks[0]), take(b, kMasks[1])), take(c, kMasks[2]));
}

template <bool kReversed>
inline PixelBytes load_pixel_bytes(const std::uint8_t* p) {
  const auto* pieces = reinterpret_cast<const __m128i*>(p);
  const __m128i a = _mm_loadu_si128(pieces), b = _mm_loadu_si128(pieces + 1), c = _mm_loadu_si128(pieces + 2);
  return {
      {take_channel<0, kReversed>(a, b, c), take_channel<1, kReversed>(a, b, c), take_channel<2, kReversed>(a, b, c)}};
}

inline std::int32_t load_weight_pair(const std::int16_t* weights) {
  std::int32_t pair;
  std::memcpy(&pair, weights, sizeof pair);
  return pair;
}

/// Weighted sums of one RGB pixel of each of two rows: 3 of 4 lanes in each half, the first row in the lower one.
class PixelSums {
 public:
  explicit PixelSums(std::int32_t start) : sums_(_mm256_set1_epi32(start)) {}

  void add(const std::uint8_t* first, const std::uint8_t* second, const std::int16_t* weights) {
    const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(first));
    const __m128i high = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(second));
    const __m256i pixels = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    // r0 g0 b0 r1 g1 b1 -> (r0, r1) (g0, g1) (b0, b1) as 16-bit pairs.
    const __m256i order =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i products =
        _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, order), _mm256_set1_epi32(load_weight_pair(weights)));
    sums_ = _mm256_add_epi32(sums_, products);
  }

  __m256i shifted(__m128i count) const { return _mm256_sra_epi32(sums_, count); }

 private:
  __m256i sums_;
};

inline void store_four_pixels(std::uint8_t* out, __m128i bytes) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), bytes);
  const std::int32_t rest = _mm_extract_epi32(bytes, 2);
  std::memcpy(out + 8, &rest, sizeof rest);
}

/// Writes `kGroup` pixels of each of two rows; `sums(i)` are those of the i-th.
inline constexpr int kGroup = 4;
template <class Sums>
inline void store_group(const Sums& sums, int precision, std::uint8_t* first, std::uint8_t* second) {
  const __m128i count = _mm_cvtsi32_si128(precision);
  const __m256i low = _mm256_packs_epi32(sums(0).shifted(count), sums(1).shifted(count));
  const __m256i high = _mm256_packs_epi32(sums(2).shifted(count), sums(3).shifted(count));
  // Closes the gap that every fourth byte is.
  const __m256i order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_packus_epi16(low, high), order);
  store_four_pixels(first, _mm256_castsi256_si128(bytes));
  store_four_pixels(second, _mm256_extracti128_si256(bytes, 1));
}

}  // namespace
}  // namespace mmtrain::media::detail
