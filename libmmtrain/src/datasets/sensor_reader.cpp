#include "datasets/sensor_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <map>
#include <optional>
#include <span>

#include "mmtrain/core/error.h"
#include "mmtrain/media/delimited.h"

namespace mmtrain::datasets::detail {
namespace {

constexpr std::size_t kTextChannels = 6;
constexpr std::array<const char*, kTextChannels> kTextChannelNames{"ppg_green", "ppg_infrared", "ppg_red",
                                                                   "imu_x",     "imu_y",        "imu_z"};
constexpr double kSaturatedShare = 0.2;  // of the samples, at one end of the range

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

template <std::size_t N>
std::optional<std::int64_t> find_column(const std::vector<std::string>& names,
                                        const std::array<const char*, N>& candidates) {
  for (const char* candidate : candidates) {
    for (std::size_t k = 0; k < names.size(); ++k) {
      if (lower(names[k]) == candidate) return static_cast<std::int64_t>(k);
    }
  }
  return std::nullopt;
}

// Says how much of a long file is read.
void note_share(const std::filesystem::path& file, std::uintmax_t max_bytes, RawRecording& recording) {
  constexpr double kMegabyte = 1 << 20;
  const std::uintmax_t size = std::filesystem::file_size(file);
  if (size <= max_bytes) return;
  const auto all = static_cast<double>(size), read = static_cast<double>(max_bytes);
  recording.share = read / all;
  recording.remarks.push_back(
      fmt::format("it has {:.4g} MB, of which the first {:.4g} MB are read", all / kMegabyte, read / kMegabyte));
}

template <class T>
void note_malformed(const media::BasicTable<T>& table, RawRecording& recording) {
  recording.malformed_lines = table.malformed_count();
  if (table.malformed_count() == 0) return;
  const media::MalformedLine& first = table.malformed().front();
  recording.remarks.push_back(fmt::format("{} malformed lines are left out, the first is line {}: {}",
                                          table.malformed_count(), first.line, first.reason));
}

// Keeps the rows whose channels are all finite and says how many are not.
template <class T>
std::vector<std::int64_t> take_finite_rows(const media::BasicTable<T>& table, const std::vector<std::int64_t>& columns,
                                           RawRecording& recording) {
  std::vector<std::int64_t> kept;
  recording.samples.reserve(static_cast<std::size_t>(table.rows()) * columns.size());
  for (std::int64_t row = 0; row < table.rows(); ++row) {
    const auto finite = [&](std::int64_t column) { return std::isfinite(static_cast<float>(table.at(row, column))); };
    if (!std::all_of(columns.begin(), columns.end(), finite)) continue;
    for (const std::int64_t column : columns) recording.samples.push_back(static_cast<float>(table.at(row, column)));
    kept.push_back(row);
  }
  recording.rows = static_cast<std::int64_t>(kept.size());
  if (const std::int64_t lost = table.rows() - recording.rows; lost > 0) {
    recording.malformed_lines += lost;
    recording.remarks.push_back(fmt::format("{} rows without a number in every channel are left out", lost));
  }
  return kept;
}

// A channel that does not move tells nothing, one that stands at an end of its range for long is cut off there.
void remark_dead_channels(RawRecording& recording) {
  const std::size_t channels = recording.channels.size();
  for (std::size_t channel = 0; channel < channels; ++channel) {
    float low = recording.samples[channel], high = low;
    for (std::size_t at = channel; at < recording.samples.size(); at += channels) {
      low = std::min(low, recording.samples[at]);
      high = std::max(high, recording.samples[at]);
    }
    if (low == high) {
      recording.remarks.push_back(fmt::format("channel {} never changes: {}", recording.channels[channel], low));
      continue;
    }
    std::int64_t at_end = 0;
    for (std::size_t at = channel; at < recording.samples.size(); at += channels) {
      at_end += recording.samples[at] == low || recording.samples[at] == high;
    }
    const double share = static_cast<double>(at_end) / static_cast<double>(recording.rows);
    // Channels of few different values, switches say, stand at their ends as they should.
    if (share > kSaturatedShare && high - low > 16) {
      recording.remarks.push_back(fmt::format("channel {} is saturated: {:.0f} % of its samples are {} or {}",
                                              recording.channels[channel], 100 * share, low, high));
    }
  }
}

// Samples a second by a column of times in seconds, milliseconds, microseconds or nanoseconds; 0 if it is none.
double rate_of(const media::TableDouble& table, std::int64_t column, const std::vector<std::int64_t>& rows) {
  if (rows.size() < 3) return 0;
  std::vector<double> steps;
  for (std::size_t k = 1; k < rows.size(); ++k) {
    const double step = table.at(rows[k], column) - table.at(rows[k - 1], column);
    if (step > 0) steps.push_back(step);
  }
  if (steps.size() < rows.size() / 2) return 0;
  const auto middle = steps.begin() + static_cast<std::ptrdiff_t>(steps.size() / 2);
  std::nth_element(steps.begin(), middle, steps.end());
  for (const double unit : {1.0, 1e-3, 1e-6, 1e-9}) {
    const double rate = 1 / (*middle * unit);
    if (rate >= 1 && rate <= 1000) return rate;
  }
  return 0;
}

std::string text_at(const media::TableDouble& table, std::int64_t row, std::int64_t column) {
  const double value = table.at(row, column);
  if (!std::isfinite(value)) return "";
  const std::vector<std::string>& texts = table.categories(column);
  const auto index = static_cast<std::size_t>(std::max(0.0, value));
  return index < texts.size() && !texts.empty() ? texts[index] : fmt::format("{:g}", value);
}

}  // namespace

RawRecording read_sensor_text(const std::filesystem::path& file, std::uintmax_t max_bytes) {
  const media::Table table = media::read_delimited(file, {.separator = 0,
                                                          .header = media::DelimitedOptions::Header::yes,
                                                          .columns = kTextChannels,
                                                          .threads = 1,
                                                          .max_bytes = max_bytes});
  RawRecording recording;
  recording.channels.assign(kTextChannelNames.begin(), kTextChannelNames.end());
  note_malformed(table, recording);
  take_finite_rows(table, {0, 1, 2, 3, 4, 5}, recording);
  if (recording.rows == 0) {
    throw DataError(recording.remarks.empty() ? "no row of six numbers" : recording.remarks.front());
  }
  note_share(file, max_bytes, recording);
  for (std::int64_t column = 0; column < table.columns(); ++column) {
    if (!table.categories(column).empty()) throw DataError("it holds text where numbers should be");
  }
  remark_dead_channels(recording);
  return recording;
}

RawRecording read_sensor_csv(const std::filesystem::path& file, std::uintmax_t max_bytes) {
  constexpr std::array kLabel{"label", "class", "activity"};
  constexpr std::array kPerson{"person", "subject", "user"};
  constexpr std::array kTime{"time", "timestamp", "t"};
  const media::TableDouble table = media::read_delimited_double(
      file, {.header = media::DelimitedOptions::Header::automatic, .threads = 1, .max_bytes = max_bytes});
  if (table.rows() == 0) throw DataError("no row of numbers");
  std::vector<std::string> names = table.names();
  if (names.empty()) {
    for (std::int64_t k = 0; k < table.columns(); ++k) names.push_back(fmt::format("channel_{}", k));
  }
  const auto label = find_column(names, kLabel), person = find_column(names, kPerson), time = find_column(names, kTime);
  RawRecording recording;
  note_share(file, max_bytes, recording);
  std::vector<std::int64_t> columns;
  for (std::int64_t k = 0; k < table.columns(); ++k) {
    if (label == k || person == k || time == k) continue;
    const std::string& name = names[static_cast<std::size_t>(k)];
    if (!table.categories(k).empty()) {
      recording.remarks.push_back(fmt::format("column '{}' is text and no channel", name));
      continue;
    }
    columns.push_back(k);
    recording.channels.push_back(name);
  }
  if (columns.empty()) throw DataError("it has no column of numbers");
  note_malformed(table, recording);
  const std::vector<std::int64_t> rows = take_finite_rows(table, columns, recording);
  if (rows.empty()) throw DataError("no row has a number in every channel");
  remark_dead_channels(recording);
  if (time) recording.rate = rate_of(table, *time, rows);
  if (label) {
    std::map<std::string, std::int64_t> known;
    for (const std::int64_t row : rows) {
      const auto [entry, fresh] = known.try_emplace(text_at(table, row, *label), recording.labels.size());
      if (fresh) recording.labels.push_back(entry->first);
      recording.row_label.push_back(entry->second);
    }
  }
  if (person) {
    for (std::size_t k = 0; k < rows.size(); ++k) {
      const std::string name = text_at(table, rows[k], *person);
      if (recording.people.empty() || recording.people.back().name != name) {
        recording.people.push_back({name, static_cast<std::int64_t>(k)});
      }
    }
  }
  return recording;
}

std::string utf8_name(const std::filesystem::path& file) {
  const std::string name = file.string();
  return media::to_utf8(std::as_bytes(std::span(name)));
}

}  // namespace mmtrain::datasets::detail
