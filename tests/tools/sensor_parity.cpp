// Answers tests/python/sensor_parity.py: a JSON job on stdin, {"folder": path, "train": [window, ...], "window": i,
// "mfcc": bool}, gives the recordings as they were prepared, the windows, and series and spectrum of one of them,
// scaled by the statistics of the training windows.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mmtrain/datasets/sensor_features.h"
#include "mmtrain/datasets/sensor_folders.h"

int main() {
  using nlohmann::json;
  using namespace mmtrain::datasets;
  std::string line;
  std::getline(std::cin, line);
  const json job = json::parse(line);
  const SensorData data = read_sensor_folders({job.at("folder").get<std::string>()}, {.threads = 2});
  const SensorFeatures features(data.num_channels(), data.window_rows, data.rate, {.mfcc = job.at("mfcc")});
  const SensorStatistics statistics =
      SensorStatistics::of(data, job.at("train").get<std::vector<std::int64_t>>(), features, 2);
  json answer = {{"rate", data.rate}, {"window_rows", data.window_rows}, {"recordings", json::array()}};
  for (const SensorRecording& recording : data.recordings) {
    answer["recordings"].push_back({{"path", recording.path}, {"samples", recording.samples}});
  }
  for (const SensorWindow& window : data.windows) {
    answer["windows"].push_back({{"recording", window.recording}, {"first_row", window.first_row}});
  }
  std::vector<float> series(static_cast<std::size_t>(data.window_rows * data.num_channels()));
  std::vector<float> spectrum(static_cast<std::size_t>(features.channels() * features.bins() * features.frames()));
  copy_window(data, data.windows.at(job.at("window").get<std::size_t>()), 0, series);
  statistics.scale_series(series);
  features.spectrum(series, spectrum);
  statistics.scale_spectrum(spectrum);
  answer["series"] = series;
  answer["spectrum"] = spectrum;
  answer["bins"] = features.bins();
  answer["frames"] = features.frames();
  std::cout << answer.dump() << '\n';
}
