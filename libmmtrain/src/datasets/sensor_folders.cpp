#include "mmtrain/datasets/sensor_folders.h"

#include <fmt/format.h>
#include <glob.h>
#include <strings.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "core/parallel_for.h"
#include "datasets/sensor_items.h"
#include "datasets/sensor_labels.h"
#include "datasets/sensor_reader.h"
#include "datasets/sensor_windows.h"
#include "datasets/uci_har.h"
#include "mmtrain/core/error.h"

namespace mmtrain::datasets {
namespace fs = std::filesystem;
namespace {

using detail::Item;
using detail::Labelling;
using detail::RawRecording;
using detail::SensorFile;
using detail::SensorFormat;

constexpr double kNominalRate = 100;
constexpr double kLeastRate = 10, kMostRate = 2000;  // of text recordings; anything else is a wrong duration

void validate(const SensorOptions& options) {
  const auto require = [](bool fine, const char* name, const char* rule, double value) {
    if (!fine) throw ConfigError(fmt::format("[sensor_folders] {} must {}, got {}", name, rule, value));
  };
  require(options.window_seconds > 0 && options.window_seconds <= 3600, "window_seconds", "be above 0 and at most 3600",
          options.window_seconds);
  require(options.overlap >= 0 && options.overlap < 1, "overlap", "be at least 0 and below 1", options.overlap);
  require(options.rate >= 0 && options.rate <= 100000, "rate", "be between 0 and 100000", options.rate);
}

RawRecording read_recording(const fs::path& file, SensorFormat format, std::uintmax_t max_bytes) {
  return format == SensorFormat::text ? detail::read_sensor_text(file, max_bytes)
                                      : detail::read_sensor_csv(file, max_bytes);
}

// Samples a second of a recording that lasts so long; 0 if that cannot be.
double rate_by(const RawRecording& raw, double seconds) {
  const double rate = seconds > 0 ? raw.rows_of_file() / seconds : 0;
  return rate >= kLeastRate && rate <= kMostRate ? rate : 0;
}

class FolderReader {
 public:
  explicit FolderReader(const SensorOptions& options)
      : options_(options), threads_(options.threads > 0 ? options.threads : mmtrain::detail::machine_threads()) {}

  SensorData read(const std::vector<fs::path>& folders) {
    std::vector<SensorFile> files;
    if (!find(folders, files)) read_files(std::move(files));
    drop_foreign_channels();
    if (data_.windows.empty()) throw DataError(nothing_usable(folders));
    return std::move(data_);
  }

 private:
  // True if the folders are UCI HAR, which is read at once.
  bool find(const std::vector<fs::path>& folders, std::vector<SensorFile>& files) {
    std::set<fs::path> seen;
    std::vector<std::pair<std::string, std::string>> unreadable;
    bool har = false;
    for (const fs::path& folder : folders) {
      if (const fs::path root = detail::find_uci_har(folder); !root.empty()) {
        detail::read_uci_har(root, data_);
        har = true;
        continue;
      }
      for (SensorFile& file : detail::find_sensor_files(folder, unreadable)) {
        std::error_code error;
        if (seen.insert(fs::weakly_canonical(file.path, error)).second) files.push_back(std::move(file));
      }
    }
    for (auto& [path, reason] : unreadable) data_.problems.push_back({path, reason});
    if (har && !files.empty()) {
      throw DataError("[sensor_folders] UCI HAR and other recordings cannot be read together: their channels differ");
    }
    return har;
  }

  void read_files(std::vector<SensorFile> files) {
    chosen_ = detail::choose_items(std::move(files), options_);
    std::move(chosen_.problems.begin(), chosen_.problems.end(), std::back_inserter(data_.problems));
    data_.skipped_files += chosen_.skipped_files;
    for_each([&](Item& item) { read_raw(item); });
    settle_rates();
    const detail::Cutting cutting{.options = options_,
                                  .labelling = chosen_.labelling,
                                  .classes = chosen_.classes,
                                  .common_rate = common_rate_,
                                  .window_rows = data_.window_rows};
    for_each([&](Item& item) { cut_item(item, cutting); });
    merge();
  }

  template <class Work>
  void for_each(const Work& work) {
    mmtrain::detail::parallel_for(threads_, static_cast<std::int64_t>(chosen_.items.size()), [&](std::int64_t k) {
      Item& item = chosen_.items[static_cast<std::size_t>(k)];
      if (item.skipped) return;
      try {
        work(item);
      } catch (const DataError& error) {
        item.skip(error.what());
      }
    });
  }

  void read_raw(Item& item) const {
    item.raw = read_file(item, *item.file);
    if (item.throat != nullptr) {
      try {
        item.throat_raw = read_file(item, *item.throat);
      } catch (const DataError& error) {
        item.say(*item.throat, fmt::format("left out: {}; the ear's recording has its label all over", error.what()));
        item.throat = nullptr;
      }
    }
    item.rate = item.raw.rate;
    double seconds = item.event != nullptr ? item.event->total_seconds : 0;
    if (seconds == 0 && item.file->format == SensorFormat::text) seconds = item.file->name.total_seconds;
    if (item.rate == 0 && seconds > 0) {
      item.rate = rate_by(item.raw, seconds);
      if (item.rate == 0) {
        item.say(*item.file, fmt::format("{:.0f} rows in {:g} s cannot be: its rate is taken as unknown",
                                         item.raw.rows_of_file(), seconds));
      }
    }
  }

  RawRecording read_file(Item& item, const SensorFile& file) const {
    RawRecording raw = read_recording(file.path, file.format, options_.max_file_bytes);
    item.malformed_lines += raw.malformed_lines;
    for (std::string& remark : raw.remarks) item.say(file, std::move(remark));
    return raw;
  }

  // A recording that does not tell its rate has that of the others.
  void settle_rates() {
    std::vector<double> known;
    for (const Item& item : chosen_.items) {
      if (!item.skipped && item.rate > 0) known.push_back(item.rate);
    }
    const double usual = known.empty() ? (options_.rate > 0 ? options_.rate : kNominalRate) : median(known);
    for (Item& item : chosen_.items) {
      if (item.rate == 0) item.rate = usual;
    }
    const bool windows_of_text = chosen_.labelling == Labelling::names;
    common_rate_ = options_.rate > 0 ? options_.rate : windows_of_text ? kNominalRate : 0;
    // Windows have to be equally long in rows and in seconds.
    if (common_rate_ == 0 && chosen_.labelling == Labelling::generic) common_rate_ = usual;
    data_.rate = common_rate_ > 0 ? common_rate_ : usual;
    data_.file_rate = usual;
    if (chosen_.labelling != Labelling::events) {
      data_.window_rows = std::max<std::int64_t>(1, std::llround(options_.window_seconds * data_.rate));
    }
  }

  static double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  }

  void merge() {
    settle_classes();
    std::vector<double> lengths;
    for (Item& item : chosen_.items) {
      std::move(item.problems.begin(), item.problems.end(), std::back_inserter(data_.problems));
      data_.malformed_lines += item.malformed_lines;
      data_.skipped_files += item.skipped;
      if (item.skipped) continue;
      const auto base = static_cast<std::int64_t>(data_.recordings.size());
      for (SensorWindow window : item.windows) {
        const std::string& label = item.labels[static_cast<std::size_t>(window.label)];
        const auto index = std::find(data_.class_names.begin(), data_.class_names.end(), label);
        if (index == data_.class_names.end()) continue;
        window.label = index - data_.class_names.begin();
        window.recording += base;
        data_.windows.push_back(window);
        lengths.push_back(static_cast<double>(window.rows));
      }
      for (SensorRecording& recording : item.recordings) {
        channels_.push_back(item.raw.channels);
        data_.recordings.push_back(std::move(recording));
      }
      if (options_.cleaning == Cleaning::automatic && item.file->format == SensorFormat::text) {
        data_.cleaned = true;
        data_.without_notch += !detail::holds_power_line(item.rate);
      }
    }
    if (chosen_.labelling == Labelling::events && !lengths.empty()) crop_to(static_cast<std::int64_t>(median(lengths)));
    std::erase_if(data_.problems, [](const SensorProblem& problem) { return problem.reason.empty(); });
  }

  void settle_classes() {
    data_.class_names = chosen_.classes;
    if (!data_.class_names.empty()) return;
    std::set<std::string> found;
    for (const Item& item : chosen_.items) {
      if (!item.skipped) found.insert(item.labels.begin(), item.labels.end());
    }
    data_.class_names.assign(found.begin(), found.end());
  }

  // Brings all events to one length: longer ones lose both ends.
  void crop_to(std::int64_t rows) {
    data_.window_rows = rows;
    for (SensorWindow& window : data_.windows) {
      if (window.rows <= rows) continue;
      window.first_row += (window.rows - rows) / 2;
      window.rows = rows;
    }
  }

  // Nets have one number of channels: recordings unlike most of the others are left out.
  void drop_foreign_channels() {
    if (channels_.empty()) return;
    std::map<std::vector<std::string>, std::int64_t> counts;
    for (const auto& channels : channels_) ++counts[channels];
    const auto usual = std::max_element(counts.begin(), counts.end(),
                                        [](const auto& a, const auto& b) { return a.second < b.second; });
    data_.channels = usual->first;
    if (counts.size() == 1) return;
    for (std::size_t k = 0; k < channels_.size(); ++k) {
      if (channels_[k] == data_.channels) continue;
      data_.problems.push_back({data_.recordings[k].path, "left out: its channels are not those of most recordings"});
      ++data_.skipped_files;
      data_.recordings[k].samples = {};
    }
    std::erase_if(data_.windows, [&](const SensorWindow& window) {
      return channels_[static_cast<std::size_t>(window.recording)] != data_.channels;
    });
  }

  std::string nothing_usable(const std::vector<fs::path>& folders) const {
    std::string text = fmt::format("[sensor_folders] no usable recording in '{}'{}", detail::utf8_name(folders.front()),
                                   folders.size() > 1 ? " and the other folders" : "");
    constexpr std::size_t kShown = 5;
    for (std::size_t k = 0; k < std::min(kShown, data_.problems.size()); ++k) {
      text += fmt::format("\n  {}: {}", data_.problems[k].path, data_.problems[k].reason);
    }
    if (data_.problems.empty()) text += ": there is neither a .txt nor a .csv file";
    return text;
  }

  const SensorOptions& options_;
  int threads_;
  double common_rate_ = 0;  // 0: every recording keeps its own
  detail::SensorItems chosen_;
  std::vector<std::vector<std::string>> channels_;  // of each recording
  SensorData data_;
};

}  // namespace

SensorData read_sensor_folders(const std::vector<fs::path>& folders, const SensorOptions& options) {
  validate(options);
  if (folders.empty()) throw ConfigError("[sensor_folders] there is no folder to read");
  return FolderReader(options).read(folders);
}

std::vector<fs::path> glob_folders(const std::string& pattern) {
  glob_t found{};
  const int code = ::glob(pattern.c_str(), GLOB_ONLYDIR | GLOB_TILDE, nullptr, &found);
  std::vector<fs::path> folders;
  for (std::size_t k = 0; k < found.gl_pathc; ++k) {
    std::error_code error;
    if (fs::is_directory(found.gl_pathv[k], error)) folders.emplace_back(found.gl_pathv[k]);
  }
  ::globfree(&found);
  if (code != 0 || folders.empty()) {
    throw DataError(fmt::format("[sensor_folders] no folder fits the pattern '{}'", pattern));
  }
  return folders;
}

SensorRecording read_sensor_recording(const fs::path& file, double rate, double file_rate, bool clean,
                                      std::vector<SensorProblem>& problems, double usual_rate) {
  const std::string shown = detail::utf8_name(file);
  const bool text = strcasecmp(file.extension().c_str(), ".csv") != 0;
  RawRecording raw =
      read_recording(file, text ? SensorFormat::text : SensorFormat::csv, SensorOptions{}.max_file_bytes);
  for (std::string& remark : raw.remarks) problems.push_back({shown, std::move(remark)});
  double own = file_rate > 0 ? file_rate : raw.rate;
  if (own == 0 && text) {
    const std::string name = detail::utf8_name(file.filename());
    own = rate_by(raw, detail::parse_recording_name(name).total_seconds);
  }
  if (own == 0) own = usual_rate > 0 ? usual_rate : rate;
  const auto channels = static_cast<std::int64_t>(raw.channels.size());
  SensorRecording recording{.path = shown, .person = {}, .part = {}, .rate = rate};
  recording.samples = detail::prepare_rows<float>(raw.samples, channels, own, rate, text && clean);
  recording.rows = static_cast<std::int64_t>(recording.samples.size()) / channels;
  return recording;
}

}  // namespace mmtrain::datasets
