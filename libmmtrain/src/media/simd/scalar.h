#pragma once

#include <cstddef>
#include <cstdint>

// The vocabulary of image_kernels.inl for plain C++: vectors of one.
namespace mmtrain::media::detail {
namespace {

inline constexpr std::size_t kLanes = 1;

struct Floats {
  float v;
};

inline Floats broadcast(float v) { return {v}; }
inline Floats load(const float* p) { return {*p}; }
inline void store(float* p, Floats a) { *p = a.v; }
inline Floats operator+(Floats a, Floats b) { return {a.v + b.v}; }
inline Floats operator-(Floats a, Floats b) { return {a.v - b.v}; }
inline Floats operator*(Floats a, Floats b) { return {a.v * b.v}; }
inline Floats operator/(Floats a, Floats b) { return {a.v / b.v}; }
inline Floats min(Floats a, Floats b) { return {a.v < b.v ? a.v : b.v}; }
inline Floats max(Floats a, Floats b) { return {a.v > b.v ? a.v : b.v}; }
inline Floats truncate(Floats a) { return {static_cast<float>(static_cast<std::int32_t>(a.v))}; }
/// a < b ? x : y
inline Floats if_less(Floats a, Floats b, Floats x, Floats y) { return a.v < b.v ? x : y; }
/// a == b ? x : y
inline Floats if_equal(Floats a, Floats b, Floats x, Floats y) { return a.v == b.v ? x : y; }
/// Sum of the lanes, which hold whole numbers.
inline std::int64_t sum(Floats a) { return static_cast<std::int64_t>(a.v); }

/// `kPixels` pixels taken apart; `part[i]` are the i-th `kLanes` of them.
inline constexpr std::size_t kParts = 1;
inline constexpr std::size_t kPixels = kLanes * kParts;
struct RgbParts {
  Floats channel[3][kParts];
};

template <bool kReversed>
inline RgbParts load_pixels(const std::uint8_t* p) {
  return {{{{static_cast<float>(p[0])}}, {{static_cast<float>(p[1])}}, {{static_cast<float>(p[2])}}}};
}

/// Weighted sums of `kBytes` neighbouring bytes.
inline constexpr std::size_t kBytes = 1;
class ByteSums {
 public:
  explicit ByteSums(std::int32_t start) : sum_(start) {}
  void add(const std::uint8_t* a, const std::uint8_t* b, const std::int16_t* weights) {
    sum_ += *a * weights[0] + *b * weights[1];
  }
  void store(int precision, std::uint8_t* out) const {
    const std::int32_t value = sum_ >> precision;
    *out = static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
  }

 private:
  std::int32_t sum_;
};

/// Weighted sums of RGB pixels, one of each of two rows.
class PixelSums {
 public:
  explicit PixelSums(std::int32_t start) : first_{start, start, start}, second_{start, start, start} {}
  void add(const std::uint8_t* first, const std::uint8_t* second, const std::int16_t* weights) {
    for (int c = 0; c < 3; ++c) {
      first_[c] += first[c] * weights[0] + first[c + 3] * weights[1];
      second_[c] += second[c] * weights[0] + second[c + 3] * weights[1];
    }
  }
  void store(int precision, std::uint8_t* first, std::uint8_t* second) const {
    for (int c = 0; c < 3; ++c) {
      first[c] = clamp(first_[c] >> precision);
      second[c] = clamp(second_[c] >> precision);
    }
  }
  /// May write one byte too many, which the next pixel overwrites.
  void store_wide(int precision, std::uint8_t* first, std::uint8_t* second) const { store(precision, first, second); }

 private:
  static std::uint8_t clamp(std::int32_t v) { return static_cast<std::uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v); }

  std::int32_t first_[3];
  std::int32_t second_[3];
};

}  // namespace
}  // namespace mmtrain::media::detail
