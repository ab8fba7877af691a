#pragma once

#include <string>
#include <string_view>

// Small text helpers of the data sets; ASCII letters only.
namespace mmtrain::datasets::detail {

inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kBlanks);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

inline std::string lower(std::string_view text) {
  std::string result(text);
  for (char& letter : result) {
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  }
  return result;
}

inline std::string lower_trimmed(std::string_view text) { return lower(trimmed(text)); }

}  // namespace mmtrain::datasets::detail
