// Any text gives records of equal length at ascending lines, and good records, written with quotes, are read as they
// were.
#include <vector>

#include "fuzz.h"
#include "mmtrain/core/error.h"
#include "mmtrain/media/csv.h"

namespace {

using namespace mmtrain;
using namespace mmtrain::media;
using Records = std::vector<std::vector<std::string>>;

std::string written(const Records& records, char separator) {
  std::string text;
  for (const auto& record : records) {
    for (std::size_t i = 0; i < record.size(); ++i) {
      text += i > 0 ? std::string{separator, '"'} : std::string{'"'};
      for (const char c : record[i]) text += c == '"' ? std::string("\"\"") : std::string{c};
      text += '"';
    }
    text += "\r\n";
  }
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  CsvOptions options;
  options.separator = ",;\t|"[input.choose(4)];
  options.header = input.choose(2) == 1;
  options.encoding = static_cast<Encoding>(input.choose(5));
  try {
    CsvReader reader(input.rest(), "input", options);
    Records records;
    for (std::int64_t line = 0; reader.next(); line = reader.line()) {
      fuzz::require(reader.line() > line);
      fuzz::require(!options.header || reader.fields().size() == reader.names().size());
      records.push_back(reader.fields());
    }
    fuzz::require(static_cast<std::int64_t>(reader.malformed().size()) <= reader.malformed_count());
    options.header = false;
    options.encoding = Encoding::utf8;
    const std::string text = written(records, options.separator);
    CsvReader again(std::as_bytes(std::span(text)), "again", options);
    for (const auto& record : records) fuzz::require(again.next() && again.fields() == record);
    fuzz::require(!again.next() && again.malformed_count() == 0);
  } catch (const DataError&) {
  }
  return 0;
}
