#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/media/text.h"

namespace mmtrain::media {

struct CsvOptions {
  char separator = ',';
  bool header = true;  ///< the first record names the fields
  Encoding encoding = Encoding::automatic;
};

/// Records of text, as annotations are: RFC 4180, where a field in quotes holds separators, line feeds and `""` for a
/// quote. Beyond the standard: a quote inside an unquoted field is an ordinary character, text after a closing quote
/// belongs to the field, lines end with LF, CRLF or CR, empty lines are skipped.
///
///     CsvReader annotations("train_sent_emo.csv");
///     const std::size_t speaker = annotations.column("Speaker");
///     while (annotations.next()) use(annotations.fields()[speaker]);
///
/// A record that has not as many fields as the first one (the header) is malformed, and so is one whose quote is never
/// closed. Only its first line is lost: reading goes on with the next one.
class MMTRAIN_API CsvReader {
 public:
  /// Reads the file. Throws `DataError` naming it if that fails or it has no header where one is expected.
  explicit CsvReader(const std::filesystem::path& path, const CsvOptions& options = {});
  /// Reads text in memory, which is converted to UTF-8 and kept; `name` is for messages.
  CsvReader(std::span<const std::byte> text, std::string name, const CsvOptions& options = {});

  /// Empty without a header.
  const std::vector<std::string>& names() const { return names_; }
  /// The field called `name`. Throws `DataError` naming the file and the fields that exist.
  std::size_t column(std::string_view name) const;
  bool has_column(std::string_view name) const;

  /// Goes on to the next good record; false at the end.
  bool next();
  /// Of the current record, in UTF-8. Blanks belong to the fields.
  const std::vector<std::string>& fields() const { return fields_; }
  /// Where it begins, from 1.
  std::int64_t line() const { return line_; }

  /// Records left out so far, and the first 20 of them.
  std::int64_t malformed_count() const { return malformed_count_; }
  const std::vector<MalformedLine>& malformed() const { return malformed_; }

 private:
  struct Cursor {
    std::size_t offset = 0;
    std::int64_t line = 1;  // at offset
  };
  void read_header();
  void skip_empty_lines();
  bool read_record();
  void skip_line();
  void report(std::string reason);

  CsvOptions options_;
  std::string name_, text_;
  std::vector<std::string> names_, fields_;
  std::size_t columns_ = 0;  // 0: not known yet
  Cursor next_;
  std::int64_t line_ = 0, malformed_count_ = 0;
  std::vector<MalformedLine> malformed_;
};

}  // namespace mmtrain::media
