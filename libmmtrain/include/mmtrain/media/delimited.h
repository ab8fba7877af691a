#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/media/text.h"

/// Recordings as delimited text: one row a line, numbers between separators. For records of text, as annotations are,
/// see `media/csv.h`.
namespace mmtrain::media {

/// What is known of a file; everything else is found out from 64 lines spread over it.
struct DelimitedOptions {
  /// Whether the first line that is neither empty nor a comment names the columns.
  enum class Header { automatic, yes, no };
  /// What stands before the decimals. `automatic` takes both, the comma only where it is not the separator or the
  /// number is quoted.
  enum class Decimal { automatic, point, comma };

  char separator = 0;  ///< 0: found out among tab, `;`, `,` and runs of blanks, which are ' '
  Header header = Header::automatic;
  Decimal decimal = Decimal::automatic;
  Encoding encoding = Encoding::automatic;
  char comment = '#';            ///< begins a comment where a line or a field could begin; 0: nothing does
  int columns = 0;               ///< fields of a row; 0: as many as most lines have
  int threads = 0;               ///< that parse; 0: those of the machine. The result does not depend on them.
  int report_malformed = 20;     ///< so many malformed lines are kept with their reasons; all are counted
  std::uintmax_t max_bytes = 0;  ///< of a longer text only the whole lines that begin it are read; 0: all
};

namespace detail {
template <class T>
class DelimitedReader;
}

/// Rows of numbers: `[rows, columns]`, row-major, without gaps. A column whose fields are text holds numbers of
/// categories. Missing values (empty, NaN, NA, null ...) are NaN.
template <class T>
class BasicTable {
 public:
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  std::span<const T> values() const { return {values_.get(), static_cast<std::size_t>(rows_ * columns_)}; }
  T at(std::int64_t row, std::int64_t column) const { return window(row, 1)[static_cast<std::size_t>(column)]; }

  /// `length` rows from `row` on, `[length, columns]`: a view of this table. Throws `DataError` where it is not inside.
  std::span<const T> window(std::int64_t row, std::int64_t length) const {
    if (row < 0 || length < 0 || length > rows_ - row) throw_outside(row, length, rows_);
    return values().subspan(static_cast<std::size_t>(row * columns_), static_cast<std::size_t>(length * columns_));
  }
  /// Windows of `length` rows that begin `stride` rows apart and lie inside.
  std::int64_t window_count(std::int64_t length, std::int64_t stride) const {
    return rows_ < length ? 0 : (rows_ - length) / stride + 1;
  }

  /// Of all columns, in UTF-8, or none: a header whose fields are not as many as the columns names nothing.
  const std::vector<std::string>& names() const { return names_; }
  /// The whole line of the header in UTF-8; empty without one.
  const std::string& header() const { return header_; }
  /// The column called `name`. Throws `DataError` listing those that exist.
  std::int64_t column(std::string_view name) const { return find_column(name, names_); }
  /// The texts that the numbers 0, 1, ... of a column stand for, in the order of their first lines; empty for a column
  /// of numbers. A column of more than 4096 different texts (times of day, say) has none and is all NaN.
  const std::vector<std::string>& categories(std::int64_t column) const {
    return categories_.at(static_cast<std::size_t>(column));
  }

  /// Lines that are no row and were left out, and the first of them. Empty lines and comments do not count.
  std::int64_t malformed_count() const { return malformed_count_; }
  const std::vector<MalformedLine>& malformed() const { return malformed_; }

 private:
  friend class detail::DelimitedReader<T>;
  [[noreturn]] MMTRAIN_API static void throw_outside(std::int64_t row, std::int64_t length, std::int64_t rows);
  MMTRAIN_API static std::int64_t find_column(std::string_view name, const std::vector<std::string>& names);

  std::unique_ptr<T[]> values_;
  std::int64_t rows_ = 0, columns_ = 0;
  std::vector<std::string> names_;
  std::string header_;
  std::vector<std::vector<std::string>> categories_;
  std::int64_t malformed_count_ = 0;
  std::vector<MalformedLine> malformed_;
};

/// Float has 24 bits: enough for sensors, not for clocks (milliseconds since 1970 come in steps of 131 s).
using Table = BasicTable<float>;
using TableDouble = BasicTable<double>;

/// Reads a file. Every number is the one nearest to its text. A line is a row or malformed, whatever stands around it:
/// a quoted field ends in its line (`"1,5"`, `"a ""b"""`), and the last line needs no line feed. UTF-8 byte order
/// marks, CRLF, ideographic spaces and a separator or `;` at the end of lines are taken as what they are. The file is
/// mapped: beside the result only some MB are used, but for UTF-16, which is converted in memory.
///
/// Throws `DataError` if the file cannot be read, and `ConfigError` for options that make no sense.
MMTRAIN_API Table read_delimited(const std::filesystem::path& path, const DelimitedOptions& options = {});
MMTRAIN_API TableDouble read_delimited_double(const std::filesystem::path& path, const DelimitedOptions& options = {});

/// The same of text in memory.
MMTRAIN_API Table parse_delimited(std::span<const std::byte> text, const DelimitedOptions& options = {});
MMTRAIN_API TableDouble parse_delimited_double(std::span<const std::byte> text, const DelimitedOptions& options = {});

}  // namespace mmtrain::media
