// Any text gives a table, and the same one whatever the chunks, the threads and the way past common lines.
#include <algorithm>
#include <bit>
#include <cmath>

#include "fuzz.h"
#include "media/delimited_reader.h"
#include "mmtrain/core/error.h"

namespace {

using namespace mmtrain;
using namespace mmtrain::media;

template <class T>
void require_same(const BasicTable<T>& a, const BasicTable<T>& b) {
  fuzz::require(a.rows() == b.rows() && a.columns() == b.columns());
  fuzz::require(std::equal(a.values().begin(), a.values().end(), b.values().begin(), [](T x, T y) {
    return (std::isnan(x) && std::isnan(y)) || (x == y && std::signbit(x) == std::signbit(y));
  }));
  fuzz::require(a.malformed_count() == b.malformed_count() && a.malformed().size() == b.malformed().size());
  for (std::size_t i = 0; i < a.malformed().size(); ++i) {
    fuzz::require(a.malformed()[i].line == b.malformed()[i].line && a.malformed()[i].reason == b.malformed()[i].reason);
  }
  for (std::int64_t c = 0; c < a.columns(); ++c) fuzz::require(a.categories(c) == b.categories(c));
}

template <class T>
void compare(std::span<const std::byte> bytes, const DelimitedOptions& options, std::size_t chunk) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  using Reader = media::detail::DelimitedReader<T>;
  const BasicTable<T> table = Reader(text, options).read();
  fuzz::require(table.names().empty() || static_cast<std::int64_t>(table.names().size()) == table.columns());
  require_same(table, Reader(text, options, nullptr, {.chunk = chunk}).read());
  require_same(table, Reader(text, options, nullptr, {.short_rows = false}).read());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  DelimitedOptions options;
  const int flags = input.choose(256);
  options.separator = "\0\0\0\0,; \t"[flags & 7];
  options.header = static_cast<DelimitedOptions::Header>((flags >> 3) % 3);
  options.columns = (flags >> 5) == 7 ? 3 : 0;
  const int more = input.choose(256);
  options.decimal = static_cast<DelimitedOptions::Decimal>((more & 7) % 3);
  options.encoding = static_cast<Encoding>((more >> 3 & 7) % 5);
  options.threads = (more >> 6) == 3 ? 2 : 1;
  const std::size_t chunk = static_cast<std::size_t>(input.choose(64)) + 1;
  if (options.encoding == Encoding::utf16) {  // converted before it is read
    parse_delimited(input.rest(), options);
  } else if (more & 1) {
    compare<double>(input.rest(), options, chunk);
  } else {
    compare<float>(input.rest(), options, chunk);
  }
  return 0;
}
