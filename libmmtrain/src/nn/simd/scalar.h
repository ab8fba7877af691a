#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "mmtrain/core/random.h"
#include "nn/kernels.h"

// The vocabulary of kernels.inl in plain C++. A vector has 16 lanes at every level.
namespace mmtrain::nn::detail {
namespace {

/// Shapes of the tiles that a matrix product keeps in registers: rows of a narrow tile (one vector wide), rows and
/// vectors of a wide one.
inline constexpr int kNarrowRows = 2, kWideRows = 1, kWideVectors = 2;

struct F16 {
  float lane[16];
};

template <class Op>
inline F16 lanes(Op op) {
  F16 result;
  for (int i = 0; i < 16; ++i) result.lane[i] = op(i);
  return result;
}

inline F16 broadcast(float v) {
  return lanes([&](int) { return v; });
}
inline F16 load(const float* p) {
  return lanes([&](int i) { return p[i]; });
}
inline void store(float* p, const F16& a) { std::memcpy(p, a.lane, sizeof a.lane); }
inline F16 operator+(const F16& a, const F16& b) {
  return lanes([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline F16 operator-(const F16& a, const F16& b) {
  return lanes([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline F16 operator*(const F16& a, const F16& b) {
  return lanes([&](int i) { return a.lane[i] * b.lane[i]; });
}
/// a * b + c, rounded once where the machine can do so: doing it by hand would cost a hundred times as much.
inline float fma(float a, float b, float c) {
#ifdef __FP_FAST_FMAF
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
inline F16 fma(const F16& a, const F16& b, const F16& c) {
  return lanes([&](int i) { return fma(a.lane[i], b.lane[i], c.lane[i]); });
}
/// b where either is not a number.
inline F16 max(const F16& a, const F16& b) {
  return lanes([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
/// 0 in the lanes where a < b, else x.
inline F16 zero_if_less(const F16& a, const F16& b, const F16& x) {
  return lanes([&](int i) { return a.lane[i] < b.lane[i] ? 0.0f : x.lane[i]; });
}
/// x in the lanes whose bit is set, else 0.
inline F16 keep_lanes(std::uint32_t bits, const F16& x) {
  return lanes([&](int i) { return (bits >> i & 1) != 0 ? x.lane[i] : 0.0f; });
}
/// 2^n for a = n + 1.5 * 2^23: n stands in the low bits and is shifted into the exponent.
inline F16 power_of_two(const F16& a) {
  return lanes([&](int i) {
    std::uint32_t bits;
    std::memcpy(&bits, &a.lane[i], sizeof bits);
    bits = (bits << 23) + 0x3F800000u;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
  });
}
/// Sum of the lanes: halves are added until one is left.
inline float sum_lanes(F16 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.lane[i] += a.lane[i + half];
  }
  return a.lane[0];
}
inline float max_lanes(const F16& a) {
  float largest = a.lane[0];
  for (int i = 1; i < 16; ++i) largest = a.lane[i] > largest ? a.lane[i] : largest;
  return largest;
}

/// The keys of the rounds of Philox, and what is the same for all blocks of a sample.
struct MaskSource {
  MaskStream stream;

  explicit MaskSource(const MaskStream& s) : stream(s) {}

  /// The mask of one group: bit e is 1 where element e is kept.
  std::uint64_t group(std::size_t index) const {
    std::uint64_t mask = 0;
    for (unsigned lane = 0; lane < 8; ++lane) {
      const auto words =
          philox4x32({static_cast<std::uint32_t>(8 * index + lane), 0, static_cast<std::uint32_t>(stream.sample),
                      static_cast<std::uint32_t>(stream.sample >> 32)},
                     {stream.key[0], stream.key[1]});
      for (unsigned w = 0; w < 4; ++w) {
        const std::uint32_t rotated = words[w] << 16 | words[w] >> 16;
        const unsigned bit = 32 * (w / 2) + 2 * lane + w % 2;
        mask |= std::uint64_t{words[w] >= stream.threshold} << bit;
        mask |= std::uint64_t{rotated >= stream.threshold} << (bit + 16);
      }
    }
    return mask;
  }
};

}  // namespace
}  // namespace mmtrain::nn::detail
