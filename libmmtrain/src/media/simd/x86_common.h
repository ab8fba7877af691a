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

/// Weighted sums of RGB pixels, one of each of two rows: 3 of 4 lanes in each half of a 256-bit vector.
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
    const __m256i pairs = _mm256_shuffle_epi8(pixels, order);
    sums_ = _mm256_add_epi32(sums_, _mm256_madd_epi16(pairs, _mm256_set1_epi32(load_weight_pair(weights))));
  }

  /// Writes 4 bytes a row: the next pixel overwrites the one too many.
  void store_wide(int precision, std::uint8_t* first, std::uint8_t* second) const {
    const Pair pair = finish(precision);
    std::memcpy(first, &pair.first, 4);
    std::memcpy(second, &pair.second, 4);
  }

  void store(int precision, std::uint8_t* first, std::uint8_t* second) const {
    const Pair pair = finish(precision);
    std::memcpy(first, &pair.first, 3);
    std::memcpy(second, &pair.second, 3);
  }

 private:
  struct Pair {
    std::int32_t first, second;
  };

  Pair finish(int precision) const {
    const __m256i shifted = _mm256_sra_epi32(sums_, _mm_cvtsi32_si128(precision));
    const __m256i words = _mm256_packs_epi32(shifted, shifted);
    const __m256i bytes = _mm256_packus_epi16(words, words);
    return {_mm_cvtsi128_si32(_mm256_castsi256_si128(bytes)), _mm_cvtsi128_si32(_mm256_extracti128_si256(bytes, 1))};
  }

  __m256i sums_;
};

}  // namespace
}  // namespace mmtrain::media::detail
