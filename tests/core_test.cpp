#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "mmtrain/core/config.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/core/progress.h"
#include "mmtrain/core/random.h"
#include "temp_dir.h"

namespace fs = std::filesystem;
using fixtures::TempDir;
using mmtrain::Config;
using mmtrain::ConfigError;
using mmtrain::RandomDomain;
using mmtrain::RandomStream;

namespace {

std::string read_text(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The message of the ConfigError that `action` throws; empty if it throws none.
template <class Action>
std::string config_error(Action action) {
  try {
    action();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

// What is logged while it lives.
struct LogCapture {
  std::vector<std::pair<mmtrain::log::Level, std::string>> lines;
  LogCapture() {
    mmtrain::log::set_sink([this](auto level, std::string_view text) { lines.emplace_back(level, text); });
  }
  ~LogCapture() {
    mmtrain::log::set_sink({});
    mmtrain::log::set_rank(0);
    mmtrain::log::set_level(mmtrain::log::Level::info);
  }
};

double correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const auto n = static_cast<double>(x.size());
  double sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    sx += x[i], sy += y[i], sxx += x[i] * x[i], syy += y[i] * y[i], sxy += x[i] * y[i];
  }
  return (sxy - sx * sy / n) / std::sqrt((sxx - sx * sx / n) * (syy - sy * sy / n));
}

}  // namespace

TEST_CASE("a configuration returns each type of value that it holds", "[core][config]") {
  const Config config = Config::parse(
      R"({"flag": true, "count": 3, "rate": 0.5, "name": "x", "sizes": [1, 2], "rates": [0.5, 2], "names": ["a"]})");
  CHECK(config.get<bool>("flag") == true);
  CHECK(config.get<std::int64_t>("count") == 3);
  CHECK(config.get<double>("rate") == 0.5);
  CHECK(config.get<std::string>("name") == "x");
  CHECK(config.get<std::vector<std::int64_t>>("sizes") == std::vector<std::int64_t>{1, 2});
  CHECK(config.get<std::vector<double>>("rates") == std::vector<double>{0.5, 2.0});
  CHECK(config.get<std::vector<std::string>>("names") == std::vector<std::string>{"a"});
  CHECK_FALSE(config.get<bool>("absent").has_value());
}

TEST_CASE("a whole number is accepted where a double is wanted, nothing else is converted", "[core][config]") {
  const Config config = Config::parse(R"({"count": 3, "rate": 3.0, "text": "3", "flag": true, "mixed": [1, "a"],
                                          "huge": 9223372036854775808})",
                                      "run.json");
  CHECK(config.get<double>("count") == 3.0);
  CHECK(config_error([&] { config.get<std::int64_t>("rate"); }) ==
        "[Config] run.json: 'rate' must be a whole number, got the number 3.0");
  CHECK(config_error([&] { config.get<double>("text"); }) ==
        "[Config] run.json: 'text' must be a number, got the string \"3\"");
  CHECK(config_error([&] { config.get<std::int64_t>("flag"); }) ==
        "[Config] run.json: 'flag' must be a whole number, got the truth value true");
  CHECK(config_error([&] { config.get<bool>("count"); }) ==
        "[Config] run.json: 'count' must be true or false, got the whole number 3");
  CHECK(config_error([&] { config.get<std::vector<std::int64_t>>("mixed"); }) ==
        "[Config] run.json: 'mixed' must be a list of whole numbers, got the list [1,\"a\"]");
  CHECK(config_error([&] { config.get<std::int64_t>("huge"); }) ==
        "[Config] run.json: 'huge' must be a whole number, got the whole number 9223372036854775808");
}

TEST_CASE("a null value counts as not given and keys that start with _comment are invisible", "[core][config]") {
  const Config config = Config::parse(R"({"_comment": "hello", "b": null, "_comment_2": 5, "a": 1})");
  CHECK(config.keys() == std::vector<std::string>{"b", "a"});
  CHECK_FALSE(config.contains("b"));
  CHECK_FALSE(config.get<std::int64_t>("b").has_value());
  CHECK(config.contains("a"));
  CHECK_NOTHROW(config.require_known({"a", "b"}));
}

TEST_CASE("a nested object is a configuration whose errors name the whole path", "[core][config]") {
  const Config config = Config::parse(R"({"model": {"layers": {"width": "wide"}}, "n": 1})", "run.json");
  const Config layers = config.sub("model")->sub("layers").value();
  CHECK(config_error([&] { layers.get<std::int64_t>("width"); }) ==
        "[Config] run.json: 'model.layers.width' must be a whole number, got the string \"wide\"");
  CHECK(config_error([&] {
          layers.require_known({"depth", "widths"});
        }) == "[Config] run.json: unknown key 'model.layers.width'; the nearest known one is 'model.layers.widths'");
  CHECK(config_error([&] { config.sub("n"); }) == "[Config] run.json: 'n' must be an object, got the whole number 1");
  CHECK_FALSE(config.sub("absent").has_value());
}

TEST_CASE("an unknown key is refused with the nearest known one", "[core][config]") {
  const Config config = Config::parse(R"({"epochs": 1, "lerning_rate": 0.1})", "run.json");
  CHECK(config_error([&] {
          config.require_known({"epochs", "learning_rate", "batch_size"});
        }) == "[Config] run.json: unknown key 'lerning_rate'; the nearest known one is 'learning_rate'");
  CHECK_NOTHROW(config.require_known({"epochs", "lerning_rate"}));
}

TEST_CASE("syntax errors of a JSON file are told with file, line and column", "[core][config]") {
  const TempDir folder;
  const fs::path path = folder.path() / "broken.json";
  const auto load_error = [&](const std::string& text) {
    std::ofstream(path) << text;
    return config_error([&] { Config::load(path); });
  };
  const std::string who = "[Config] " + path.string();
  CHECK(load_error("{\n  \"a\": 1,\n  \"b\" 2\n}").starts_with(who + ":3:7: syntax error"));
  CHECK(load_error("{\"a\": 1,}").starts_with(who + ":1:9: syntax error"));
  CHECK(load_error("{\"a\": 1} x").starts_with(who + ":1:10: syntax error"));
  CHECK(load_error("").starts_with(who + ":1:1: syntax error"));
  CHECK(load_error("{\"a\": 1").starts_with(who + ":1:8: syntax error"));
  CHECK(load_error("{\"a\": \"\xff\"}").starts_with(who + ":1:8: syntax error"));
  CHECK(load_error("[1, 2]") == who + ": must hold one JSON object, got the list [1,2]");
  CHECK(load_error("{\"a\": 1, \"a\": 2}") == who + ": key \"a\" is given twice");
  CHECK(load_error(std::string("{}\0{}", 5)) == who + ":1:3: NUL byte");
  CHECK(load_error("{\"a\":" + std::string(5000, '[')).starts_with(who + ": nested more than"));
}

TEST_CASE("the same key may stand in different objects", "[core][config]") {
  CHECK(Config::parse(R"({"a": {"n": 1}, "b": {"n": 2}, "c": [{"n": 3}, {"n": 4}]})").keys().size() == 3);
}

TEST_CASE("a configuration file that cannot be read is an error that names it", "[core][config]") {
  const TempDir folder;
  CHECK(config_error([&] { Config::load(folder.path() / "none.json"); }) ==
        "[Config] cannot read '" + (folder.path() / "none.json").string() + "': no such file");
  CHECK(config_error([&] { Config::load(folder.path()); }) ==
        "[Config] cannot read '" + folder.path().string() + "': not a readable file");
}

TEST_CASE("set and dump keep the order of keys and read back as the same", "[core][config]") {
  Config config;
  config.set("zeta", 1);
  config.set("alpha", "text");
  config.set("size", std::size_t{7});
  config.set("rate", 0.25F);
  config.set("on", true);
  config.set("list", std::vector<std::string>{"a", "b"});
  Config inner;
  inner.set("x", std::string_view("y"));
  config.set("inner", inner);
  config.set("zeta", 2);
  CHECK(config.dump(-1) ==
        R"({"zeta":2,"alpha":"text","size":7,"rate":0.25,"on":true,"list":["a","b"],"inner":{"x":"y"}})");
  CHECK(Config::parse(config.dump()).dump() == config.dump());
  CHECK(config.dump(2).starts_with("{\n  \"zeta\": 2,\n"));
}

TEST_CASE("a number that JSON cannot hold becomes null, text that is not UTF-8 is repaired", "[core][config]") {
  Config config;
  config.set("loss", std::numeric_limits<double>::quiet_NaN());
  config.set("path", "a\xff");
  CHECK(config.dump(-1) == "{\"loss\":null,\"path\":\"a\xEF\xBF\xBD\"}");
}

TEST_CASE("doubles survive a round trip through JSON exactly", "[core][config]") {
  for (const double value : {0.1, 1.0 / 3.0, 5e-324, 1.7976931348623157e308, -2.0}) {
    Config config;
    config.set("value", value);
    CHECK(Config::parse(config.dump()).get<double>("value") == value);
  }
}

TEST_CASE("merge overrides key by key, also inside objects, and leaves comments out", "[core][config]") {
  Config base = Config::parse(R"({"a": 1, "model": {"width": 1, "depth": 2}, "list": [1, 2]})");
  base.merge(Config::parse(R"({"_comment": "x", "model": {"width": 3}, "list": [9], "new": "n"})"));
  CHECK(base.dump(-1) == R"({"a":1,"model":{"width":3,"depth":2},"list":[9],"new":"n"})");
}

TEST_CASE("copies of a configuration are independent", "[core][config]") {
  Config first = Config::parse(R"({"a": 1})");
  Config second = first;
  second.set("a", 2);
  first = Config(first);
  CHECK(first.get<std::int64_t>("a") == 1);
  CHECK(second.get<std::int64_t>("a") == 2);
}

TEST_CASE("nearest_name finds what was meant", "[core][config]") {
  const std::vector<std::string> names{"batch_size", "learning_rate", "num_workers", "epochs"};
  CHECK(mmtrain::nearest_name("bach_size", names) == "batch_size");
  CHECK(mmtrain::nearest_name("batch-size", names) == "batch_size");
  CHECK(mmtrain::nearest_name("Learning-Rate", names) == "learning_rate");
  CHECK(mmtrain::nearest_name("worker", names) == "num_workers");
  CHECK(mmtrain::nearest_name("epohcs", names) == "epochs");
  CHECK(mmtrain::nearest_name("", {"abc", "a"}) == "a");
  CHECK(mmtrain::nearest_name("abdc", {"abcde", "abcd"}) == "abcd");
  CHECK(mmtrain::nearest_name("x", {}).empty());
}

TEST_CASE("the log filters by level and by rank", "[core][log]") {
  namespace log = mmtrain::log;
  LogCapture capture;
  log::debug("d");
  log::info("i");
  log::warning("w");
  log::error("e");
  using Lines = std::vector<std::pair<log::Level, std::string>>;
  CHECK(capture.lines == Lines{{log::Level::info, "i"}, {log::Level::warning, "w"}, {log::Level::error, "e"}});

  capture.lines.clear();
  log::set_level(log::Level::debug);
  log::debug("d");
  CHECK(capture.lines == Lines{{log::Level::debug, "d"}});

  capture.lines.clear();
  log::set_rank(3);
  log::info("i");
  log::warning("w");
  CHECK(capture.lines == Lines{{log::Level::warning, "[rank 3] w"}});
}

TEST_CASE("warn_once speaks once a key", "[core][log]") {
  LogCapture capture;
  for (int i = 0; i < 3; ++i) mmtrain::log::warn_once("core_test key 1", "first");
  mmtrain::log::warn_once("core_test key 2", "second");
  REQUIRE(capture.lines.size() == 2);
  CHECK(capture.lines[0].second == "first");
  CHECK(capture.lines[1].second == "second");
}

TEST_CASE("a log file gets every line with a time stamp, whatever the console shows", "[core][log]") {
  namespace log = mmtrain::log;
  const TempDir folder;
  const fs::path path = folder.path() / "training.log";
  LogCapture capture;
  {
    const log::File file(path);
    log::set_level(log::Level::error);
    log::info("hidden on the console");
    log::warning("two\nlines");
    log::debug("not in the file");
  }
  log::info("after it was closed");
  CHECK(capture.lines.empty());
  const std::string stamp = R"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} )";
  const std::regex expected(stamp + "INFO    hidden on the console\n" + stamp + "WARNING two\n" + stamp +
                            "WARNING lines\n");
  CHECK(std::regex_match(read_text(path), expected));
  {
    const log::File again(path);
    log::info("appended");
  }
  const std::string text = read_text(path);
  CHECK(std::count(text.begin(), text.end(), '\n') == 4);
}

TEST_CASE("a log file that cannot be opened is a ConfigError", "[core][log]") {
  const TempDir folder;
  CHECK(config_error([&] { const mmtrain::log::File file(folder.path() / "none" / "x.log"); }) ==
        "[log] cannot open log file '" + (folder.path() / "none" / "x.log").string() + "': No such file or directory");
}

TEST_CASE("lines of many threads arrive whole", "[core][log]") {
  const TempDir folder;
  const fs::path path = folder.path() / "training.log";
  LogCapture capture;
  constexpr int kThreads = 8, kLines = 200;
  {
    const mmtrain::log::File file(path);
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([t] {
        for (int i = 0; i < kLines; ++i) {
          std::ostringstream line;
          line << '<' << t << ':' << std::string(300, 'x') << ':' << i << '>';
          mmtrain::log::info(line.str());
        }
      });
    }
  }
  REQUIRE(capture.lines.size() == kThreads * kLines);
  std::istringstream lines(read_text(path));
  std::set<std::string> seen;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t begin = line.find('<');
    REQUIRE(begin != std::string::npos);
    REQUIRE(std::regex_match(line.substr(begin), std::regex("<[0-7]:x{300}:\\d+>")));
    seen.insert(line.substr(begin));
  }
  CHECK(seen.size() == kThreads * kLines);
}

TEST_CASE("the progress text cuts its bar first, then its end, to fit the width", "[core][progress]") {
  using mmtrain::progress_text;
  const std::string wide = progress_text("epoch 1/3", 50, 100, "loss 1.5", "0:10", 120);
  CHECK(wide == "epoch 1/3 [===============>              ]  50% 50/100 loss 1.5, ETA 0:10");
  CHECK(progress_text("epoch 1/3", 50, 100, "loss 1.5", "0:10", 56) ==
        "epoch 1/3 [======>      ]  50% 50/100 loss 1.5, ETA 0:10");
  CHECK(progress_text("epoch 1/3", 50, 100, "loss 1.5", "0:10", 47) == "epoch 1/3  50% 50/100 loss 1.5, ETA 0:10");
  CHECK(progress_text("epoch 1/3", 50, 100, "loss 1.5", "0:10", 14) == "epoch 1/3  50%");
  CHECK(progress_text("e", 100, 100, "", "", 0) == "e 100% 100/100");
  CHECK(progress_text("", 100, 100, "", "", 60) == "[==============================] 100% 100/100");
  CHECK(progress_text("", 0, 0, "", "", 0) == "100% 0/0");
  CHECK(progress_text("x", 1, 2, "", "0:01", 0) == "x  50% 1/2 ETA 0:01");
  for (int width = 1; width < 130; ++width) {
    CHECK(progress_text("epoch 1/3", 50, 100, "loss 1.5", "0:10", width).size() <= static_cast<std::size_t>(width));
  }
}

TEST_CASE("the progress text is cut between characters, never inside one", "[core][progress]") {
  CHECK(mmtrain::progress_text("äöü", 1, 2, "", "", 2) == "äö");
  CHECK(mmtrain::progress_text("äöü", 1, 2, "", "", 8) == "äöü  50%");
}

TEST_CASE("durations read as a clock does", "[core][progress]") {
  using std::chrono::seconds;
  CHECK(mmtrain::format_duration(seconds(0)) == "0:00");
  CHECK(mmtrain::format_duration(seconds(61)) == "1:01");
  CHECK(mmtrain::format_duration(seconds(3600 + 62)) == "1:01:02");
  CHECK(mmtrain::format_duration(seconds(-5)) == "0:00");
}

TEST_CASE("where there is no terminal, progress is a plain line at each interval", "[core][progress]") {
  using std::chrono::milliseconds;
  LogCapture capture;
  SECTION("each update once the interval is over") {
    mmtrain::ProgressLine progress("train", 4, {.plain_interval = milliseconds(0)});
    progress.update(1, "loss 2");
    progress.update(4, "loss 1");
    progress.finish();
    REQUIRE(capture.lines.size() == 2);
    CHECK(capture.lines[0].second == "train  25% 1/4 loss 2, ETA 0:01");
    CHECK(capture.lines[1].second == "train 100% 4/4 loss 1");
  }
  SECTION("none before") {
    mmtrain::ProgressLine progress("train", 1000, {.plain_interval = std::chrono::hours(1)});
    for (int i = 0; i < 1000; ++i) progress.update(i, "");
    CHECK(capture.lines.empty());
  }
  SECTION("only new work counts for the time left") {
    mmtrain::ProgressLine progress("train", 1000, {.plain_interval = milliseconds(0), .start = 999});
    progress.update(999, "");
    REQUIRE(capture.lines.size() == 1);
    CHECK(capture.lines[0].second == "train  99% 999/1000");
  }
}

TEST_CASE("the width of the terminal follows COLUMNS", "[core][progress]") {
  ::setenv("COLUMNS", "43", 1);
  CHECK(mmtrain::terminal_width() == 43);
  ::setenv("COLUMNS", "wide", 1);
  CHECK(mmtrain::terminal_width() > 0);
  ::unsetenv("COLUMNS");
}

// Vectors of Random123 1.14, tests/kat_vectors, "philox4x32 10".
TEST_CASE("philox4x32 gives the published known answers", "[core][random]") {
  using Block = std::array<std::uint32_t, 4>;
  CHECK(mmtrain::philox4x32({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(mmtrain::philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(mmtrain::philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a random stream depends on its name alone", "[core][random]") {
  RandomStream first(42, RandomDomain::sample, 3, 17), other(42, RandomDomain::sample, 3, 18);
  RandomStream again(42, RandomDomain::sample, 3, 17);
  for (int i = 0; i < 100; ++i) {
    other();
    CHECK(first() == again());
  }
}

TEST_CASE("streams of different names share no numbers", "[core][random]") {
  std::set<std::pair<std::uint32_t, std::uint32_t>> seen;
  std::size_t made = 0;
  const auto add = [&](RandomStream stream) {
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t high = stream(), low = stream();
      seen.emplace(high, low);
      ++made;
    }
  };
  for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 32}) {
    for (const auto domain : {RandomDomain::sample, RandomDomain::dropout, RandomDomain::user}) {
      for (const std::uint64_t epoch : {0, 1, 2, 1000}) {
        for (std::uint64_t index = 0; index < 500; ++index) add(RandomStream(seed, domain, epoch, index));
        add(RandomStream(seed, domain, epoch, std::uint64_t{1} << 40));
      }
    }
  }
  CHECK(seen.size() == made);
}

TEST_CASE("uniform numbers fill [0, 1) evenly, within and across streams", "[core][random]") {
  constexpr int kBins = 100, kDraws = 400'000;
  // Chi-square with 99 degrees of freedom: 99.9 % lie between 58 and 149.
  const auto chi_square = [](auto draw) {
    std::array<int, kBins> counts{};
    for (int i = 0; i < kDraws; ++i) {
      const double u = draw(i);
      REQUIRE(u >= 0.0);
      REQUIRE(u < 1.0);
      ++counts[static_cast<std::size_t>(u * kBins)];
    }
    double sum = 0;
    constexpr double kExpected = double{kDraws} / kBins;
    for (const int count : counts) sum += (count - kExpected) * (count - kExpected) / kExpected;
    return sum;
  };
  RandomStream stream(1);
  for (const double statistic :
       {chi_square([&](int) { return stream.uniform(); }), chi_square([](int i) {
          return RandomStream(1, RandomDomain::sample, 0, static_cast<std::uint64_t>(i)).uniform();
        }),
        chi_square([](int i) { return RandomStream(static_cast<std::uint64_t>(i)).uniform(); })}) {
    CHECK(statistic > 58);
    CHECK(statistic < 149);
  }
}

TEST_CASE("neighboring streams and neighboring draws are uncorrelated", "[core][random]") {
  constexpr int kDraws = 100'000;
  constexpr double kBound = 4.0 / 316.2;  // four standard deviations of the correlation of 100,000 pairs
  std::vector<double> base, next_draw, next_index, next_epoch, next_seed, next_domain;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    RandomStream stream(7, RandomDomain::sample, 1, i);
    base.push_back(stream.uniform());
    next_draw.push_back(stream.uniform());
    next_index.push_back(RandomStream(7, RandomDomain::sample, 1, i + 1).uniform());
    next_epoch.push_back(RandomStream(7, RandomDomain::sample, 2, i).uniform());
    next_seed.push_back(RandomStream(8, RandomDomain::sample, 1, i).uniform());
    next_domain.push_back(RandomStream(7, RandomDomain::sampler, 1, i).uniform());
  }
  for (const auto* other : {&next_draw, &next_index, &next_epoch, &next_seed, &next_domain}) {
    CHECK(std::abs(correlation(base, *other)) < kBound);
  }
}

TEST_CASE("uniform_int is unbiased for sizes that do not divide the range", "[core][random]") {
  RandomStream stream(3);
  for (const std::int64_t n : {1, 2, 3, 7, 10}) {
    std::vector<int> counts(static_cast<std::size_t>(n));
    constexpr int kDraws = 70'000;
    for (int i = 0; i < kDraws; ++i) ++counts.at(static_cast<std::size_t>(stream.uniform_int(n)));
    const double expected = double{kDraws} / static_cast<double>(n);
    for (const int count : counts) CHECK(std::abs(count - expected) < 5 * std::sqrt(expected) + 0.5);
  }
  // With 3 * 2^30 the plain product would favor every third value by a factor of two.
  constexpr std::int64_t kLarge = std::int64_t{3} << 30;
  std::array<int, 3> residues{};
  for (int i = 0; i < 30'000; ++i) {
    const std::int64_t value = stream.uniform_int(kLarge);
    REQUIRE(value >= 0);
    REQUIRE(value < kLarge);
    ++residues[static_cast<std::size_t>(value % 3)];
  }
  for (const int count : residues) CHECK(std::abs(count - 10'000) < 410);
}

TEST_CASE("normal numbers have the moments and tails of the standard normal distribution", "[core][random]") {
  RandomStream stream(5);
  constexpr int kDraws = 400'000;
  double sum = 0, squares = 0, cubes = 0, fourths = 0;
  int beyond_two = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = stream.normal();
    sum += x, squares += x * x, cubes += x * x * x, fourths += x * x * x * x;
    beyond_two += std::abs(x) > 2;
  }
  CHECK(std::abs(sum / kDraws) < 0.007);
  CHECK(std::abs(squares / kDraws - 1) < 0.01);
  CHECK(std::abs(cubes / kDraws) < 0.025);
  CHECK(std::abs(fourths / kDraws - 3) < 0.07);
  CHECK(std::abs(static_cast<double>(beyond_two) / kDraws - 0.0455) < 0.0015);
}

TEST_CASE("bernoulli and scaled uniform numbers follow their parameters", "[core][random]") {
  RandomStream stream(6);
  int hits = 0;
  for (int i = 0; i < 100'000; ++i) {
    hits += stream.bernoulli(0.3);
    const double x = stream.uniform(-2.0, 3.0);
    REQUIRE(x >= -2.0);
    REQUIRE(x < 3.0);
  }
  CHECK(std::abs(hits - 30'000) < 600);
  CHECK_FALSE(stream.bernoulli(0.0));
  CHECK(stream.bernoulli(1.0));
}
