#include "media/delimited_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <span>
#include <utility>

#include "media/number.h"
#include "mmtrain/core/error.h"

namespace mmtrain::media::detail {
namespace {

constexpr char kQuote = '"';

bool is_beyond_ascii(char c) { return static_cast<unsigned char>(c) >= 0x80; }

std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

// Bytes of the blank beyond ASCII that `text` begins with: ideographic space, no-break space.
std::size_t wide_blank(std::string_view text, Encoding encoding) {
  if (encoding == Encoding::gbk) return text.starts_with("\xA1\xA1") ? 2 : 0;
  if (encoding == Encoding::windows1252) return text.starts_with('\xA0') ? 1 : 0;
  return text.starts_with("\xE3\x80\x80") ? 3 : text.starts_with("\xC2\xA0") ? 2 : 0;
}

}  // namespace

std::string_view LineSplitter::trim(std::string_view text) const {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

std::string_view LineSplitter::with_plain_blanks(std::string_view line) {
  const auto first = std::find_if(line.begin(), line.end(), is_beyond_ascii);
  if (first == line.end()) return line;
  plain_.assign(line.begin(), first);
  line.remove_prefix(plain_.size());
  while (!line.empty()) {
    const std::size_t blank = wide_blank(line, syntax_.encoding);
    // GBK's second bytes mean nothing alone.
    const std::size_t length = blank > 0                                                       ? blank
                               : syntax_.encoding == Encoding::gbk && is_beyond_ascii(line[0]) ? 2
                                                                                               : 1;
    plain_ += blank > 0 ? std::string_view(" ") : line.substr(0, length);
    line.remove_prefix(std::min(length, line.size()));
  }
  return plain_;
}

LineSplitter::Result LineSplitter::split(std::string_view line) {
  fields_.clear();
  unescaped_.clear();
  while (line.ends_with('\r')) line.remove_suffix(1);
  line = trim(with_plain_blanks(line));
  if (syntax_.separator != ';' && line.ends_with(';')) line = trim(line.substr(0, line.size() - 1));
  if (line.empty() || begins_comment(line.front())) return Result::empty;

  for (std::size_t at = 0;;) {
    while (at < line.size() && is_blank(line[at])) ++at;
    if (at < line.size() && line[at] == kQuote) {
      if (!read_quoted(line, at)) return Result::malformed;
    } else {
      read_plain(line, at);
    }
    const std::size_t field_end = at;
    while (at < line.size() && is_blank(line[at])) ++at;
    if (at == line.size() || begins_comment(line[at])) return Result::fields;
    if (syntax_.separator == ' ' ? at == field_end : line[at] != syntax_.separator) {
      reason_ = "text after a closing quote";
      return Result::malformed;
    }
    at += syntax_.separator != ' ';
  }
}

bool LineSplitter::read_quoted(std::string_view line, std::size_t& at) {
  const std::size_t begin = ++at;
  std::size_t close = line.find(kQuote, at);
  bool escaped = false;
  while (close != line.npos && close + 1 < line.size() && line[close + 1] == kQuote) {
    escaped = true;
    close = line.find(kQuote, close + 2);
  }
  if (close == line.npos) {
    reason_ = "a quote is not closed";
    return false;
  }
  std::string_view text = line.substr(begin, close - begin);
  if (escaped) {
    std::string& copy = unescaped_.emplace_back();
    for (std::size_t i = 0; i < text.size(); ++i) {
      copy += text[i];
      i += text[i] == kQuote;
    }
    text = copy;
  }
  fields_.push_back({trim(text), true});
  at = close + 1;
  return true;
}

void LineSplitter::read_plain(std::string_view line, std::size_t& at) {
  const std::size_t begin = at;
  const auto ends = [&](char c) { return syntax_.separator == ' ' ? is_blank(c) : c == syntax_.separator; };
  while (at < line.size() && !ends(line[at]) && !(begins_comment(line[at]) && (at == begin || is_blank(line[at - 1]))))
    ++at;
  fields_.push_back({trim(line.substr(begin, at - begin)), false});
}

namespace {

constexpr char kSeparators[] = {'\t', ';', ',', ' '};  // of equally good ones the first

enum class Content { number, missing, text };

Content content_of(const Field& field, const LineSyntax& syntax) {
  double value = 0;
  if (field.text.empty()) return Content::missing;
  if (!parse_number(field.text, syntax.point, syntax.comma, value)) return Content::text;
  return std::isnan(value) ? Content::missing : Content::number;  // what is missing says nothing about its column
}

struct SampledLine {
  std::string_view text;
  std::size_t next = 0;     // where the line after it begins
  std::int64_t number = 1;  // only of the first
};

// Lines that are neither empty, comments nor far too long, from the beginning and from places spread over the text:
// what a column holds may be known late.
std::vector<SampledLine> sample_lines(std::string_view text, char comment) {
  constexpr std::size_t kPlaces = 4, kLinesOfPlace = 16, kStart = 256;
  LineSplitter splitter({.separator = ' ', .comment = comment});
  std::vector<SampledLine> lines;
  for (std::size_t place = 0; place < kPlaces; ++place) {
    std::size_t at = text.size() / kPlaces * place;
    const std::size_t end = place + 1 == kPlaces ? text.size() : text.size() / kPlaces * (place + 1);
    if (place > 0) {
      const std::size_t newline = at > 0 ? text.find('\n', at - 1) : text.npos;
      at = newline == text.npos ? text.size() : newline + 1;
    }
    std::int64_t number = 1;
    for (std::size_t taken = 0; taken < kLinesOfPlace && at < end; ++number) {
      const std::size_t newline = std::min(text.find('\n', at), text.size());
      const std::string_view line = text.substr(at, newline - at);
      at = std::min(newline + 1, text.size());
      if (line.size() > kLongestLine) continue;
      if (splitter.split(line.substr(0, kStart)) == LineSplitter::Result::empty) continue;
      lines.push_back({line, at, number});
      ++taken;
    }
  }
  return lines;
}

Encoding find_encoding(std::span<const SampledLine> lines) {
  constexpr std::size_t kMostOfLine = 65536;
  std::string sample;
  for (const SampledLine& line : lines) sample.append(line.text.substr(0, kMostOfLine)).push_back('\n');
  return detect_encoding(as_bytes(sample));
}

// How much a separator makes of the lines: numbers less texts, or as many fields as it can where there are no numbers.
std::pair<bool, std::int64_t> score(std::span<const SampledLine> lines, const LineSyntax& syntax) {
  LineSplitter splitter(syntax);
  std::int64_t numbers = 0, texts = 0, fields = 0;
  for (const SampledLine& line : lines) {
    if (splitter.split(line.text) != LineSplitter::Result::fields) continue;
    for (const Field& field : splitter.fields()) {
      const Content content = content_of(field, syntax);
      numbers += content == Content::number;
      texts += content == Content::text;
      ++fields;
    }
  }
  return {numbers > 0, numbers > 0 ? numbers - texts : fields};
}

char find_separator(std::span<const SampledLine> lines, LineSyntax syntax) {
  char best = ' ';
  std::pair best_score{false, std::numeric_limits<std::int64_t>::min()};
  for (const char candidate : kSeparators) {
    const bool occurs = std::any_of(lines.begin(), lines.end(), [&](const SampledLine& line) {
      return line.text.find(candidate) != line.text.npos;
    });
    if ((!occurs && candidate != ' ') || candidate == syntax.comment) continue;
    syntax.separator = candidate;
    const auto found = score(lines, syntax);
    if (found > best_score) {
      best = candidate;
      best_score = found;
    }
  }
  return best;
}

struct Columns {
  std::size_t count = 0;
  std::vector<int> numbers, texts;  // fields of each kind
  bool open_ended = false;          // the last field is empty in all lines
};

// The form of most lines; of equally many the wider one.
Columns find_columns(std::span<const SampledLine> lines, const LineSyntax& syntax) {
  LineSplitter splitter(syntax);
  std::map<std::size_t, int> forms;
  for (const SampledLine& line : lines) {
    if (splitter.split(line.text) == LineSplitter::Result::fields) ++forms[splitter.fields().size()];
  }
  Columns columns;
  int most = 0;
  for (const auto& [count, number] : forms) {
    if (number >= most) columns.count = count;
    most = std::max(most, number);
  }
  columns.numbers.resize(columns.count);
  columns.texts.resize(columns.count);
  columns.open_ended = columns.count > 1;
  for (const SampledLine& line : lines) {
    if (splitter.split(line.text) != LineSplitter::Result::fields) continue;
    const std::vector<Field>& fields = splitter.fields();
    if (fields.size() != columns.count) continue;
    for (std::size_t c = 0; c < columns.count; ++c) {
      const Content content = content_of(fields[c], syntax);
      columns.numbers[c] += content == Content::number;
      columns.texts[c] += content == Content::text;
    }
    columns.open_ended &= fields.back().text.empty() && !fields.back().quoted;
  }
  return columns;
}

// Whether the fields of the first line name columns: text stands where numbers are expected. Of a line that has not as
// many fields as the others, any text says that it is no row.
bool is_header(std::span<const Field> first, const Columns& columns, const LineSyntax& syntax, bool only_line) {
  bool any_number = false, any_text = false, misplaced_text = false;
  for (std::size_t c = 0; c < first.size(); ++c) {
    const Content content = content_of(first[c], syntax);
    any_number |= content == Content::number;
    any_text |= content == Content::text;
    misplaced_text |=
        content == Content::text && (first.size() != columns.count || columns.numbers[c] > columns.texts[c]);
  }
  return only_line ? any_text && !any_number : misplaced_text;
}

void check_options(const DelimitedOptions& options) {
  for (const char special : {options.separator, options.comment}) {
    if (special != 0 && (std::strchr("0123456789+-.eE\"\r\n", special) != nullptr || is_beyond_ascii(special))) {
      throw ConfigError(
          fmt::format("[read_delimited] separator and comment must not be part of a number, a quote, an end of line or "
                      "beyond ASCII, "
                      "got character {}",
                      static_cast<int>(static_cast<unsigned char>(special))));
    }
  }
  if (options.separator != 0 && options.separator == options.comment) {
    throw ConfigError(
        fmt::format("[read_delimited] separator and comment must differ, both are '{}'", options.separator));
  }
  if (options.columns < 0 || options.threads < 0 || options.report_malformed < 0) {
    throw ConfigError(
        fmt::format("[read_delimited] columns, threads and report_malformed must not be negative, got {}, {}, {}",
                    options.columns, options.threads, options.report_malformed));
  }
}

}  // namespace

DelimitedFormat find_format(std::string_view text, const DelimitedOptions& options) {
  using Header = DelimitedOptions::Header;
  check_options(options);
  DelimitedFormat format;
  LineSyntax& syntax = format.syntax;
  syntax.comment = options.comment;
  syntax.point = options.decimal != DelimitedOptions::Decimal::comma;
  syntax.comma = options.decimal != DelimitedOptions::Decimal::point;
  format.columns = static_cast<std::size_t>(std::max(1, options.columns));
  format.is_text.resize(format.columns);

  constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";
  format.body = text.starts_with(kUtf8Mark) ? kUtf8Mark.size() : 0;
  const std::vector<SampledLine> lines = sample_lines(text.substr(format.body), options.comment);
  if (lines.empty()) return format;
  syntax.encoding = options.encoding != Encoding::automatic ? options.encoding : find_encoding(lines);

  const bool only_line = lines.size() == 1;
  std::span<const SampledLine> rows(lines);
  if (options.header != Header::no && !only_line) rows = rows.subspan(1);
  syntax.separator = options.separator != 0 ? options.separator : find_separator(rows, syntax);
  Columns columns = find_columns(rows, syntax);
  LineSplitter splitter(syntax);
  std::span<const Field> first;
  if (splitter.split(lines[0].text) == LineSplitter::Result::fields) first = splitter.fields();

  const bool has_header = options.header == Header::yes ||
                          (options.header == Header::automatic && is_header(first, columns, syntax, only_line));
  // A separator behind each field ends the header too; otherwise the last column merely lacks its values.
  const bool last_is_named = has_header && first.size() == columns.count && !first.back().text.empty();
  if (columns.open_ended && !last_is_named) --columns.count;
  if (options.columns == 0) format.columns = std::max<std::size_t>(1, columns.count);
  if (has_header) {
    const SampledLine& line = lines[0];
    format.header = to_utf8(as_bytes(line.text.substr(0, line.text.find_last_not_of('\r') + 1)), syntax.encoding);
    if (first.size() == format.columns + 1 && first.back().text.empty()) first = first.first(format.columns);
    if (first.size() == format.columns) {
      for (const Field& field : first) format.names.push_back(to_utf8(as_bytes(field.text), syntax.encoding));
    }
    format.body += line.next;
    format.body_line = line.number + 1;
  }
  format.is_text.resize(format.columns);
  for (std::size_t c = 0; c < std::min(format.columns, columns.count); ++c) {
    format.is_text[c] = columns.texts[c] > columns.numbers[c] && !(only_line && has_header);
    format.has_text |= format.is_text[c] != 0;
  }
  return format;
}

}  // namespace mmtrain::media::detail
