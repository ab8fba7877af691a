#include "mmtrain/media/csv.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "media/column_names.h"
#include "mmtrain/core/error.h"
#include "mmtrain/io/mapped_file.h"

namespace mmtrain::media {
namespace {

constexpr char kQuote = '"';
constexpr std::size_t kMostReported = 20;

bool ends_line(char c) { return c == '\n' || c == '\r'; }

}  // namespace

CsvReader::CsvReader(const std::filesystem::path& path, const CsvOptions& options)
    : CsvReader(MappedFile(path).bytes(), path.string(), options) {}

CsvReader::CsvReader(std::span<const std::byte> text, std::string name, const CsvOptions& options)
    : options_(options), name_(std::move(name)), text_(to_utf8(text, options.encoding)) {
  if (options_.separator == kQuote || ends_line(options_.separator)) {
    throw ConfigError("[CsvReader] the separator must be neither a quote nor an end of line");
  }
  if (options_.header) read_header();
}

void CsvReader::read_header() {
  skip_empty_lines();
  line_ = next_.line;
  if (next_.offset == text_.size()) throw DataError(fmt::format("[CsvReader] {}: empty, a header is expected", name_));
  if (!read_record())
    throw DataError(fmt::format("[CsvReader] {}:{}: a quote of the header is not closed", name_, line_));
  columns_ = fields_.size();
  names_ = std::exchange(fields_, {});
}

std::size_t CsvReader::column(std::string_view name) const {
  return detail::find_name(fmt::format("[CsvReader] {}:", name_), name, names_);
}

bool CsvReader::has_column(std::string_view name) const {
  return std::find(names_.begin(), names_.end(), name) != names_.end();
}

bool CsvReader::next() {
  for (skip_empty_lines(); next_.offset < text_.size(); skip_empty_lines()) {
    const Cursor start = next_;
    line_ = start.line;
    const bool closed = read_record();
    if (closed && columns_ == 0) columns_ = fields_.size();
    if (closed && fields_.size() == columns_) return true;
    report(closed ? fmt::format("{} field{} where {} are expected", fields_.size(), fields_.size() == 1 ? "" : "s",
                                columns_)
                  : std::string("a quote is not closed"));
    // What the quote seemed to hold may be records.
    next_ = start;
    skip_line();
  }
  fields_.clear();
  return false;
}

void CsvReader::skip_empty_lines() {
  while (next_.offset < text_.size() && ends_line(text_[next_.offset])) skip_line();
}

void CsvReader::skip_line() {
  const std::size_t end = std::min(text_.find_first_of("\r\n", next_.offset), text_.size());
  next_.offset = std::min(end + (text_.compare(end, 2, "\r\n") == 0 ? 2 : 1), text_.size());
  ++next_.line;
}

// Reads fields up to the end of the record and goes behind it; false if a quote is open at the end of the text.
bool CsvReader::read_record() {
  std::size_t& at = next_.offset;
  std::size_t count = 0;
  for (bool more = true; more;) {
    if (count == fields_.size()) fields_.emplace_back();
    std::string& field = fields_[count++];
    field.clear();
    if (at < text_.size() && text_[at] == kQuote) {
      for (++at;; at += 2) {
        const std::size_t quote = text_.find(kQuote, at);
        if (quote == text_.npos) {
          fields_.resize(count);
          return false;
        }
        field.append(text_, at, quote - at);
        at = quote;
        if (text_.compare(at, 2, "\"\"") != 0) break;
        field += kQuote;
      }
      ++at;
      for (std::size_t i = 0; i < field.size(); ++i) {
        next_.line += field[i] == '\n' || (field[i] == '\r' && field.compare(i, 2, "\r\n") != 0);
      }
    }
    const std::size_t begin = at;
    while (at < text_.size() && text_[at] != options_.separator && !ends_line(text_[at])) ++at;
    field.append(text_, begin, at - begin);
    more = at < text_.size() && text_[at] == options_.separator;
    if (more) ++at;
  }
  fields_.resize(count);
  if (at < text_.size()) skip_line();
  return true;
}

void CsvReader::report(std::string reason) {
  ++malformed_count_;
  if (malformed_.size() < kMostReported) malformed_.push_back({line_, std::move(reason)});
}

}  // namespace mmtrain::media
