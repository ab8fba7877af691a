#include "datasets/sensor_windows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "datasets/sensor_activity.h"
#include "mmtrain/core/error.h"

namespace mmtrain::datasets::detail {
namespace {

constexpr double kEventShare = 0.6;  // of a window that an event fills if nothing says how long it is
constexpr double kRowsApart = 0.02;  // of the rows an event file counts, that a recording may have more or less

class Cutter {
 public:
  explicit Cutter(const Cutting& cutting) : cutting_(cutting) {}

  void cut(Item& item) {
    const SensorFile& file = *item.file;
    const auto channels = static_cast<std::int64_t>(item.raw.channels.size());
    std::vector<RawRecording::Person> people = std::move(item.raw.people);
    if (people.empty()) people.push_back({file.person, 0});
    for (std::size_t k = 0; k < people.size(); ++k) {
      const std::int64_t first = people[k].first_row;
      const std::int64_t last = k + 1 < people.size() ? people[k + 1].first_row : item.raw.rows;
      std::vector<float> rows;
      if (people.size() == 1) {
        rows = std::move(item.raw.samples);
      } else {
        rows.assign(item.raw.samples.begin() + first * channels, item.raw.samples.begin() + last * channels);
      }
      SensorRecording recording{.path = file.shown,
                                .person = people[k].name,
                                .part = {},
                                .rate = cutting_.common_rate > 0 ? cutting_.common_rate : item.rate};
      recording.samples = prepared(rows, channels, item.rate, file.format);
      recording.rows = static_cast<std::int64_t>(recording.samples.size()) / channels;
      item.recordings.push_back(std::move(recording));
      if (cutting_.labelling == Labelling::events) {
        cut_events(item);
      } else {
        cut_windows(item, first);
      }
    }
    item.raw.samples = {};
    item.throat_raw = {};
    if (!item.windows.empty()) return;
    item.skip(cutting_.labelling == Labelling::events
                  ? "it has no event"
                  : fmt::format("{} rows are less than a window of {}", item.raw.rows, cutting_.window_rows));
  }

 private:
  // At the rate of the windows, cleaned.
  std::vector<float> prepared(const std::vector<float>& samples, std::int64_t channels, double rate,
                              SensorFormat format) const {
    const bool clean = cutting_.options.cleaning == Cleaning::automatic && format == SensorFormat::text;
    std::vector<float> rows =
        prepare_rows<float>(samples, channels, rate, cutting_.common_rate > 0 ? cutting_.common_rate : rate, clean);
    if (!std::all_of(rows.begin(), rows.end(), [](float value) { return std::isfinite(value); })) {
      throw DataError("its values are so large that cleaning them overflows");
    }
    return rows;
  }

  // When the throat's recording says that something happens; nothing: all the time.
  std::vector<TimeSpan> activity_of(Item& item) const {
    if (item.throat == nullptr || item.file->name.behavior == "rest") return {};
    // Both recordings of a pair begin and end together.
    const double throat_rate = item.rate * item.throat_raw.rows_of_file() / item.raw.rows_of_file();
    const auto channels = static_cast<std::int64_t>(item.throat_raw.channels.size());
    const std::vector<float> samples = prepared(item.throat_raw.samples, channels, throat_rate, item.throat->format);
    const double said = item.file->name.event_seconds;
    return find_activity(samples, channels,
                         {.rate = cutting_.common_rate,
                          .event_seconds = said > 0 ? said : kEventShare * cutting_.options.window_seconds});
  }

  void cut_windows(Item& item, std::int64_t first_raw_row) {
    const std::size_t index = item.recordings.size() - 1;
    const SensorRecording& recording = item.recordings.back();
    const std::vector<TimeSpan> activity = activity_of(item);
    const std::int64_t length = cutting_.window_rows;
    const auto stride =
        std::max<std::int64_t>(1, std::llround(static_cast<double>(length) * (1 - cutting_.options.overlap)));
    for (std::int64_t row = 0; row + length <= recording.rows; row += stride) {
      SensorWindow window{.recording = static_cast<std::int64_t>(index), .first_row = row, .rows = length};
      window.begin = static_cast<double>(row) / recording.rate;
      window.end = static_cast<double>(row + length) / recording.rate;
      const std::optional<std::string> label = label_of(item, window, activity, first_raw_row);
      if (!label) continue;
      window.label = label_index(item, *label);
      item.windows.push_back(window);
    }
  }

  std::optional<std::string> label_of(const Item& item, const SensorWindow& window,
                                      const std::vector<TimeSpan>& activity, std::int64_t first_raw_row) const {
    if (!item.raw.labels.empty()) return majority(item, window, first_raw_row);
    if (cutting_.labelling == Labelling::generic) return item.file->label;
    if (activity.empty() || coverage(activity, window.begin, window.end) > 0.5) {
      return class_of_name(item.file->name.behavior, cutting_.classes);
    }
    return class_of_name("rest", cutting_.classes);
  }

  // The commonest label of the file's rows that the window covers.
  static std::optional<std::string> majority(const Item& item, const SensorWindow& window, std::int64_t first_raw_row) {
    const auto last_row = static_cast<std::int64_t>(item.raw.row_label.size()) - 1;
    const auto row_at = [&](double seconds) {
      return std::clamp<std::int64_t>(first_raw_row + std::llround(seconds * item.rate), 0, last_row);
    };
    std::vector<std::int64_t> counts(item.raw.labels.size());
    for (std::int64_t row = row_at(window.begin); row < row_at(window.end); ++row) {
      ++counts[static_cast<std::size_t>(item.raw.row_label[static_cast<std::size_t>(row)])];
    }
    const auto most = std::max_element(counts.begin(), counts.end());
    const std::string& label = item.raw.labels[static_cast<std::size_t>(most - counts.begin())];
    return label.empty() || *most == 0 ? std::nullopt : std::optional(label);
  }

  static std::int64_t label_index(Item& item, const std::string& label) {
    const auto found = std::find(item.labels.begin(), item.labels.end(), label);
    if (found != item.labels.end()) return found - item.labels.begin();
    item.labels.push_back(label);
    return static_cast<std::int64_t>(item.labels.size()) - 1;
  }

  // `rows` is the length of the event until all are known.
  void cut_events(Item& item) {
    const EventRecording& event = *item.event;
    const SensorRecording& recording = item.recordings.back();
    const double seconds = static_cast<double>(recording.rows) / recording.rate;
    const auto counted = static_cast<double>(event.rows);
    if (event.rows > 0 && std::abs(counted - item.raw.rows_of_file()) > kRowsApart * counted) {
      item.say(*item.file, fmt::format("the event file counts {} rows, it has {}", event.rows, item.raw.rows));
    }
    const std::vector<std::string>& classes = cutting_.classes;
    const bool known = std::find(classes.begin(), classes.end(), event.label) != classes.end();
    if (!known && std::find(classes.begin(), classes.end(), "other") == classes.end()) {
      throw DataError(fmt::format("'{}' is none of the classes", event.label));
    }
    std::int64_t outside = 0;
    for (const double start : event.starts) {
      const double end = std::min(start + event.event_seconds, seconds);
      SensorWindow window{.recording = static_cast<std::int64_t>(item.recordings.size()) - 1};
      window.begin = start;
      window.end = end;
      window.rows = end > start ? std::llround((end - start) * recording.rate) : 0;
      window.first_row =
          window.rows > 0 ? std::min<std::int64_t>(std::llround(start * recording.rate), recording.rows - window.rows)
                          : 0;
      if (window.rows < 2) {
        ++outside;
        continue;
      }
      window.label = label_index(item, known ? event.label : "other");
      item.windows.push_back(window);
    }
    if (outside > 0) {
      item.say(*item.file,
               fmt::format("{} events begin behind its end, at {:.1f} s, and are left out", outside, seconds));
    }
  }

  const Cutting& cutting_;
};

}  // namespace

void cut_item(Item& item, const Cutting& cutting) { Cutter(cutting).cut(item); }

}  // namespace mmtrain::datasets::detail
