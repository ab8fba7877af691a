#include "bench/measurements.h"

#include <fmt/format.h>
#include <mmtrain/mmtrain.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bench/measure.h"
#include "common/cli.h"

namespace mmtrain::bench {
namespace {

// Calls `work(first, last)` for equal shares of [0, count), each on a thread.
void in_shares(int threads, std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& work) {
  std::vector<std::jthread> pool;
  for (int i = 0; i < threads; ++i) pool.emplace_back(work, count * i / threads, count * (i + 1) / threads);
}

struct WindowOptions {
  std::int64_t window = 128, stride = 64, first_column = 0, columns = 0;
};

// The windows, [windows, columns, rows] as nets want them; returns how many there are.
std::int64_t cut_windows(const media::Table& table, const WindowOptions& options, int threads) {
  const std::int64_t count = table.window_count(options.window, options.stride), all = table.columns();
  const std::int64_t columns = options.columns > 0 ? options.columns : all - options.first_column;
  if (options.first_column + columns > all) throw ConfigError(fmt::format("the file has only {} columns", all));
  const std::int64_t size = columns * options.window;
  const auto windows = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(count * size));
  in_shares(threads, count, [&](std::int64_t first, std::int64_t last) {
    float* out = windows.get() + first * size;
    for (std::int64_t i = first; i < last; ++i) {
      const float* const window = table.window(i * options.stride, options.window).data() + options.first_column;
      for (std::int64_t column = 0; column < columns; ++column) {
        for (std::int64_t row = 0; row < options.window; ++row) *out++ = window[row * all + column];
      }
    }
  });
  return count;
}

}  // namespace

int text(int argc, char** argv) {
  std::string file;
  int threads = 2;
  WindowOptions options;
  programs::Cli cli("mmtrain_bench text", "MB of text per second from a file to windows of floats in memory.");
  cli.add("file", file, "recording as delimited text");
  cli.add("threads", threads, "threads that parse");
  cli.add("window", options.window, "rows of a window");
  cli.add("stride", options.stride, "rows from one window to the next");
  cli.add("first_column", options.first_column, "the first column of the windows, from 0");
  cli.add("columns", options.columns, "columns of the windows, 0: to the last one");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (file.empty()) throw ConfigError("--file FILE is needed: a recording as delimited text");
  if (threads < 1 || options.window < 1 || options.stride < 1) {
    throw ConfigError("--threads, --window and --stride must be positive");
  }
  if (options.first_column < 0 || options.columns < 0) {
    throw ConfigError("--first_column and --columns must not be negative");
  }

  const double megabytes = static_cast<double>(std::filesystem::file_size(file)) / 1e6;
  std::vector<double> rates, read_rates;
  for (int repeat = -1; repeat < kRepeats; ++repeat) {  // the first one warms the page cache
    const Clock::time_point start = Clock::now();
    const media::Table table = media::read_delimited(file, {.threads = threads});
    const double read_seconds = seconds_since(start);
    if (cut_windows(table, options, threads) == 0) throw DataError("the file has no whole window: " + file);
    if (repeat < 0) continue;
    rates.push_back(megabytes / seconds_since(start));
    read_rates.push_back(megabytes / read_seconds);
  }
  const std::string name = fmt::format("text/threads{}", threads);
  print_measurement(name, "MB/s", rates);
  print_measurement(name + "/reading", "MB/s", read_rates);
  return 0;
}

}  // namespace mmtrain::bench
