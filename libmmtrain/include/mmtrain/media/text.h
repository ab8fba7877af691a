#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "mmtrain/core/export.h"

namespace mmtrain::media {

/// How the characters of a text are stored.
enum class Encoding {
  /// Found out: UTF-16 where a byte order mark says so, else UTF-8 where all bytes are, else GBK where the bytes beyond
  /// ASCII are mostly pairs that stand for common Chinese characters, else Windows-1252.
  automatic,
  utf8,
  utf16,  ///< little-endian unless its byte order mark says otherwise
  gbk,    ///< with GB18030, which contains it
  windows1252
};

/// What `Encoding::automatic` finds; never `automatic` itself.
MMTRAIN_API Encoding detect_encoding(std::span<const std::byte> bytes);

/// The text as UTF-8, without a byte order mark. Bytes that mean nothing become U+FFFD, one for each: names and labels
/// of broken files stay readable. Throws `DataError` if the system's iconv does not know the encoding.
MMTRAIN_API std::string to_utf8(std::span<const std::byte> bytes, Encoding encoding = Encoding::automatic);

/// A line, or a record of several lines, that a reader of text has left out.
struct MalformedLine {
  std::int64_t line = 0;  ///< of the file, from 1
  std::string reason;     ///< UTF-8
};

}  // namespace mmtrain::media
