#include "datasets/uci_har.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "datasets/sensor_reader.h"
#include "mmtrain/core/error.h"
#include "mmtrain/media/delimited.h"
#include "mmtrain/media/text.h"

namespace mmtrain::datasets::detail {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kWindow = 128, kClasses = 6;
constexpr double kRate = 50;
constexpr const char* kSignals = "Inertial Signals";
constexpr std::array kChannels{"total_acc_x", "total_acc_y", "total_acc_z", "body_acc_x", "body_acc_y",
                               "body_acc_z",  "body_gyro_x", "body_gyro_y", "body_gyro_z"};

// A list of whole numbers, one a line. There are copies in UTF-16.
std::vector<std::int64_t> read_integers(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  if (!stream) throw DataError(fmt::format("[uci_har] cannot read '{}'", utf8_name(file)));
  const std::string text = media::to_utf8(std::as_bytes(std::span(bytes)));
  std::vector<std::int64_t> numbers;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    while (at != end && (*at == ' ' || *at == '\r' || *at == '\n' || *at == '\t')) ++at;
    if (at == end) return numbers;
    std::int64_t number = 0;
    const auto [stop, error] = std::from_chars(at, end, number);
    if (error != std::errc()) {
      throw DataError(fmt::format("[uci_har] entry {} of '{}' is no number", numbers.size() + 1, utf8_name(file)));
    }
    numbers.push_back(number);
    at = stop;
  }
}

void read_part(const fs::path& root, const std::string& part, SensorData& data) {
  const fs::path folder = root / part;
  const std::vector<std::int64_t> labels = read_integers(folder / fmt::format("y_{}.txt", part));
  const std::vector<std::int64_t> people = read_integers(folder / fmt::format("subject_{}.txt", part));
  std::vector<media::Table> signals;
  for (const char* channel : kChannels) {
    const fs::path file = folder / kSignals / fmt::format("{}_{}.txt", channel, part);
    media::Table table = media::read_delimited(
        file, {.separator = ' ', .header = media::DelimitedOptions::Header::no, .columns = static_cast<int>(kWindow)});
    // Leaving a line out would shift all that follow against the labels.
    if (table.malformed_count() > 0 || table.rows() != static_cast<std::int64_t>(labels.size())) {
      throw DataError(fmt::format("[uci_har] '{}' has {} windows and {} malformed lines, but there are {} labels",
                                  utf8_name(file), table.rows(), table.malformed_count(), labels.size()));
    }
    signals.push_back(std::move(table));
  }
  if (people.size() != labels.size()) {
    throw DataError(
        fmt::format("[uci_har] {} labels, but {} subjects in '{}'", labels.size(), people.size(), utf8_name(folder)));
  }
  constexpr std::size_t kChannelCount = kChannels.size();
  for (std::size_t k = 0; k < labels.size(); ++k) {
    if (labels[k] < 1 || labels[k] > kClasses) {
      throw DataError(fmt::format("[uci_har] label {} of y_{}.txt is {}: it must be 1 to 6", k + 1, part, labels[k]));
    }
    if (k == 0 || people[k] != people[k - 1]) {
      data.recordings.push_back({.path = fmt::format("{} ({}, subject {})", utf8_name(root), part, people[k]),
                                 .person = fmt::format("{:02}", people[k]),
                                 .part = part,
                                 .rate = kRate,
                                 .rows = 0,
                                 .samples = {}});
    }
    const auto finite = [&](const media::Table& signal) {
      for (std::int64_t row = 0; row < kWindow; ++row) {
        if (!std::isfinite(signal.at(static_cast<std::int64_t>(k), row))) return false;
      }
      return true;
    };
    const auto broken = std::find_if_not(signals.begin(), signals.end(), finite);
    if (broken != signals.end()) {
      data.problems.push_back(
          {fmt::format("{}_{}.txt", kChannels[static_cast<std::size_t>(broken - signals.begin())], part),
           fmt::format("window {} is left out: not all of it are numbers", k + 1)});
      ++data.malformed_lines;
      continue;
    }
    SensorRecording& recording = data.recordings.back();
    const double begin = static_cast<double>(recording.rows) / kRate;
    data.windows.push_back({.recording = static_cast<std::int64_t>(data.recordings.size()) - 1,
                            .first_row = recording.rows,
                            .rows = kWindow,
                            .label = labels[k] - 1,
                            .begin = begin,
                            .end = begin + static_cast<double>(kWindow) / kRate});
    for (std::int64_t row = 0; row < kWindow; ++row) {
      for (std::size_t channel = 0; channel < kChannelCount; ++channel) {
        recording.samples.push_back(signals[channel].at(static_cast<std::int64_t>(k), row));
      }
    }
    recording.rows += kWindow;
  }
}

}  // namespace

fs::path find_uci_har(const fs::path& folder) {
  std::error_code error;
  for (const fs::path& root : {folder, folder / "UCI HAR Dataset"}) {
    if (fs::is_directory(root / "train" / kSignals, error)) return root;
  }
  return {};
}

void read_uci_har(const fs::path& root, SensorData& data) {
  data.channels.assign(kChannels.begin(), kChannels.end());
  data.class_names = {"WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING"};
  data.rate = data.file_rate = kRate;
  data.window_rows = kWindow;
  for (const char* part : {"train", "test"}) {
    std::error_code error;
    if (fs::is_directory(root / part, error)) read_part(root, part, data);
  }
}

}  // namespace mmtrain::datasets::detail
