#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "mmtrain/media/delimited.h"

// What a file of delimited text looks like, and how one of its lines is split.
namespace mmtrain::media::detail {

// Bytes; more are no row of anything.
constexpr std::size_t kLongestLine = std::size_t{1} << 24;

struct LineSyntax {
  char separator = ' ';  // ' ': runs of blanks
  char comment = 0;
  bool point = true, comma = true;  // decimal marks
  Encoding encoding = Encoding::utf8;
};

struct Field {
  std::string_view text;  // without blanks around it and without quotes
  bool quoted = false;
};

// Splits lines of every kind. The fast way past it is `DelimitedReader::read_short_row`, which must agree with it.
class LineSplitter {
 public:
  enum class Result { empty, fields, malformed };

  explicit LineSplitter(const LineSyntax& syntax) : syntax_(syntax) {}

  // `line` has no line feed. The fields refer to it, or to this object until it splits another one.
  Result split(std::string_view line);
  const std::vector<Field>& fields() const { return fields_; }
  // Why the line is malformed.
  const char* reason() const { return reason_; }

 private:
  bool is_blank(char c) const { return c == ' ' || (c == '\t' && syntax_.separator != '\t'); }
  bool begins_comment(char c) const { return syntax_.comment != 0 && c == syntax_.comment; }
  std::string_view trim(std::string_view text) const;
  std::string_view with_plain_blanks(std::string_view line);
  bool read_quoted(std::string_view line, std::size_t& at);
  void read_plain(std::string_view line, std::size_t& at);

  LineSyntax syntax_;
  std::vector<Field> fields_;
  std::string plain_;
  std::deque<std::string> unescaped_;
  const char* reason_ = "";
};

struct DelimitedFormat {
  LineSyntax syntax;
  std::size_t columns = 0;
  std::vector<char> is_text;  // columns that hold text
  bool has_text = false;
  std::string header;
  std::vector<std::string> names;
  std::size_t body = 0;        // where the first line after the header begins
  std::int64_t body_line = 1;  // its number
};

DelimitedFormat find_format(std::string_view text, const DelimitedOptions& options);

}  // namespace mmtrain::media::detail
