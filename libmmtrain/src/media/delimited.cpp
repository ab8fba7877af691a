#include "mmtrain/media/delimited.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "core/parallel_for.h"
#include "media/column_names.h"
#include "media/delimited_reader.h"
#include "media/number.h"
#include "mmtrain/core/error.h"

namespace mmtrain::media {
namespace detail {
namespace {

std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

// Text of unknown origin for a message.
std::string readable(std::string_view text, Encoding encoding) {
  constexpr std::size_t kLongest = 40;
  std::string result = to_utf8(as_bytes(text.substr(0, kLongest)), encoding);
  std::replace_if(
      result.begin(), result.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, ' ');
  return text.size() > kLongest ? result + "..." : result;
}

// In lanes of bytes, which compilers turn into vectors; std::count widens each byte to 64 bits.
std::int64_t count_newlines(std::string_view text) {
  constexpr std::size_t kLanes = 64, kSteps = 255;  // a lane counts up to 255
  std::int64_t total = 0;
  while (text.size() >= kLanes) {
    std::uint8_t counts[kLanes] = {};
    const std::size_t steps = std::min(kSteps, text.size() / kLanes);
    for (std::size_t step = 0; step < steps; ++step) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) counts[lane] += text[step * kLanes + lane] == '\n';
    }
    total = std::accumulate(std::begin(counts), std::end(counts), total);
    text.remove_prefix(steps * kLanes);
  }
  return total + std::count(text.begin(), text.end(), '\n');
}

}  // namespace

int Categories::number_of(std::string_view text) {
  if (last_ < texts_.size() && texts_[last_] == text) return static_cast<int>(last_);
  if (const auto found = numbers_.find(text); found != numbers_.end()) {
    last_ = static_cast<std::size_t>(found->second);
    return found->second;
  }
  if (texts_.size() == kMost) too_many_ = true;
  if (too_many_) return -1;
  last_ = texts_.size();
  texts_.emplace_back(text);
  numbers_.emplace(text, static_cast<int>(last_));
  return static_cast<int>(last_);
}

template <class T>
DelimitedReader<T>::DelimitedReader(std::string_view text, const DelimitedOptions& options, const MappedFile* file,
                                    const DelimitedTuning& tuning)
    : text_(text),
      file_(file),
      tuning_(tuning),
      threads_(options.threads > 0 ? options.threads : mmtrain::detail::machine_threads()),
      report_malformed_(static_cast<std::size_t>(std::max(0, options.report_malformed))),
      format_(find_format(text, options)),
      columns_(format_.columns),
      short_limit_(tuning.short_rows && text.size() > static_cast<std::size_t>(kShortNumberRoom)
                       ? text.data() + text.size() - kShortNumberRoom
                       : text.data()) {
  constexpr char kNone = '0';  // never stands behind all digits
  mark_ = format_.syntax.point ? '.' : kNone;
  other_mark_ = format_.syntax.comma && format_.syntax.separator != ',' ? ',' : kNone;
}

template <class T>
BasicTable<T> DelimitedReader<T>::read() {
  table_.columns_ = static_cast<std::int64_t>(columns_);
  table_.names_ = format_.names;
  table_.header_ = format_.header;
  table_.categories_.resize(columns_);
  cut();
  for_each_chunk([this](Chunk& chunk) { count_lines(chunk); });
  std::int64_t line = format_.body_line, row = 0;
  for (Chunk& chunk : chunks_) {
    chunk.first_line = std::exchange(line, line + chunk.lines);
    chunk.first_row = std::exchange(row, row + chunk.room);
  }
  table_.values_ = std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(row) * columns_);
  for_each_chunk([this](Chunk& chunk) { parse(chunk); });
  if (format_.has_text) join_categories();
  close_gaps();
  join_malformed();
  return std::move(table_);
}

// Each chunk ends behind the line in which its last byte lies.
template <class T>
void DelimitedReader<T>::cut() {
  const char *p = text_.data() + format_.body, *const end = text_.data() + text_.size();
  while (p < end) {
    Chunk& chunk = chunks_.emplace_back();
    chunk.begin = p;
    const auto left = static_cast<std::size_t>(end - p);
    const char* newline = nullptr;
    if (left > tuning_.chunk) {
      newline = static_cast<const char*>(std::memchr(p + tuning_.chunk - 1, '\n', left - tuning_.chunk + 1));
    }
    chunk.end = p = newline != nullptr ? newline + 1 : end;
    release(chunk);  // one byte touched may have brought in megabytes
  }
}

template <class T>
void DelimitedReader<T>::for_each_chunk(const std::function<void(Chunk&)>& work) {
  if (threads_ == 1 || chunks_.size() < 2) {
    for (Chunk& chunk : chunks_) work(chunk);
  } else {
    mmtrain::detail::parallel_for(threads_, static_cast<std::int64_t>(chunks_.size()),
                                  [&](std::int64_t i) { work(chunks_[static_cast<std::size_t>(i)]); });
  }
}

template <class T>
void DelimitedReader<T>::count_lines(Chunk& chunk) const {
  chunk.lines = count_newlines({chunk.begin, chunk.end}) + (chunk.end[-1] != '\n');
  // A row has a separator or an end of line for each field, so what empty lines could ask for is not needed.
  chunk.room = std::min(chunk.lines, (chunk.end - chunk.begin) / static_cast<std::int64_t>(columns_) + 1);
  release(chunk);
}

template <class T>
void DelimitedReader<T>::release(const Chunk& chunk) const {
  if (file_ == nullptr) return;
  const char* const base = reinterpret_cast<const char*>(file_->bytes().data());
  file_->release(static_cast<std::size_t>(chunk.begin - base), static_cast<std::size_t>(chunk.end - chunk.begin));
}

template <class T>
void DelimitedReader<T>::parse(Chunk& chunk) const {
  Scratch scratch{LineSplitter(format_.syntax), std::vector<std::string_view>(format_.has_text ? columns_ : 0)};
  if (format_.has_text) chunk.categories.resize(columns_);
  auto read_short = format_.syntax.separator == ' ' ? &DelimitedReader::read_short_row<true, false>
                                                    : &DelimitedReader::read_short_row<false, false>;
  if (format_.has_text) {
    read_short = format_.syntax.separator == ' ' ? &DelimitedReader::read_short_row<true, true>
                                                 : &DelimitedReader::read_short_row<false, true>;
  }
  T* row = table_.values_.get() + chunk.first_row * table_.columns_;
  const char* const text_end = text_.data() + text_.size();
  const char* p = chunk.begin;
  for (std::int64_t line = chunk.first_line; p < chunk.end; ++line) {
    const char* next = (this->*read_short)(p, row, scratch);
    bool is_row = next != nullptr;
    if (!is_row) {
      const auto* newline = static_cast<const char*>(std::memchr(p, '\n', static_cast<std::size_t>(text_end - p)));
      next = newline != nullptr ? newline + 1 : text_end;
      std::string reason = read_line({p, static_cast<std::size_t>(next - p)}, is_row, row, scratch);
      if (!reason.empty()) {
        if (newline == nullptr) reason += "; the file ends within this line";
        if (chunk.malformed.size() < report_malformed_) chunk.malformed.push_back({line, std::move(reason)});
        ++chunk.malformed_count;
      }
    }
    if (is_row) {
      if (format_.has_text) number_texts(chunk, row, scratch);
      ++chunk.rows;
      row += columns_;
    }
    p = next;
  }
  release(chunk);
}

// The row that begins at `p`, if its numbers are short and nothing else is unusual; returns where the next line begins,
// or null. Whatever this takes, `read_line` takes as the same row.
template <class T>
template <bool kBlankRuns, bool kTexts>
const char* DelimitedReader<T>::read_short_row(const char* p, T* row, Scratch& scratch) const {
  const char separator = format_.syntax.separator;
  const char* const end = text_.data() + text_.size();
  const auto is_blank = [separator](char c) { return c == ' ' || (c == '\t' && (kBlankRuns || separator != '\t')); };
  for (std::size_t column = 0;;) {
    while (p < short_limit_ && is_blank(*p)) ++p;
    if (p >= short_limit_) return nullptr;
    if (kTexts && format_.is_text[column]) {
      const char* const begin = p;
      p = skip_text(p);
      // An empty line is no row, even where one text without letters would make one.
      if (p == nullptr || ((kBlankRuns || columns_ == 1) && p == begin)) return nullptr;
      scratch.texts[column] = {begin, static_cast<std::size_t>(p - begin)};
    } else {
      p = read_short_number(p, mark_, other_mark_, row[column]);
      if (p == nullptr) return nullptr;
    }
    const char* const field_end = p;
    while (is_blank(*p)) {
      if (++p == end) return nullptr;
    }
    if (++column == columns_) break;
    if (kBlankRuns ? p == field_end : *p != separator) return nullptr;
    p += !kBlankRuns;
  }
  if (*p == ';' || (!kBlankRuns && *p == separator)) {
    if (++p == end) return nullptr;
  }
  if (*p == '\r') {
    if (++p == end) return nullptr;
  }
  return *p == '\n' ? p + 1 : nullptr;
}

// The end of an unquoted ASCII text without blanks in it; null for other ones.
template <class T>
const char* DelimitedReader<T>::skip_text(const char* p) const {
  const LineSyntax& syntax = format_.syntax;
  for (; p < short_limit_; ++p) {
    const char c = *p;
    if (c == syntax.separator || c == '\n' || c == '\r' || c == ' ' || c == '\t' || c == ';') return p;
    if (c == '"' || c < 0 || (syntax.comment != 0 && c == syntax.comment)) return nullptr;
  }
  return nullptr;
}

// Any line, with or without its line feed. Returns why it is malformed; empty where it is not.
template <class T>
std::string DelimitedReader<T>::read_line(std::string_view line, bool& is_row, T* row, Scratch& scratch) const {
  is_row = false;
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.size() > kLongestLine) return fmt::format("longer than {} bytes", kLongestLine);
  const LineSplitter::Result result = scratch.splitter.split(line);
  if (result == LineSplitter::Result::empty) return {};
  if (result == LineSplitter::Result::malformed) return scratch.splitter.reason();
  std::span<const Field> fields(scratch.splitter.fields());
  if (fields.size() == columns_ + 1 && fields.back().text.empty() && !fields.back().quoted) {
    fields = fields.first(columns_);
  }
  if (fields.size() != columns_) {
    return fmt::format("{} field{} where {} are expected", fields.size(), fields.size() == 1 ? "" : "s", columns_);
  }
  for (std::size_t c = 0; c < columns_; ++c) {
    if (format_.is_text[c]) {
      scratch.texts[c] = fields[c].text;
    } else if (!parse_number(fields[c].text, format_.syntax.point, format_.syntax.comma, row[c])) {
      return fmt::format("'{}' in {} is not a number", readable(fields[c].text, format_.syntax.encoding),
                         column_name(c));
    }
  }
  is_row = true;
  return {};
}

template <class T>
std::string DelimitedReader<T>::column_name(std::size_t column) const {
  return format_.names.empty() ? fmt::format("column {}", column + 1)
                               : fmt::format("column {} ('{}')", column + 1, format_.names[column]);
}

template <class T>
void DelimitedReader<T>::number_texts(Chunk& chunk, T* row, const Scratch& scratch) const {
  for (std::size_t c = 0; c < columns_; ++c) {
    if (!format_.is_text[c]) continue;
    const std::string_view text = scratch.texts[c];
    const int number = text.empty() ? -1 : chunk.categories[c].number_of(text);
    row[c] = number < 0 ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(number);
  }
}

// Chunks have numbered their texts by themselves.
template <class T>
void DelimitedReader<T>::join_categories() {
  std::vector<Categories> joined(columns_);
  std::vector<std::vector<std::vector<int>>> numbers(chunks_.size());  // [chunk][column][number in it]
  for (std::size_t k = 0; k < chunks_.size(); ++k) {
    numbers[k].resize(columns_);
    for (std::size_t c = 0; c < columns_; ++c) {
      if (!format_.is_text[c]) continue;
      if (chunks_[k].categories[c].too_many()) joined[c] = chunks_[k].categories[c];
      for (const std::string& text : chunks_[k].categories[c].texts())
        numbers[k][c].push_back(joined[c].number_of(text));
    }
  }
  for_each_chunk([&](Chunk& chunk) {
    const auto& of_chunk = numbers[static_cast<std::size_t>(&chunk - chunks_.data())];
    for (std::size_t c = 0; c < columns_; ++c) {
      if (!format_.is_text[c]) continue;
      T* value = table_.values_.get() + chunk.first_row * table_.columns_ + c;
      for (std::int64_t row = 0; row < chunk.rows; ++row, value += columns_) {
        if (joined[c].too_many()) {
          *value = std::numeric_limits<T>::quiet_NaN();
        } else if (*value >= 0) {
          *value = static_cast<T>(of_chunk[c][static_cast<std::size_t>(*value)]);
        }
      }
    }
  });
  for (std::size_t c = 0; c < columns_; ++c) {
    if (joined[c].too_many()) continue;
    for (const std::string& text : joined[c].texts()) {
      table_.categories_[c].push_back(to_utf8(as_bytes(text), format_.syntax.encoding));
    }
  }
}

template <class T>
void DelimitedReader<T>::close_gaps() {
  std::int64_t end = 0;
  T* const values = table_.values_.get();
  for (const Chunk& chunk : chunks_) {
    if (chunk.first_row != end && chunk.rows > 0) {
      std::memmove(values + end * table_.columns_, values + chunk.first_row * table_.columns_,
                   static_cast<std::size_t>(chunk.rows * table_.columns_) * sizeof(T));
    }
    end += chunk.rows;
  }
  table_.rows_ = end;
}

template <class T>
void DelimitedReader<T>::join_malformed() {
  for (Chunk& chunk : chunks_) {
    table_.malformed_count_ += chunk.malformed_count;
    for (MalformedLine& line : chunk.malformed) {
      if (table_.malformed_.size() < report_malformed_) table_.malformed_.push_back(std::move(line));
    }
  }
}

template class DelimitedReader<float>;
template class DelimitedReader<double>;

}  // namespace detail

template <class T>
void BasicTable<T>::throw_outside(std::int64_t row, std::int64_t length, std::int64_t rows) {
  throw DataError(fmt::format("[Table] rows {} to {} are not inside a table of {} rows", row, row + length, rows));
}

template <class T>
std::int64_t BasicTable<T>::find_column(std::string_view name, const std::vector<std::string>& names) {
  return static_cast<std::int64_t>(detail::find_name("[Table]", name, names));
}

template class BasicTable<float>;
template class BasicTable<double>;

namespace {

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The whole lines of the first `max_bytes`.
std::span<const std::byte> beginning(std::span<const std::byte> text, std::uintmax_t max_bytes) {
  if (max_bytes == 0 || text.size() <= max_bytes) return text;
  text = text.first(static_cast<std::size_t>(max_bytes));
  const auto feed = std::find(text.rbegin(), text.rend(), std::byte{'\n'});
  return text.first(static_cast<std::size_t>(text.rend() - feed));
}

template <class T>
BasicTable<T> parse(std::span<const std::byte> all, const DelimitedOptions& options, const MappedFile* file = nullptr) {
  const std::span<const std::byte> text = beginning(all, options.max_bytes);
  const Encoding encoding = options.encoding == Encoding::automatic
                                ? detect_encoding(text.first(std::min<std::size_t>(text.size(), 2)))
                                : options.encoding;
  if (encoding == Encoding::utf16) {
    const std::string converted = to_utf8(text, Encoding::utf16);
    DelimitedOptions utf8 = options;
    utf8.encoding = Encoding::utf8;
    return detail::DelimitedReader<T>(converted, utf8).read();
  }
  return detail::DelimitedReader<T>(as_text(text), options, file).read();
}

template <class T>
BasicTable<T> read(const std::filesystem::path& path, const DelimitedOptions& options) {
  const MappedFile file(path);
  return parse<T>(file.bytes(), options, &file);
}

}  // namespace

Table read_delimited(const std::filesystem::path& path, const DelimitedOptions& options) {
  return read<float>(path, options);
}
TableDouble read_delimited_double(const std::filesystem::path& path, const DelimitedOptions& options) {
  return read<double>(path, options);
}
Table parse_delimited(std::span<const std::byte> text, const DelimitedOptions& options) {
  return parse<float>(text, options);
}
TableDouble parse_delimited_double(std::span<const std::byte> text, const DelimitedOptions& options) {
  return parse<double>(text, options);
}

}  // namespace mmtrain::media
