// Answers tests/python/sensor_parity.py: a JSON job on stdin, {"folder": path, "train": [window, ...], "window": i,
// "mfcc": bool, "rows": {name: {"values": [...], "rate": samples a second}}}, gives the recordings as they were
// prepared, the windows, and series and spectrum of one of them, scaled by the statistics of the training windows.
// `exact` is the same of `rows`, before anything is rounded to single precision.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "datasets/sensor_reader.h"
#include "mmtrain/datasets/sensor_features.h"
#include "mmtrain/datasets/sensor_folders.h"

using nlohmann::json;
using namespace mmtrain::datasets;

namespace {

// All recordings prepared, and the spectrum of the window to scale.
json in_double(const json& job, const SensorData& data, const SensorFeatures& features,
               const SensorStatistics& statistics) {
  json answer = {{"recordings", json::object()}};
  const auto channels = static_cast<std::size_t>(data.num_channels());
  const SensorWindow& window = data.windows.at(job.at("window").get<std::size_t>());
  const std::string& path = data.recordings.at(static_cast<std::size_t>(window.recording)).path;
  for (const auto& [name, rows] : job.at("rows").items()) {
    const std::vector<double> prepared = mmtrain::datasets::detail::prepare_rows<double>(
        rows.at("values").get<std::vector<float>>(), data.num_channels(), rows.at("rate"), data.rate, /*clean=*/true);
    answer["recordings"][name] = prepared;
    if (!path.ends_with(name)) continue;
    std::vector<double> series;
    for (std::size_t k = 0; k < static_cast<std::size_t>(data.window_rows) * channels; ++k) {
      const double value = prepared.at(static_cast<std::size_t>(window.first_row) * channels + k);
      series.push_back((value - statistics.series_mean[k % channels]) / statistics.series_std[k % channels]);
    }
    std::vector<double> spectrum(static_cast<std::size_t>(features.channels() * features.bins() * features.frames()));
    features.spectrum(series, spectrum);
    answer["spectrum"] = spectrum;
  }
  answer["series_mean"] = statistics.series_mean;
  answer["series_std"] = statistics.series_std;
  return answer;
}

}  // namespace

int main() {
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
  answer["exact"] = in_double(job, data, features, statistics);
  answer["bins"] = features.bins();
  answer["frames"] = features.frames();
  std::cout << answer.dump() << '\n';
}
