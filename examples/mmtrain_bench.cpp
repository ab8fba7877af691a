// Measures parts of the library. Prints one JSON line a measurement and nothing else on stdout.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <mmtrain/core/error.h>
#include <mmtrain/core/log.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "bench/measurements.h"
#include "common/program.h"

namespace {

using namespace mmtrain;

struct Measurement {
  std::string_view name;
  int (*run)(int argc, char** argv);
};
constexpr std::array kMeasurements{
    Measurement{"images", bench::images}, Measurement{"clips", bench::clips}, Measurement{"mel", bench::mel},
    Measurement{"video", bench::video},   Measurement{"text", bench::text},   Measurement{"sensors", bench::sensors},
    Measurement{"cache", bench::cache},   Measurement{"step", bench::step},   Measurement{"scaling", bench::scaling},
};

int run(int argc, char** argv) {
  // Stdout is for measurements alone.
  log::set_sink([](log::Level, std::string_view text) { fmt::print(stderr, "{}\n", text); });
  const std::string_view what = argc > 1 ? argv[1] : "";
  std::vector<std::string_view> names;
  for (const Measurement& measurement : kMeasurements) {
    if (what == measurement.name) return measurement.run(argc - 1, argv + 1);
    names.push_back(measurement.name);
  }
  if (what == "--help" || what == "-h") {
    fmt::print("mmtrain_bench {} [options]\n  (mmtrain_bench WHAT --help lists the options of one)\n",
               fmt::join(names, "|"));
    return 0;
  }
  throw ConfigError(fmt::format("the first argument says what to measure: {}; got '{}'", fmt::join(names, ", "), what));
}

}  // namespace

int main(int argc, char** argv) {
  return programs::run_program([&](OutOfMemoryContext&) { return run(argc, argv); });
}
