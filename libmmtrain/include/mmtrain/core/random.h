#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace mmtrain {

/// One block of Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
/// SC 2011): four random words as a pure function of a 128-bit counter and a 64-bit key.
inline std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

/// What a random stream is used for; streams of different domains never overlap.
enum class RandomDomain : std::uint16_t { sample = 0, sampler = 1, generator = 2, batch = 3, dropout = 4, user = 1000 };

/// A reproducible stream of random numbers named by (seed, domain, epoch, index), independent of threads and of
/// the order in which streams are made: the sample `index` sees the same numbers whoever loads it.
/// Satisfies UniformRandomBitGenerator, but prefer the members: std distributions differ between libraries.
class RandomStream {
 public:
  using result_type = std::uint32_t;

  explicit RandomStream(std::uint64_t seed, RandomDomain domain = RandomDomain::user, std::uint64_t epoch = 0,
                        std::uint64_t index = 0)
      : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
        counter_{0, static_cast<std::uint32_t>(index),
                 static_cast<std::uint32_t>((index >> 32) & 0xFFFF) | (static_cast<std::uint32_t>(domain) << 16),
                 static_cast<std::uint32_t>(epoch)} {}

  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return 0xFFFFFFFF; }

  /// The next 32 random bits.
  std::uint32_t operator()() {
    if (used_ == 4) {
      block_ = philox4x32(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return block_[used_++];
  }

  /// Uniform in [0, 1), 53 bits.
  double uniform() {
    const std::uint64_t high = (*this)() >> 5, low = (*this)() >> 6;
    return static_cast<double>((high << 26) | low) * 0x1.0p-53;
  }

  /// Uniform in [low, high).
  double uniform(double low, double high) { return low + (high - low) * uniform(); }

  /// Uniform integer in [0, n), without bias; n in [1, 2^32].
  std::int64_t uniform_int(std::int64_t n) {
    const auto range = static_cast<std::uint64_t>(n);
    std::uint64_t product = std::uint64_t{(*this)()} * range;
    if (static_cast<std::uint32_t>(product) < range) {
      const std::uint64_t threshold = (std::uint64_t{1} << 32) % range;
      while (static_cast<std::uint32_t>(product) < threshold) product = std::uint64_t{(*this)()} * range;
    }
    return static_cast<std::int64_t>(product >> 32);
  }

  /// True with probability p.
  bool bernoulli(double p) { return uniform() < p; }

  /// Standard normal (Box-Muller, one value a call).
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> counter_;
  std::array<std::uint32_t, 4> block_{};
  int used_ = 4;
};

}  // namespace mmtrain
