#include "media/delimited_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

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
  while (at < line.size() && !ends(line[at]) && !begins_comment(line[at])) ++at;
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

// Lines that are neither empty nor comments, from the beginning and from places spread over the text: what a column
// holds may be known late.
std::vector<SampledLine> sample_lines(std::string_view text, char comment) {
  constexpr std::size_t kPlaces = 4, kLinesOfPlace = 16;
  LineSplitter splitter({.separator = ' ', .comment = comment});
  std::vector<SampledLine> lines;
  for (std::size_t place = 0; place < kPlaces; ++place) {
    std::size_t at = text.size() / kPlaces * place;
    const std::size_t end = place + 1 == kPlaces ? text.size() : text.size() / kPlaces * (place + 1);
    if (place > 0) {
      const std::size_t newline = text.find('\n', at);
      at = newline == text.npos ? text.size() : newline + 1;
    }
    std::int64_t number = 1;
    for (std::size_t taken = 0; taken < kLinesOfPlace && at < end; ++number) {
      const std::size_t newline = std::min(text.find('\n', at), text.size());
      const std::string_view line = text.substr(at, newline - at);
      at = std::min(newline + 1, text.size());
      std::string_view start = line.substr(0, 4096);
      if (splitter.split(start) == LineSplitter::Result::empty) continue;
      lines.push_back({line, at, number});
      ++taken;
    }
  }
  return lines;
}

// Numbers found minus texts found.
std::int64_t score(std::span<const SampledLine> lines, const LineSyntax& syntax) {
  LineSplitter splitter(syntax);
  std::int64_t total = 0;
  for (const SampledLine& line : lines) {
    if (splitter.split(line.text) != LineSplitter::Result::fields) continue;
    for (const Field& field : splitter.fields()) {
      const Content content = content_of(field, syntax);
      total += content == Content::number ? 1 : content == Content::text ? -1 : 0;
    }
  }
  return total;
}

char find_separator(std::span<const SampledLine> lines, LineSyntax syntax) {
  char best = ' ';
  std::optional<std::int64_t> best_score;
  for (const char candidate : kSeparators) {
    const bool occurs = std::any_of(lines.begin(), lines.end(), [&](const SampledLine& line) {
      return line.text.find(candidate) != line.text.npos;
    });
    if ((!occurs && candidate != ' ') || candidate == syntax.comment) continue;
    syntax.separator = candidate;
    const std::int64_t found = score(lines, syntax);
    if (!best_score || found > *best_score) {
      best = candidate;
      best_score = found;
    }
  }
  return best;
}

struct Columns {
  std::size_t count = 0;
  std::vector<int> numbers, texts;  // fields of each kind
};

// The form of most lines; of equally many the wider one.
Columns find_columns(std::span<const SampledLine> lines, const LineSyntax& syntax) {
  LineSplitter splitter(syntax);
  struct Form {
    int lines = 0, open_ended = 0;  // the last field is empty
    Columns columns;
  };
  std::map<std::size_t, Form> forms;
  for (const SampledLine& line : lines) {
    if (splitter.split(line.text) != LineSplitter::Result::fields) continue;
    const auto& fields = splitter.fields();
    Form& form = forms[fields.size()];
    ++form.lines;
    form.open_ended += fields.back().text.empty() && !fields.back().quoted;
    form.columns.count = fields.size();
    form.columns.numbers.resize(fields.size());
    form.columns.texts.resize(fields.size());
    for (std::size_t c = 0; c < fields.size(); ++c) {
      const Content content = content_of(fields[c], syntax);
      form.columns.numbers[c] += content == Content::number;
      form.columns.texts[c] += content == Content::text;
    }
  }
  if (forms.empty()) return {};
  const auto best = std::max_element(forms.begin(), forms.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second.lines, a.first) < std::pair(b.second.lines, b.first);
  });
  Form& form = best->second;
  // Perhaps the separator stands after each field.
  if (form.open_ended == form.lines && form.columns.count > 1) {
    --form.columns.count;
    form.columns.numbers.pop_back();
    form.columns.texts.pop_back();
    form.open_ended = 0;
  }
  return form.columns;
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
  check_options(options);
  DelimitedFormat format;
  LineSyntax& syntax = format.syntax;
  syntax.comment = options.comment;
  syntax.point = options.decimal != DelimitedOptions::Decimal::comma;
  syntax.comma = options.decimal != DelimitedOptions::Decimal::point;

  constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";
  const std::size_t begin = text.starts_with(kUtf8Mark) ? kUtf8Mark.size() : 0;
  format.body = begin;
  std::vector<SampledLine> lines = sample_lines(text.substr(begin), options.comment);
  if (lines.empty()) {
    format.columns = static_cast<std::size_t>(options.columns);
    format.is_text.assign(format.columns, 0);
    return format;
  }
  syntax.encoding = options.encoding;
  if (syntax.encoding == Encoding::automatic) {
    std::string sample;
    for (const SampledLine& line : lines) sample.append(line.text.substr(0, 65536)).push_back('\n');
    syntax.encoding = detect_encoding(as_bytes(sample));
  }

  std::span<const SampledLine> data(lines);
  if (options.header != DelimitedOptions::Header::no && lines.size() > 1) data = data.subspan(1);
  syntax.separator = options.separator != 0 ? options.separator : find_separator(data, syntax);
  Columns columns = find_columns(data, syntax);
  LineSplitter splitter(syntax);
  const bool first_splits = splitter.split(lines[0].text) == LineSplitter::Result::fields;
  std::vector<Field> first = first_splits ? splitter.fields() : std::vector<Field>{};
  // A header tells a last column without a single value from a separator after each field.
  if (options.columns > 0) {
    columns.count = static_cast<std::size_t>(options.columns);
  } else if (first.size() == columns.count + 1 && !first.back().text.empty() && data.size() < lines.size() &&
             content_of(first.back(), syntax) == Content::text) {
    const bool open_ended = std::all_of(data.begin(), data.end(), [&](const SampledLine& line) {
      LineSplitter other(syntax);
      return other.split(line.text) != LineSplitter::Result::fields || other.fields().size() == first.size();
    });
    if (open_ended) columns.count = first.size();
  }
  columns.numbers.resize(columns.count);
  columns.texts.resize(columns.count);
  format.columns = columns.count;
  format.is_text.assign(columns.count, 0);
  for (std::size_t c = 0; c < columns.count; ++c) format.is_text[c] = columns.texts[c] > columns.numbers[c];

  bool has_header = options.header == DelimitedOptions::Header::yes;
  if (options.header == DelimitedOptions::Header::automatic) {
    const bool matches = first.size() == columns.count;
    bool any_number = false;
    for (std::size_t c = 0; c < first.size(); ++c) {
      const Content content = content_of(first[c], syntax);
      any_number |= content == Content::number;
      // Text where numbers are expected; in a torn or foreign line, any text.
      has_header |= content == Content::text && (!matches || columns.numbers[c] > columns.texts[c]);
    }
    if (lines.size() == 1) has_header = !any_number;
  }
  if (has_header) {
    format.header = to_utf8(as_bytes(lines[0].text), syntax.encoding);
    while (format.header.ends_with('\r')) format.header.pop_back();
    if (first.size() == columns.count + 1 && first.back().text.empty()) first.pop_back();
    if (first.size() == columns.count) {
      for (const Field& field : first) format.names.push_back(to_utf8(as_bytes(field.text), syntax.encoding));
    }
    format.body = begin + lines[0].next;
    format.body_line = lines[0].number + 1;
  }
  format.has_text = std::any_of(format.is_text.begin(), format.is_text.end(), [](char is) { return is != 0; });
  if (lines.size() == 1 && has_header) {
    format.is_text.assign(columns.count, 0);
    format.has_text = false;
  }
  return format;
}

}  // namespace mmtrain::media::detail
