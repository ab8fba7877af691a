#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

// Numbers in decimal text.
namespace mmtrain::media::detail {

// A whole field, without blanks around it, as the number of type T nearest to it; false if it is none. Empty fields and
// the usual words for missing values are NaN. `comma` takes a comma for the decimal point, `point` a point.
template <class T>
bool parse_number(std::string_view text, bool point, bool comma, T& value);

// So many bytes from its beginning `read_short_number` may look at.
constexpr std::ptrdiff_t kShortNumberRoom = 128;

// How many of eight characters, the first in the lowest byte, are digits before the first that is not. `digits` are the
// characters xor '0'.
inline int count_digits(std::uint64_t digits) {
  // What is 10 or more gets its highest bit. A carry only reaches later characters.
  const std::uint64_t others = ((digits + 0x7676767676767676) | digits) & 0x8080808080808080;
  return others == 0 ? 8 : std::countr_zero(others) / 8;
}

// The value of the first `count` > 0 digits: they move to the end, zeros in front of them, and are added up in pairs.
inline std::uint64_t digits_value(std::uint64_t digits, int count) {
  digits <<= 8 * (8 - count);
  digits = digits * 10 + (digits >> 8);
  constexpr std::uint64_t kPairs = 0x000000FF000000FF;
  return ((digits & kPairs) * 0x000F424000000064 + (digits >> 16 & kPairs) * 0x0000271000000001) >> 32;
}

constexpr std::uint64_t kShifts[] = {1, 10, 100, 1000, 10'000, 100'000, 1'000'000, 10'000'000, 100'000'000};
// 10^-22 to 10^22. Those from 10^0 on are exact.
constexpr int kMostPower = 22;
constexpr double kPowersOf10[] = {1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-17, 1e-16, 1e-15, 1e-14, 1e-13, 1e-12, 1e-11,
                                  1e-10, 1e-9,  1e-8,  1e-7,  1e-6,  1e-5,  1e-4,  1e-3,  1e-2,  1e-1,  1e0,   1e1,
                                  1e2,   1e3,   1e4,   1e5,   1e6,   1e7,   1e8,   1e9,   1e10,  1e11,  1e12,  1e13,
                                  1e14,  1e15,  1e16,  1e17,  1e18,  1e19,  1e20,  1e21,  1e22};

inline std::uint64_t load_digits(const char* p) {
  std::uint64_t characters = 0;
  std::memcpy(&characters, p, sizeof characters);
  return characters ^ 0x3030303030303030;
}

// Appends the digits at `p`, of which `digits` are the first eight characters, to `value`, which the caller discards if
// they are too many. Returns how many there are, 24 or so at most.
[[gnu::always_inline]] inline int read_digits(const char*& p, std::uint64_t digits, std::uint64_t& value) {
  int count = count_digits(digits), total = count;
  if (count == 0) return 0;
  value = value * kShifts[count] + digits_value(digits, count);
  p += count;
  while (count >= 7 && total < 24) {  // of a number with a sign only seven were seen
    digits = load_digits(p);
    count = count_digits(digits);
    if (count == 0) break;
    value = value * kShifts[count] + digits_value(digits, count);
    p += count;
    total += count;
  }
  return total;
}

// The T nearest to significand * 10^power; false where it is in doubt which one that is.
inline bool scale(std::uint64_t significand, int power, double& value) {
  if (significand >> 53 != 0 || power < -kMostPower || power > kMostPower) return false;
  // Both operands are exact, so there is one rounding.
  const auto exact = static_cast<double>(static_cast<std::int64_t>(significand));
  value = power < 0 ? exact / kPowersOf10[kMostPower - power] : exact * kPowersOf10[kMostPower + power];
  return true;
}

inline bool scale(std::uint64_t significand, int power, float& value) {
  if (significand >> 63 != 0 || power < -kMostPower || power > kMostPower) return false;
  const double wide = static_cast<double>(static_cast<std::int64_t>(significand)) * kPowersOf10[kMostPower + power];
  // Three roundings have left it within 4 units of its last place. Only where the middle between two floats is so near
  // can one more rounding go to the wrong side.
  constexpr std::uint64_t kDropped = (std::uint64_t{1} << 29) - 1, kMiddle = std::uint64_t{1} << 28;
  const std::uint64_t dropped = std::bit_cast<std::uint64_t>(wide) & kDropped;
  if (dropped - (kMiddle - 4) <= 8 || wide > 1e38) return false;
  value = static_cast<float>(wide);
  return true;
}

// The number at `p` if it is one of the common kind: sign, up to 19 digits with or without a decimal mark, exponent.
// Returns its end, or null for everything else, and where the nearest T is in doubt.
template <class T>
[[gnu::always_inline]] inline const char* read_short_number(const char* p, char mark, char other_mark, T& value) {
  // What follows must wait for where this number ends, so the way there is kept short: one load for sign and digits.
  std::uint64_t digits = load_digits(p);
  const bool negative = (digits & 0xFF) == ('-' ^ '0');
  digits = negative ? digits >> 8 | std::uint64_t{0xFF} << 56 : digits;
  p += negative;
  std::uint64_t significand = 0;
  int known = read_digits(p, digits, significand), power = 0;
  if (known == 0) return nullptr;
  if (*p == mark || *p == other_mark) {
    ++p;
    const int decimals = read_digits(p, load_digits(p), significand);
    known += decimals;
    power = -decimals;
  }
  if (known > 19) return nullptr;
  if ((*p | 0x20) == 'e') {
    const bool down = p[1] == '-';
    p += down || p[1] == '+' ? 2 : 1;
    std::uint64_t exponent = 0;
    const int count = read_digits(p, load_digits(p), exponent);
    if (count == 0 || count > 4) return nullptr;
    power += down ? -static_cast<int>(exponent) : static_cast<int>(exponent);
  }
  T magnitude;
  if (!scale(significand, power, magnitude)) return nullptr;
  // Without a branch: signs cannot be foretold.
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  value = std::bit_cast<T>(std::bit_cast<Bits>(magnitude) | Bits{negative} << (8 * sizeof(T) - 1));
  return p;
}

}  // namespace mmtrain::media::detail
