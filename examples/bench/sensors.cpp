#include "bench/measurements.h"

#include <fmt/format.h>
#include <mmtrain/mmtrain.h>

#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "common/cli.h"

namespace mmtrain::bench {

// Reading, filtering, cutting and the spectra of sensor recordings: what happens before a net sees them.
int sensors(int argc, char** argv) {
  std::string data_dir;
  int threads = 2;
  programs::Cli cli("mmtrain_bench sensors", "Recordings of sensors: files to scaled spectra of windows.");
  cli.add("data_dir", data_dir, "folder of recordings");
  cli.add("threads", threads, "threads");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (data_dir.empty()) throw ConfigError("--data_dir DIR is needed: a folder of recordings");
  std::vector<double> rates;
  for (int repeat = -1; repeat < kRepeats; ++repeat) {  // the first one warms the page cache
    const Clock::time_point start = Clock::now();
    const datasets::SensorData data = datasets::read_sensor_folders({data_dir}, {.threads = threads});
    const datasets::SensorFeatures features(data.num_channels(), data.window_rows, data.rate);
    std::vector<std::int64_t> all(data.windows.size());
    std::iota(all.begin(), all.end(), 0);
    datasets::SensorStatistics::of(data, all, features, threads);
    if (repeat >= 0) rates.push_back(static_cast<double>(data.windows.size()) / seconds_since(start));
  }
  print_measurement(fmt::format("sensors/threads{}", threads), "windows/s", rates);
  return 0;
}

}  // namespace mmtrain::bench
