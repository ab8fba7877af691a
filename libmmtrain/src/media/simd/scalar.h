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

inline std::uint8_t to_byte(std::int32_t v) { return static_cast<std::uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v); }

/// Weighted sums of `kBytes` neighbouring bytes.
inline constexpr std::size_t kBytes = 1;
class ByteSums {
 public:
  explicit ByteSums(std::int32_t start) : sum_(start) {}
  void add(const std::uint8_t* a, const std::uint8_t* b, const std::int16_t* weights) {
    sum_ += *a * weights[0] + *b * weights[1];
  }
  void store(int precision, std::uint8_t* out) const { *out = to_byte(sum_ >> precision); }

 private:
  std::int32_t sum_;
};

/// Weighted sums of one RGB pixel of each of two rows.
struct PixelSums {
  std::int32_t first[3], second[3];

  explicit PixelSums(std::int32_t start) : first{start, start, start}, second{start, start, start} {}
  void add(const std::uint8_t* first_pixels, const std::uint8_t* second_pixels, const std::int16_t* weights) {
    for (int c = 0; c < 3; ++c) {
      first[c] += first_pixels[c] * weights[0] + first_pixels[c + 3] * weights[1];
      second[c] += second_pixels[c] * weights[0] + second_pixels[c + 3] * weights[1];
    }
  }
};

/// Writes `kGroup` pixels of each of two rows; `sums(i)` are those of the i-th.
inline constexpr int kGroup = 1;
template <class Sums>
inline void store_group(const Sums& sums, int precision, std::uint8_t* first, std::uint8_t* second) {
  const PixelSums pixel = sums(0);
  for (int c = 0; c < 3; ++c) {
    first[c] = to_byte(pixel.first[c] >> precision);
    second[c] = to_byte(pixel.second[c] >> precision);
  }
}

}  // namespace
}  // namespace mmtrain::media::detail
