#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace mmtrain::bench {

using Clock = std::chrono::steady_clock;

/// How often a measurement is repeated.
constexpr int kRepeats = 5;

double seconds_since(Clock::time_point start);

/// One line of JSON on stdout: the repeats and their median.
void print_measurement(const std::string& name, const std::string& unit, const std::vector<double>& repeats);

/// Work per second in each of the repeats of `seconds` in all. One pass, which does `work`, warms up.
std::vector<double> rates_of(const std::function<void()>& pass, double work, double seconds);

/// Calls `work(i)` for all i below `count`, on `threads` threads.
void spread(int threads, std::size_t count, const std::function<void(std::size_t)>& work);

/// The files with one of the extensions in a folder of `kind` files, in order. Throws if there is none.
std::vector<std::filesystem::path> media_files(const std::string& folder, const std::string& kind,
                                               const std::vector<std::string>& extensions);

}  // namespace mmtrain::bench
