#include "bench/measure.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "mmtrain/core/error.h"

namespace mmtrain::bench {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void print_measurement(const std::string& name, const std::string& unit, const std::vector<double>& repeats) {
  const nlohmann::ordered_json line = {
      {"name", name}, {"value", median(repeats)}, {"unit", unit}, {"repeats", repeats}};
  std::puts(line.dump().c_str());
  std::fflush(stdout);
}

std::vector<double> rates_of(const std::function<void()>& pass, double work, double seconds) {
  pass();
  std::vector<double> repeats;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const Clock::time_point start = Clock::now();
    int passes = 0;
    do {
      pass();
      ++passes;
    } while (seconds_since(start) < seconds / kRepeats);
    repeats.push_back(passes * work / seconds_since(start));
  }
  return repeats;
}

void spread(int threads, std::size_t count, const std::function<void(std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  const auto take = [&] {
    for (std::size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::jthread> others;
  for (int k = 1; k < threads; ++k) others.emplace_back(take);
  take();
}

std::vector<std::filesystem::path> media_files(const std::string& folder, const std::string& kind,
                                               const std::vector<std::string>& extensions) {
  if (!std::filesystem::is_directory(folder)) {
    throw ConfigError(fmt::format("--data_dir DIR is needed, a folder of {} files; got '{}'", kind, folder));
  }
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    if (std::find(extensions.begin(), extensions.end(), extension) != extensions.end()) paths.push_back(entry.path());
  }
  if (paths.empty()) {
    throw DataError(fmt::format("no {} file ({}) in {}", kind, fmt::join(extensions, ", "), folder));
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace mmtrain::bench
