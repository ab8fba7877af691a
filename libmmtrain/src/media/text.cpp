#include "mmtrain/media/text.h"

#include <fmt/format.h>
#include <iconv.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "core/posix.h"
#include "mmtrain/core/error.h"

namespace mmtrain::media {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF", kUtf16Little = "\xFF\xFE", kUtf16Big = "\xFE\xFF";

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

unsigned byte_at(std::string_view text, std::size_t at) { return static_cast<unsigned char>(text[at]); }

// How many of the bytes at `from` are ASCII.
std::size_t ascii_run(std::string_view text, std::size_t from) {
  std::size_t at = from;
  for (std::uint64_t chunk = 0; at + sizeof chunk <= text.size(); at += sizeof chunk) {
    std::memcpy(&chunk, text.data() + at, sizeof chunk);
    if ((chunk & 0x8080808080808080) != 0) break;
  }
  while (at < text.size() && byte_at(text, at) < 0x80) ++at;
  return at - from;
}

// Bytes of the character of several bytes that begins at `at`; 0 if there is none. Neither overlong forms nor
// surrogates are characters.
std::size_t utf8_sequence(std::string_view text, std::size_t at) {
  const unsigned lead = byte_at(text, at);
  const std::size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                             : lead >= 0xE0 && lead <= 0xEF ? 3
                             : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                            : 0;
  if (length == 0 || length > text.size() - at) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if (byte_at(text, at + i) >> 6 != 2) return 0;
  }
  const unsigned second = byte_at(text, at + 1);
  const bool wrong = (lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
                     (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F);
  return wrong ? 0 : length;
}

bool is_utf8(std::string_view text) {
  std::int64_t good = 0, bad = 0;
  for (std::size_t at = ascii_run(text, 0); at < text.size(); at += ascii_run(text, at)) {
    const std::size_t length = utf8_sequence(text, at);
    ++(length > 0 ? good : bad);
    at += std::max<std::size_t>(length, 1);
  }
  return bad <= good / 16;  // a few bytes may be damaged: no other encoding gives so many sequences by chance
}

// European text is never all valid pairs, or its pairs (two accented letters in a row) stand for rare characters.
bool is_gbk(std::string_view text) {
  std::int64_t pairs = 0, common = 0;
  for (std::size_t at = ascii_run(text, 0); at < text.size(); at += 2, at += ascii_run(text, at)) {
    if (text.size() - at < 2) break;  // torn
    const unsigned lead = byte_at(text, at), trail = byte_at(text, at + 1);
    if (lead == 0x80 || lead == 0xFF || trail < 0x40 || trail == 0x7F || trail == 0xFF) return false;
    ++pairs;
    // GB 2312's symbols and its 3755 most common characters.
    if (trail >= 0xA1 && ((lead >= 0xA1 && lead <= 0xA3) || (lead >= 0xB0 && lead <= 0xD7))) ++common;
  }
  return pairs > 0 && 2 * common >= pairs;
}

std::string repair_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t ascii = ascii_run(text, at);
    result.append(text, at, ascii);
    at += ascii;
    if (at == text.size()) break;
    const std::size_t length = utf8_sequence(text, at);
    result.append(length > 0 ? text.substr(at, length) : kReplacement);
    at += std::max<std::size_t>(length, 1);
  }
  return result;
}

// The system's converter from one encoding to UTF-8.
class Converter {
 public:
  explicit Converter(const char* from) : handle_(::iconv_open("UTF-8", from)) {
    if (handle_ == reinterpret_cast<iconv_t>(-1)) {
      throw DataError(
          fmt::format("[to_utf8] the system's iconv does not convert from {}: {}", from, detail::errno_text(errno)));
    }
  }
  ~Converter() { ::iconv_close(handle_); }
  Converter(const Converter&) = delete;
  Converter& operator=(const Converter&) = delete;

  // `unit`: bytes to leave out where they mean nothing.
  std::string convert(std::string_view text, std::size_t unit) {
    std::string result;
    char* from = const_cast<char*>(text.data());  // iconv's signature; it does not write there
    std::size_t left = text.size();
    while (left > 0) {
      char buffer[4096];
      char* to = buffer;
      std::size_t room = sizeof buffer;
      const std::size_t status = ::iconv(handle_, &from, &left, &to, &room);
      const int error = errno;
      result.append(buffer, sizeof buffer - room);
      if (status != static_cast<std::size_t>(-1) || error == E2BIG) continue;
      result += kReplacement;
      if (error != EILSEQ || left <= unit) break;  // the text ends within a character
      from += unit;
      left -= unit;
    }
    return result;
  }

 private:
  iconv_t handle_;
};

}  // namespace

Encoding detect_encoding(std::span<const std::byte> bytes) {
  const std::string_view text = as_text(bytes);
  if (text.starts_with(kUtf16Little) || text.starts_with(kUtf16Big)) return Encoding::utf16;
  if (is_utf8(text)) return Encoding::utf8;
  return is_gbk(text) ? Encoding::gbk : Encoding::windows1252;
}

std::string to_utf8(std::span<const std::byte> bytes, Encoding encoding) {
  std::string_view text = as_text(bytes);
  if (encoding == Encoding::automatic) encoding = detect_encoding(bytes);
  switch (encoding) {
    case Encoding::gbk:
      return Converter("GB18030").convert(text, 1);
    case Encoding::windows1252:
      return Converter("WINDOWS-1252").convert(text, 1);
    case Encoding::utf16: {
      // Without a mark the converter would take the machine's byte order; ours is always little-endian.
      const bool big = text.starts_with(kUtf16Big);
      if (big || text.starts_with(kUtf16Little)) text.remove_prefix(2);
      return Converter(big ? "UTF-16BE" : "UTF-16LE").convert(text, 2);
    }
    default:
      break;
  }
  if (text.starts_with(kUtf8Mark)) text.remove_prefix(kUtf8Mark.size());
  return repair_utf8(text);
}

}  // namespace mmtrain::media
