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
constexpr std::ptrdiff_t kShortNumberRoom = 96;

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

constexpr std::uint64_t kPowersOf10[] = {1, 10, 100, 1000, 10'000, 100'000, 1'000'000, 10'000'000, 100'000'000};
// All that double holds exactly.
constexpr double kExactPowersOf10[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                       1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr int kMostExactPower = 22;

// Appends the digits at `p` to `value`, which the caller discards if they are too many; returns how many there are, 24
// at most.
inline int read_digits(const char*& p, std::uint64_t& value) {
  int total = 0;
  for (int part = 0; part < 3; ++part) {
    std::uint64_t digits = 0;
    std::memcpy(&digits, p, sizeof digits);
    digits ^= 0x3030303030303030;
    const int count = count_digits(digits);
    if (count == 0) break;
    value = value * kPowersOf10[count] + digits_value(digits, count);
    total += count;
    p += count;
    if (count < 8) break;
  }
  return total;
}

// Rounds significand * 10^power to T; false where the result might not be the nearest one.
inline bool scale_exactly(std::uint64_t significand, int power, double& value) {
  if (significand >> 53 != 0 || power < -kMostExactPower || power > kMostExactPower) return false;
  // Both operands are exact, so there is one rounding.
  const auto exact = static_cast<double>(static_cast<std::int64_t>(significand));
  value = power < 0 ? exact / kExactPowersOf10[-power] : exact * kExactPowersOf10[power];
  return true;
}

inline bool scale_exactly(std::uint64_t significand, int power, float& value) {
  if (significand >> 63 != 0 || power < -kMostExactPower || power > kMostExactPower) return false;
  const auto rounded = static_cast<double>(static_cast<std::int64_t>(significand));
  const double wide = power < 0 ? rounded / kExactPowersOf10[-power] : rounded * kExactPowersOf10[power];
  // `wide` is within 2 units of its last place of the true value. Only where a midpoint between two floats is so near
  // can rounding once more go to the wrong side.
  constexpr std::uint64_t kBelowFloat = (std::uint64_t{1} << 29) - 1, kMidpoint = std::uint64_t{1} << 28;
  const std::uint64_t rest = std::bit_cast<std::uint64_t>(wide) & kBelowFloat;
  if (rest - (kMidpoint - 4) <= 8 || wide > 1e38) return false;
  value = static_cast<float>(wide);
  return true;
}

// The number at `p` if it is one of the common kind: sign, up to 19 digits with or without a decimal mark, exponent.
// Returns its end, or null for everything else, and where the nearest T is in doubt.
template <class T>
const char* read_short_number(const char* p, char mark, char other_mark, T& value) {
  const bool negative = *p == '-';
  p += negative;
  std::uint64_t significand = 0;
  int digits = read_digits(p, significand), power = 0;
  if (digits == 0) return nullptr;
  if (*p == mark || *p == other_mark) {
    ++p;
    const int decimals = read_digits(p, significand);
    digits += decimals;
    power = -decimals;
  }
  if (digits > 19) return nullptr;
  if ((*p | 0x20) == 'e') {
    const bool down = p[1] == '-';
    p += down || p[1] == '+' ? 2 : 1;
    std::uint64_t exponent = 0;
    const int count = read_digits(p, exponent);
    if (count == 0 || count > 4) return nullptr;
    power += down ? -static_cast<int>(exponent) : static_cast<int>(exponent);
  }
  T magnitude;
  if (!scale_exactly(significand, power, magnitude)) return nullptr;
  value = negative ? -magnitude : magnitude;
  return p;
}

}  // namespace mmtrain::media::detail
