#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace mmtrain {

// Whether a byte begins a character of UTF-8 text (the others continue one).
inline bool starts_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

// Characters (code points) of UTF-8 text.
inline std::size_t utf8_length(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, starts_character));
}

// Byte at which the character `index` begins; the size of the text if it has fewer.
inline std::size_t utf8_offset(std::string_view text, std::size_t index) {
  std::size_t at = 0;
  for (; at < text.size(); ++at) {
    if (starts_character(text[at]) && index-- == 0) break;
  }
  return at;
}

}  // namespace mmtrain
