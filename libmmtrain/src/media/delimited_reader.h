#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "media/delimited_format.h"
#include "mmtrain/io/mapped_file.h"
#include "mmtrain/media/delimited.h"

namespace mmtrain::media::detail {

// Numbers for texts, in the order in which they come.
class Categories {
 public:
  static constexpr std::size_t kMost = 4096;

  // -1 when there are too many.
  int number_of(std::string_view text);
  const std::vector<std::string>& texts() const { return texts_; }
  bool too_many() const { return too_many_; }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::vector<std::string> texts_;
  std::unordered_map<std::string, int, Hash, std::equal_to<>> numbers_;
  std::size_t last_ = 0;  // labels come in runs
  bool too_many_ = false;
};

// What no caller chooses, but tests do.
struct DelimitedTuning {
  std::size_t chunk = std::size_t{1} << 20;  // bytes a thread takes at a time
  bool short_rows = true;                    // the fast way for common lines
};

// Reads one text. It is cut into chunks, each of which is the lines that begin in it. Lines are counted first, so that
// each chunk has its place in the result; where lines were left out, the gaps are closed at the end.
template <class T>
class DelimitedReader {
 public:
  // `file`, if it is given, is the mapping that holds `text`: its memory is released behind the readers.
  DelimitedReader(std::string_view text, const DelimitedOptions& options, const MappedFile* file = nullptr,
                  const DelimitedTuning& tuning = {});

  BasicTable<T> read();

 private:
  struct Chunk {
    const char *begin = nullptr, *end = nullptr;
    std::int64_t lines = 0, first_line = 0;          // of the file, from 1
    std::int64_t room = 0, first_row = 0, rows = 0;  // in the result, before gaps are closed
    std::int64_t malformed_count = 0;
    std::vector<MalformedLine> malformed;
    std::vector<Categories> categories;  // of each column
  };
  // What a thread works with, and the texts of the row that it reads.
  struct Scratch {
    LineSplitter splitter;
    std::vector<std::string_view> texts;
  };

  void cut();
  void for_each_chunk(const std::function<void(Chunk&)>& work);
  void count_lines(Chunk& chunk) const;
  void parse(Chunk& chunk) const;
  template <bool kBlankRuns, bool kTexts>
  const char* read_short_row(const char* p, T* row, Scratch& scratch) const;
  const char* skip_text(const char* p) const;
  std::string read_line(std::string_view line, bool& is_row, T* row, Scratch& scratch) const;
  void number_texts(Chunk& chunk, T* row, const Scratch& scratch) const;
  void release(const Chunk& chunk) const;
  void close_gaps();
  void join_categories();
  void join_malformed();
  std::string column_name(std::size_t column) const;

  std::string_view text_;
  const MappedFile* file_;
  DelimitedTuning tuning_;
  int threads_;
  std::size_t report_malformed_;
  DelimitedFormat format_;
  std::size_t columns_;
  const char* short_limit_;  // beyond it the fast way could read past the end
  char mark_, other_mark_;   // before the decimals, for the fast way
  std::vector<Chunk> chunks_;
  BasicTable<T> table_;
};

}  // namespace mmtrain::media::detail
