#include "media/number.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <limits>
#include <string>
#include <system_error>

namespace mmtrain::media::detail {
namespace {

bool equal_words(std::string_view text, std::string_view lower) {
  return std::equal(text.begin(), text.end(), lower.begin(), lower.end(),
                    [](unsigned char a, char b) { return std::tolower(a) == b; });
}

bool is_missing(std::string_view text) {
  constexpr std::array<std::string_view, 12> kWords{"na",  "n/a", "<na>",   "null",    "none",    "#n/a",
                                                    "#na", "?",   "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"};
  return text.empty() ||
         std::any_of(kWords.begin(), kWords.end(), [&](std::string_view word) { return equal_words(text, word); });
}

// A number beyond T's range is infinite or zero: which one, the power of its first digit says.
bool is_huge(std::string_view text) {
  const std::size_t exponent_at = std::min(text.find_first_of("eE"), text.size());
  const std::string_view mantissa = text.substr(0, exponent_at);
  const std::size_t point = std::min(mantissa.find('.'), mantissa.size()), first = mantissa.find_first_of("123456789");
  if (exponent_at + 1 < text.size()) {
    std::string_view exponent = text.substr(exponent_at + 1);
    const bool down = exponent.starts_with('-');
    if (down || exponent.starts_with('+')) exponent.remove_prefix(1);
    std::int64_t power = 0;
    const auto [end, error] = std::from_chars(exponent.data(), exponent.data() + exponent.size(), power);
    constexpr std::int64_t kMostDigits = std::int64_t{1} << 40;  // no line is longer
    if (error == std::errc::result_out_of_range || power > kMostDigits) return !down;
    const auto place = static_cast<std::int64_t>(point) - static_cast<std::int64_t>(first);
    return (down ? -power : power) + place > 0;
  }
  return first < point;
}

}  // namespace

template <class T>
bool parse_number(std::string_view text, bool point, bool comma, T& value) {
  if (is_missing(text)) {
    value = std::numeric_limits<T>::quiet_NaN();
    return true;
  }
  std::string changed;
  if (const std::size_t at = text.find(','); at != text.npos) {
    if (!comma || text.find('.') != text.npos) return false;
    changed = text;
    changed[at] = '.';
    text = changed;
  } else if (!point && text.find('.') != text.npos) {
    return false;
  }
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return false;
  }
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (stop != end || error == std::errc::invalid_argument) return false;
  if (error == std::errc::result_out_of_range) {
    value = is_huge(text) ? std::numeric_limits<T>::infinity() : T{0};
    if (text.starts_with('-')) value = -value;
  }
  return true;
}

template bool parse_number(std::string_view, bool, bool, float&);
template bool parse_number(std::string_view, bool, bool, double&);

}  // namespace mmtrain::media::detail
