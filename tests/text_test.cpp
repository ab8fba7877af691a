#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "catch.h"
#include "media/delimited_reader.h"
#include "mmtrain/core/error.h"
#include "mmtrain/media/csv.h"
#include "mmtrain/media/delimited.h"
#include "mmtrain/media/text.h"

namespace {

namespace fs = std::filesystem;
using namespace mmtrain;
using namespace mmtrain::media;

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

Table table_of(std::string_view text, const DelimitedOptions& options = {}) {
  return parse_delimited(bytes(text), options);
}

template <class T>
std::vector<T> values_of(const BasicTable<T>& table) {
  return {table.values().begin(), table.values().end()};
}

std::vector<std::string> reasons_of(const Table& table) {
  std::vector<std::string> lines;
  for (const MalformedLine& line : table.malformed()) lines.push_back(std::to_string(line.line) + ": " + line.reason);
  return lines;
}

// Equal bits, but any NaN for any other.
template <class T>
bool same(T a, T b) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  return (std::isnan(a) && std::isnan(b)) || std::bit_cast<Bits>(a) == std::bit_cast<Bits>(b);
}

template <class T>
void require_same(const BasicTable<T>& a, const BasicTable<T>& b) {
  REQUIRE(a.rows() == b.rows());
  REQUIRE(a.columns() == b.columns());
  REQUIRE(std::equal(a.values().begin(), a.values().end(), b.values().begin(), same<T>));
  REQUIRE(a.malformed_count() == b.malformed_count());
  REQUIRE(a.malformed().size() == b.malformed().size());
  for (std::size_t i = 0; i < a.malformed().size(); ++i) {
    REQUIRE(a.malformed()[i].line == b.malformed()[i].line);
    REQUIRE(a.malformed()[i].reason == b.malformed()[i].reason);
  }
  for (std::int64_t c = 0; c < a.columns(); ++c) REQUIRE(a.categories(c) == b.categories(c));
}

struct TemporaryFile {
  fs::path path = fs::temp_directory_path() / ("mmtrain_text_" + std::to_string(::getpid()) + ".txt");
  explicit TemporaryFile(std::string_view content) {
    std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
  }
  ~TemporaryFile() { fs::remove(path); }
};

using Strings = std::vector<std::string>;
using Floats = std::vector<float>;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST_CASE("a table has the numbers of its file, row by row, under their names", "[delimited]") {
  const TemporaryFile file("time,ax,ay\n0,1.5,-2\n20,.25,3e2\n");
  const Table table = read_delimited(file.path);
  REQUIRE(table.rows() == 2);
  REQUIRE(table.columns() == 3);
  REQUIRE(table.names() == Strings{"time", "ax", "ay"});
  REQUIRE(table.header() == "time,ax,ay");
  REQUIRE(values_of(table) == Floats{0, 1.5F, -2, 20, 0.25F, 300});
  REQUIRE(table.at(1, table.column("ax")) == 0.25F);
  REQUIRE(table.malformed_count() == 0);
  REQUIRE_THROWS_WITH(table.column("az"), "[Table] there is no column 'az', only: time, ax, ay");
  REQUIRE_THROWS_AS(read_delimited("/nonexistent/file"), DataError);
}

TEST_CASE("separator, decimal comma and header are found out", "[delimited]") {
  const Floats expected{1.5F, -2, 3, 4, 5.25F, 6};
  const auto [text, header] = GENERATE(table<std::string, bool>({
      {"1.5,-2,3\n4,5.25,6\n", false},
      {"1.5, -2 ,3\n4,\t5.25,6\n", false},
      {"1.5;-2;3\n4;5.25;6\n", false},
      {"1,5;-2;3\n4;5,25;6\n", false},
      {"1,5\t-2\t3\n4\t5,25\t6\n", false},
      {"1.5\t-2\t3\n4\t5.25\t6\n", false},
      {"   1.5   -2  3\n\t4 5.25\t  6  \n", false},
      {"1,5 -2 3\n4 5,25 6\n", false},
      {"\"1,5\",\"-2\",3\n4,\"5,25\",\"6\"\n", false},
      {"\"1.5\" \"-2\" 3\n4 5.25 6\n", false},
      {"a,b,c\n1.5,-2,3\n4,5.25,6\n", true},
      {"a;b;c;\n1,5;-2;3;\n4;5,25;6;\n", true},
      {"a b c\n1.5 -2 3\n4 5.25 6\n", true},
      {"\xEF\xBB\xBF\"a\",\"b\",\"c\"\r\n1.5,-2,3\r\n4,5.25,6\r\n", true},
      {"# a comment\n\n1.5,-2,3 # another\n# more\n4,5.25,6", false},
      {"1.5,-2,3,\n4,5.25,6,\n", false},
      {"1.5,-2,3;\n4,5.25,6;\r\n", false},
      {"1.5,-2,3,;\n4,5.25,6;\n", false},
      {"+1.5,-2.,03\n4.0e+00,525E-2,0.6e1\n", false},
      {"1.5\xE3\x80\x80-2\xE3\x80\x80\xE3\x80\x80"
       "3\n4\xC2\xA0"
       "5.25\xE3\x80\x80"
       "6\n",
       false},
  }));
  CAPTURE(text);
  const Table table = table_of(text);
  REQUIRE(reasons_of(table).empty());
  REQUIRE(table.columns() == 3);
  REQUIRE(values_of(table) == expected);
  REQUIRE(table.names() == (header ? Strings{"a", "b", "c"} : Strings{}));
}

TEST_CASE("what is given is not found out", "[delimited]") {
  REQUIRE(table_of("1,2\n3 4,5\n6,7\n", {.separator = ','}).malformed_count() == 1);
  REQUIRE(values_of(table_of("1|2\n3|4\n", {.separator = '|'})) == Floats{1, 2, 3, 4});
  REQUIRE(values_of(table_of("1 2\n3 4\n", {.header = DelimitedOptions::Header::yes})) == Floats{3, 4});
  REQUIRE(table_of("a b\n3 4\n", {.header = DelimitedOptions::Header::no}).malformed_count() == 1);
  REQUIRE(table_of("1;2\n1,5;2\n3;4\n", {.separator = ';', .decimal = DelimitedOptions::Decimal::point})
              .malformed_count() == 1);
  REQUIRE(table_of("1;2\n1.5;2\n3;4\n", {.separator = ';', .decimal = DelimitedOptions::Decimal::comma})
              .malformed_count() == 1);
  REQUIRE(values_of(table_of("1,5;2\n", {.separator = ';', .decimal = DelimitedOptions::Decimal::comma})) ==
          Floats{1.5F, 2});
  REQUIRE(table_of("1 2\n1 2 3\n1 2\n", {.columns = 3}).rows() == 1);
  REQUIRE(values_of(table_of("1 2 % 3\n", {.comment = '%'})) == Floats{1, 2});
  REQUIRE(table_of("1 2 # 3\n", {.comment = 0, .columns = 2}).malformed_count() == 1);
  REQUIRE_THROWS_AS(table_of("1", {.separator = '1'}), ConfigError);
  REQUIRE_THROWS_AS(table_of("1", {.separator = '#'}), ConfigError);
  REQUIRE_THROWS_AS(table_of("1", {.comment = '\n'}), ConfigError);
  REQUIRE_THROWS_AS(table_of("1", {.columns = -1}), ConfigError);
}

TEST_CASE("missing values are NaN", "[delimited]") {
  const Table table = table_of("a,b,c\n1,,3\n,NaN,nan\nNA,null,N/A\n1.#QNAN,-nan,None\n");
  REQUIRE(reasons_of(table).empty());
  REQUIRE(table.rows() == 4);
  const Floats expected{1, kNaN, 3, kNaN, kNaN, kNaN, kNaN, kNaN, kNaN, kNaN, kNaN, kNaN};
  REQUIRE(std::equal(expected.begin(), expected.end(), table.values().begin(), same<float>));
  // Named, the last column merely lacks its values.
  REQUIRE(table_of("a,b\n1,\n2,\n").columns() == 2);
  REQUIRE(table_of("a,b,\n1,2,\n3,4,\n").columns() == 2);
  REQUIRE(std::isinf(table_of("1,inf\n2,-Infinity\n").at(0, 1)));
}

TEST_CASE("lines that are no row are counted, with number and reason, and cost nothing else", "[delimited]") {
  const Table table = table_of(
      "x,y\n1,2\n\n3\n# all is well\n4,5,6\n7,eight\n\"9,10\n\"11\"x,12\n13,14\n1.2.3,4\n0x10,1\n15,1e\n--1,1\n16");
  REQUIRE(values_of(table) == Floats{1, 2, 13, 14});
  REQUIRE(table.malformed_count() == 10);
  REQUIRE(reasons_of(table) == Strings{
                                   "4: 1 field where 2 are expected",
                                   "6: 3 fields where 2 are expected",
                                   "7: 'eight' in column 2 ('y') is not a number",
                                   "8: a quote is not closed",
                                   "9: text after a closing quote",
                                   "11: '1.2.3' in column 1 ('x') is not a number",
                                   "12: '0x10' in column 1 ('x') is not a number",
                                   "13: '1e' in column 2 ('y') is not a number",
                                   "14: '--1' in column 1 ('x') is not a number",
                                   "15: 1 field where 2 are expected; the file ends within this line",
                               });
  const Table few = table_of("1,2\n1\n1\n1\n1,2\n1,2\n1,2\n1,2\n", {.report_malformed = 1});
  REQUIRE(few.malformed_count() == 3);
  REQUIRE(reasons_of(few) == Strings{"2: 1 field where 2 are expected"});
}

TEST_CASE("a last line that is torn is a row only where it is whole", "[delimited]") {
  REQUIRE(values_of(table_of("1 2\n3 4")) == Floats{1, 2, 3, 4});
  REQUIRE(values_of(table_of("1 2\n3 4\r")) == Floats{1, 2, 3, 4});
  REQUIRE(values_of(table_of("1 2\n3 4\n5")) == Floats{1, 2, 3, 4});
  REQUIRE(table_of("1 2\n3 4\n5 -").malformed_count() == 1);
}

TEST_CASE("of a long text the whole lines that begin it are read", "[delimited]") {
  const auto rows_of = [](std::string_view text, std::uintmax_t max_bytes) {
    return parse_delimited(std::as_bytes(std::span(text)),
                           {.header = DelimitedOptions::Header::yes, .max_bytes = max_bytes});
  };
  const std::string_view text = "a,b\n1,2\n3,4\n5,6\n";
  CHECK(rows_of(text, 0).rows() == 3);
  CHECK(rows_of(text, text.size()).rows() == 3);
  const Table cut = rows_of(text, text.size() - 1);
  CHECK(cut.rows() == 2);
  CHECK(cut.at(1, 1) == 4);
  CHECK(cut.malformed_count() == 0);
  CHECK(rows_of(text, 3).rows() == 0);  // not one line
}

TEST_CASE("texts without a row give an empty table", "[delimited]") {
  for (const char* text : {"", "\n\n", "# nothing\n", "\xEF\xBB\xBF", "\r\n"}) {
    const Table table = table_of(text);
    REQUIRE(table.rows() == 0);
    REQUIRE(table.malformed_count() == 0);
    REQUIRE(table.values().empty());
    REQUIRE(table_of(text, {.columns = 6}).columns() == 6);
  }
  const Table header = table_of("a;b;c\n");
  REQUIRE(header.rows() == 0);
  REQUIRE(header.names() == Strings{"a", "b", "c"});
  REQUIRE(table_of("\"\n\"\n").malformed_count() == 2);
}

TEST_CASE("a header of a recording names no columns and is kept", "[delimited]") {
  const std::string utf8 = "2025-08-24 01:59:29    绿光---红外光---红光---X轴---Y轴---Z轴";
  const std::string rows = "\n34462 236208 263961 -15433 5377 -1812\n34463 236209 263962 -15434 5378 -1813\n";
  const Table table = table_of(utf8 + rows);
  REQUIRE(table.columns() == 6);
  REQUIRE(table.rows() == 2);
  REQUIRE(table.names().empty());
  REQUIRE(table.header() == utf8);
  REQUIRE(table.at(0, 3) == -15433);
  REQUIRE(table.malformed_count() == 0);
}

TEST_CASE("names and texts come as UTF-8, whatever the file has", "[delimited][encoding]") {
  const Strings chinese{"时间", "标签"};
  // GBK for "时间,标签", "咳嗽", "静息"; 0xA1A1 is the ideographic space.
  const Table gbk = table_of(
      "\xCA\xB1\xBC\xE4,\xB1\xEA\xC7\xA9\n\xA1\xA1"
      "1,\xBF\xC8\xCB\xD4\xA1\xA1\n2,\xBE\xB2\xCF\xA2\n3,\xBF\xC8\xCB\xD4\n");
  REQUIRE(gbk.names() == chinese);
  REQUIRE(gbk.categories(1) == Strings{"咳嗽", "静息"});
  REQUIRE(values_of(gbk) == Floats{1, 0, 2, 1, 3, 0});
  const Table west = table_of("Temp\xE9rature \xB0\x43;Gr\xF6\xDF\x65\n1,5;2\n3;4\n");
  REQUIRE(west.names() == Strings{"Température °C", "Größe"});
  REQUIRE(values_of(west) == Floats{1.5F, 2, 3, 4});
  const std::string wide = "t,x\r\n1,2.5\r\n";
  for (const bool big : {false, true}) {
    std::string utf16 = big ? "\xFE\xFF" : "\xFF\xFE";
    for (const char c : wide) utf16 += big ? std::string{'\0', c} : std::string{c, '\0'};
    const Table table = table_of(utf16);
    REQUIRE(table.names() == Strings{"t", "x"});
    REQUIRE(values_of(table) == Floats{1, 2.5F});
  }
}

TEST_CASE("columns of text hold numbers of categories in the order of the file", "[delimited]") {
  const Table table = table_of(
      "33,Jogging,49105962326000,-0.69;\n33,Jogging,49106062271000,5.01,;\n17,Walking,49106112167000,4.90;\n"
      "17,\"Up, stairs\",49106222305000,-0.61;\n6,,0,1;\n6,Jogging,0;\n");
  REQUIRE(table.categories(1) == Strings{"Jogging", "Walking", "Up, stairs"});
  REQUIRE(table.categories(0).empty());
  REQUIRE(table.rows() == 5);
  REQUIRE(table.at(1, 1) == 0);
  REQUIRE(table.at(2, 1) == 1);
  REQUIRE(table.at(3, 1) == 2);
  REQUIRE(std::isnan(table.at(4, 1)));
  REQUIRE(reasons_of(table) == Strings{"6: 3 fields where 4 are expected"});

  std::string times;
  for (int i = 0; i < 5000; ++i) times += "12:00:" + std::to_string(i) + "," + std::to_string(i) + "\n";
  const Table many = table_of(times);
  REQUIRE(many.rows() == 5000);
  REQUIRE(many.categories(0).empty());
  REQUIRE(std::isnan(many.at(0, 0)));
  REQUIRE(many.at(4999, 1) == 4999);
}

TEST_CASE("windows are views of the table", "[delimited]") {
  const Table table = table_of("1 2\n3 4\n5 6\n7 8\n9 10\n");
  const auto window = table.window(1, 3);
  REQUIRE(window.data() == table.values().data() + 2);
  REQUIRE(Floats(window.begin(), window.end()) == Floats{3, 4, 5, 6, 7, 8});
  REQUIRE(table.window(5, 0).empty());
  REQUIRE(table.window_count(3, 2) == 2);
  REQUIRE(table.window_count(6, 1) == 0);
  REQUIRE_THROWS_AS(table.window(3, 3), DataError);
  REQUIRE_THROWS_AS(table.window(-1, 1), DataError);
  REQUIRE_THROWS_AS(table.window(0, std::numeric_limits<std::int64_t>::max()), DataError);
}

// The number nearest to a text by the C library.
template <class T>
T nearest(const std::string& text) {
  return sizeof(T) == 4 ? std::strtof(text.c_str(), nullptr) : static_cast<T>(std::strtod(text.c_str(), nullptr));
}

// Numbers of all lengths, and those that lie at or near the middle between two floats or doubles.
std::vector<std::string> awkward_numbers() {
  std::vector<std::string> texts{"16777217",
                                 "16777219",
                                 "9007199254740993",
                                 "9007199254740992",
                                 "1e22",
                                 "1e23",
                                 "1e-22",
                                 "0.1",
                                 "0",
                                 "-0",
                                 "-0.0",
                                 "0e5",
                                 "00000000000000000000000001",
                                 "123456789012345678",
                                 "1.1754943508222875e-38",
                                 "1e-44",
                                 "4.9e-324",
                                 "3.4028234e38",
                                 "1.7976931348623157e308",
                                 "8.5899345e9",
                                 "1.00000005960464477539062500",
                                 "1.000000059604644775390625",
                                 "0.50000002980232238769531250",
                                 "1.0000001788139343",
                                 "2147483647",
                                 "9223372036854775808",
                                 "99999999999999999999"};
  std::mt19937_64 random(7);
  for (int i = 0; i < 40000; ++i) {
    const int kind = static_cast<int>(random() % 5);
    char text[64];
    if (kind == 0) {
      std::snprintf(text, sizeof text, "%.*f", static_cast<int>(random() % 12),
                    std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 60) - 80));
    } else if (kind == 1) {
      std::snprintf(text, sizeof text, "%.*e", static_cast<int>(random() % 19),
                    std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 100) - 100));
    } else if (kind == 2) {
      std::snprintf(text, sizeof text, "%llu", static_cast<unsigned long long>(random() >> random() % 64));
    } else {
      // A float's neighbour half way, exactly or a little off.
      const float low = std::bit_cast<float>(static_cast<std::uint32_t>(random() % 0x20000000 + 0x30000000));
      const double middle = (static_cast<double>(low) + std::nextafter(low, 2 * low)) / 2;
      std::snprintf(text, sizeof text, "%.*g", kind == 3 ? 17 : 19, middle);
    }
    texts.emplace_back(i % 2 == 0 ? "-" : "").append(text);
  }
  return texts;
}

template <class T>
void require_nearest() {
  const std::vector<std::string> numbers = awkward_numbers();
  for (const char separator : {',', ' '}) {
    std::string text;
    for (std::size_t i = 0; i < numbers.size(); ++i) text += numbers[i] + (i % 8 == 7 ? '\n' : separator);
    text.back() = '\n';
    const DelimitedOptions options{
        .separator = separator, .header = DelimitedOptions::Header::no, .columns = 8, .threads = 1};
    const BasicTable<T> table = media::detail::DelimitedReader<T>(text, options).read();
    REQUIRE(table.malformed_count() <= 1);  // the last row is not full
    REQUIRE(table.values().size() == numbers.size() / 8 * 8);
    for (std::size_t i = 0; i < table.values().size(); ++i) {
      if (same(table.values()[i], nearest<T>(numbers[i]))) continue;
      FAIL("'" << numbers[i] << "' became " << table.values()[i]);
    }
  }
}

TEST_CASE("every number is the one nearest to its text", "[delimited]") {
  SECTION("float") { require_nearest<float>(); }
  SECTION("double") { require_nearest<double>(); }
}

TEST_CASE("numbers beyond the range are infinite or zero", "[delimited]") {
  const TableDouble wide =
      parse_delimited_double(bytes("1e999 -1e999\n1e-999 -1e-999\n1e99999999999999999999 1e-99999999999999999999\n"));
  const double inf = std::numeric_limits<double>::infinity();
  REQUIRE(wide.malformed_count() == 0);
  REQUIRE(values_of(wide) == std::vector<double>{inf, -inf, 0, -0.0, inf, 0});
  const Table narrow =
      table_of("1e39 -3.5e38\n1e-46 -1e-60\n" + std::string(400, '9') + " 0." + std::string(400, '0') + "1\n");
  REQUIRE(narrow.malformed_count() == 0);
  REQUIRE(std::isinf(narrow.at(0, 0)));
  REQUIRE(narrow.at(0, 1) == -std::numeric_limits<float>::infinity());
  REQUIRE(same(narrow.at(1, 1), -0.0F));
  REQUIRE(std::isinf(narrow.at(2, 0)));
  REQUIRE(narrow.at(2, 1) == 0);
}

// Rows, and everything that can stand between them.
std::string messy_text(unsigned seed, char separator) {
  std::mt19937 random(seed);
  const Strings labels{"walk", "run", "\"sit, down\"", "", "Größe", "x y"};
  std::string text = "t,x,label,y\n";
  for (int i = 0; i < 400; ++i) {
    switch (random() % 12) {
      case 0:
        text += "\n";
        break;
      case 1:
        text += "# comment, 1, 2\r\n";
        break;
      case 2:
        text += "1,2\n";
        break;
      case 3:
        text += "1,\"2\",walk,\"3\"\n";
        break;
      case 4:
        text += "1,oops,walk,3\n";
        break;
      case 5:
        text += " 1.50 , 123456789.123456789123 ,run, NaN ;\n";
        break;
      default:
        text += std::to_string(i) + "," + std::to_string(static_cast<double>(random()) / 1000) + "," +
                labels[random() % labels.size()] + "," + std::to_string(static_cast<int>(random())) +
                (random() % 4 == 0 ? "\r\n" : "\n");
    }
  }
  std::replace(text.begin(), text.end(), ',', separator);
  return text + "9" + separator + "8" + separator + "walk" + separator + "7";
}

TEST_CASE("the result depends neither on threads nor on chunks nor on the fast way", "[delimited]") {
  const char separator = GENERATE(',', ';', '\t');
  const std::string text = messy_text(static_cast<unsigned>(separator), separator);
  const Table whole = table_of(text, {.threads = 1});
  REQUIRE(whole.rows() > 200);
  REQUIRE(whole.malformed_count() > 40);
  REQUIRE(whole.categories(2).size() == 5);
  for (const std::size_t chunk : {1, 2, 64, 1000, 5000}) {
    for (const int threads : {1, 2, 5}) {
      for (const bool short_rows : {false, true}) {
        CAPTURE(chunk, threads, short_rows);
        require_same(
            whole,
            media::detail::DelimitedReader<float>(text, {.threads = threads}, nullptr, {chunk, short_rows}).read());
      }
    }
  }
}

// Peak of resident memory in bytes, since the last reset.
std::size_t peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoul(line.substr(6)) * 1024;
  }
  return 0;
}

void reset_peak_memory() { std::ofstream("/proc/self/clear_refs") << 5; }

TEST_CASE("a large file needs little memory beside its table", "[delimited][memory]") {
  std::string line;
  for (int c = 0; c < 100; ++c) line += "0.1234567890123 ";
  line.back() = '\n';
  std::string content;
  for (int i = 0; i < 40000; ++i) content += line;
  const TemporaryFile file(content);
  const std::size_t size = content.size();
  content = {};
  reset_peak_memory();
  const std::size_t before = peak_memory();
  const Table table = read_delimited(file.path, {.threads = 2});
  REQUIRE(table.rows() == 40000);
  REQUIRE(size > 60'000'000);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  REQUIRE(peak_memory() < before + table.values().size_bytes() + 12'000'000);
#else
  (void)before;
#endif
}

TEST_CASE("encodings are told apart", "[encoding]") {
  const auto found = [](std::string_view text) { return detect_encoding(bytes(text)); };
  REQUIRE(found("") == Encoding::utf8);
  REQUIRE(found("plain") == Encoding::utf8);
  REQUIRE(found("Größe 咳嗽 😀") == Encoding::utf8);
  REQUIRE(found("\xFF\xFE\x41\x00") == Encoding::utf16);
  REQUIRE(found("\xBF\xC8\xCB\xD4") == Encoding::gbk);
  REQUIRE(found("don\x92t") == Encoding::windows1252);
  REQUIRE(found("Gr\xF6\xDF\x65, caf\xE9, na\xEFve") == Encoding::windows1252);
  REQUIRE(found("\xC3\xA9\xC3\xA8\xC3\xAA ... "
                "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9"
                "\xC3\xA9\xC3\xA9\xC3\xA9 with one bad byte \xE9.") == Encoding::utf8);
}

TEST_CASE("texts become UTF-8, and what means nothing a replacement character", "[encoding]") {
  REQUIRE(to_utf8(bytes("don\x92t \x80 1\xBD")) == "don’t € 1½");
  REQUIRE(to_utf8(bytes("a\x81z"), Encoding::windows1252) == "a\uFFFDz");
  REQUIRE(to_utf8(bytes("\xEF\xBB\xBFx")) == "x");
  REQUIRE(to_utf8(bytes("\xBF\xC8\xCB\xD4!"), Encoding::gbk) == "咳嗽!");
  REQUIRE(to_utf8(bytes("\xBF\xC8\xFFx\xCB"), Encoding::gbk) == "咳\uFFFDx\uFFFD");
  REQUIRE(to_utf8(bytes("a\xC3(\xE2\x82\xED\xA0\x80\xC0\xAF"), Encoding::utf8) ==
          "a\uFFFD(\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD");
  REQUIRE(to_utf8(bytes(std::string_view("\xFE\xFF\x54\xB3\x00!", 6))) == "咳!");
  REQUIRE(to_utf8(bytes(std::string_view("\xB3\x54!\0?", 5)), Encoding::utf16) == "咳!\uFFFD");
  std::string large;
  for (int i = 0; i < 5000; ++i) large += "\xBF\xC8";
  REQUIRE(to_utf8(bytes(large), Encoding::gbk).size() == 15000);
}

std::vector<Strings> records_of(std::string_view text, const CsvOptions& options = {.header = false}) {
  CsvReader reader(bytes(text), "test", options);
  std::vector<Strings> records;
  while (reader.next()) records.push_back(reader.fields());
  REQUIRE_FALSE(reader.next());
  return records;
}

TEST_CASE("records of text follow RFC 4180", "[csv]") {
  REQUIRE(records_of("a,b\r\nc,d\r\n") == std::vector<Strings>{{"a", "b"}, {"c", "d"}});
  REQUIRE(records_of("a,\"b, \"\"c\"\"\r\nd\"\n,\"\"\n") == std::vector<Strings>{{"a", "b, \"c\"\r\nd"}, {"", ""}});
  REQUIRE(records_of("a,b\rc,d\n\n\r\ne,f") == std::vector<Strings>{{"a", "b"}, {"c", "d"}, {"e", "f"}});
  REQUIRE(records_of("a;\"b;c\"", {.separator = ';', .header = false}) == std::vector<Strings>{{"a", "b;c"}});
  REQUIRE(records_of("a, b ,") == std::vector<Strings>{{"a", " b ", ""}});
  REQUIRE(records_of("").empty());
}

TEST_CASE("odd quotes of records are taken as they stand", "[csv]") {
  REQUIRE(records_of("5\" disk,he said \"hi\"\n") == std::vector<Strings>{{"5\" disk", "he said \"hi\""}});
  REQUIRE(records_of("\"a\"b,\"c\" \"d\"\n") == std::vector<Strings>{{"ab", "c \"d\""}});
}

TEST_CASE("records have names, places and the text of any encoding", "[csv]") {
  const TemporaryFile file(
      "\xEF\xBB\xBFUtterance,Speaker\r\n\r\n\"two\r\nlines\",Ross\r\n\x44on\x92t,Joey\r\nlast,Ph\xE9\x62\r\n");
  CsvReader reader(file.path, {.encoding = Encoding::windows1252});
  // A mark of UTF-8 in a file that is said to be something else is text.
  REQUIRE(reader.names()[1] == "Speaker");
  const TemporaryFile west("Utterance,Speaker\r\n\r\n\"two\r\nlines\",Ross\r\n\x44on\x92t,Joey\r\nlast,Ph\xE9\x62");
  CsvReader records(west.path);
  REQUIRE(records.names() == Strings{"Utterance", "Speaker"});
  REQUIRE(records.column("Speaker") == 1);
  REQUIRE(records.has_column("Utterance"));
  REQUIRE_FALSE(records.has_column("utterance"));
  REQUIRE_THROWS_WITH(records.column("Emotion"), Catch::Contains("no column 'Emotion', only: Utterance, Speaker"));
  REQUIRE(records.next());
  REQUIRE(records.fields() == Strings{"two\r\nlines", "Ross"});
  REQUIRE(records.line() == 3);
  REQUIRE(records.next());
  REQUIRE(records.fields() == Strings{"Don’t", "Joey"});
  REQUIRE(records.line() == 5);
  REQUIRE(records.next());
  REQUIRE(records.fields() == Strings{"last", "Phéb"});
  REQUIRE_FALSE(records.next());
  REQUIRE(records.malformed_count() == 0);
  REQUIRE_THROWS_WITH(CsvReader(bytes("\n\n"), "x.csv"), Catch::Contains("x.csv: empty"));
  REQUIRE_THROWS_AS(CsvReader(bytes("\"a,b\nc"), "x.csv"), DataError);
  REQUIRE_THROWS_AS(CsvReader("/nonexistent/file.csv"), DataError);
}

TEST_CASE("a malformed record costs its first line alone", "[csv]") {
  CsvReader reader(bytes("a,b\n1,2\n\"open,3\n4,5\n6\n7,8,9\n10,11\n\"12\n"), "test");
  std::vector<Strings> records;
  while (reader.next()) records.push_back(reader.fields());
  REQUIRE(records == std::vector<Strings>{{"1", "2"}, {"4", "5"}, {"10", "11"}});
  REQUIRE(reader.malformed_count() == 4);
  REQUIRE(reader.malformed().size() == 4);
  REQUIRE(reader.malformed()[0].line == 3);
  REQUIRE(reader.malformed()[1].line == 5);
  REQUIRE(reader.malformed()[1].reason == "1 field where 2 are expected");
  REQUIRE(reader.malformed()[3].line == 8);
  REQUIRE(reader.malformed()[3].reason == "a quote is not closed");
}

}  // namespace
