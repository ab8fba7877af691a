#include "mmtrain/datasets/sensor_folders.h"

#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "core/parallel_for.h"
#include "datasets/sensor_activity.h"
#include "datasets/sensor_labels.h"
#include "datasets/sensor_reader.h"
#include "datasets/uci_har.h"
#include "mmtrain/core/error.h"
#include "mmtrain/datasets/event_file.h"

namespace mmtrain::datasets {
namespace fs = std::filesystem;
namespace {

using detail::RawRecording;
using detail::SensorFile;
using detail::SensorFormat;
using detail::SensorPlace;

constexpr double kNominalRate = 100;
constexpr double kLeastRate = 10, kMostRate = 2000;  // of text recordings; anything else is a wrong duration
constexpr double kEventShare = 0.6;                  // of a window that an event fills if nothing says how long it is

// Where the labels come from.
enum class Labelling { names, events, generic };

const std::vector<std::string> kWindowClasses{"rest", "chew", "cough", "swallow"};
const std::vector<std::string> kEventClasses{"chew", "drink", "cough", "swallow", "talk", "other"};

void validate(const SensorOptions& options) {
  const auto require = [](bool fine, const char* name, const char* rule, double value) {
    if (!fine) throw ConfigError(fmt::format("[sensor_folders] {} must {}, got {}", name, rule, value));
  };
  require(options.window_seconds > 0 && options.window_seconds <= 3600, "window_seconds", "be above 0 and at most 3600",
          options.window_seconds);
  require(options.overlap >= 0 && options.overlap < 1, "overlap", "be at least 0 and below 1", options.overlap);
  require(options.rate >= 0 && options.rate <= 100000, "rate", "be between 0 and 100000", options.rate);
}

// One recording on its way from the file to the windows.
struct Item {
  const SensorFile* file = nullptr;
  const SensorFile* throat = nullptr;  // the recording of its pair
  const EventRecording* event = nullptr;

  RawRecording raw, throat_raw;
  double rate = 0;  // that the file has; 0: not known
  std::vector<SensorRecording> recordings;
  std::vector<SensorWindow> windows;  // labels index `labels`, recordings the list above
  std::vector<std::string> labels;
  std::vector<SensorProblem> problems;
  std::int64_t malformed_lines = 0;
  bool skipped = false;

  void say(const SensorFile& about, std::string reason) { problems.push_back({about.shown, std::move(reason)}); }
  void skip(std::string reason) {
    say(*file, "left out: " + std::move(reason));
    skipped = true;
    recordings.clear();
    windows.clear();
  }
};

class FolderReader {
 public:
  explicit FolderReader(const SensorOptions& options)
      : options_(options), threads_(options.threads > 0 ? options.threads : mmtrain::detail::machine_threads()) {}

  SensorData read(const std::vector<fs::path>& folders) {
    if (!find(folders)) finish_files();
    drop_foreign_channels();
    if (data_.windows.empty()) throw DataError(nothing_usable(folders));
    return std::move(data_);
  }

 private:
  // True if the folders are UCI HAR, which is read at once.
  bool find(const std::vector<fs::path>& folders) {
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
        if (seen.insert(fs::weakly_canonical(file.path, error)).second) files_.push_back(std::move(file));
      }
    }
    for (auto& [path, reason] : unreadable) data_.problems.push_back({path, reason});
    if (har && !files_.empty()) {
      throw DataError("[sensor_folders] UCI HAR and other recordings cannot be read together: their channels differ");
    }
    return har;
  }

  void finish_files() {
    labelling_ = choose_labelling();
    load_events();
    make_items();
    for_each([&](Item& item) { read_raw(item); });
    settle_rates();
    for_each([&](Item& item) { cut(item); });
    merge();
  }

  Labelling choose_labelling() const {
    if (!options_.events.empty()) return Labelling::events;
    const bool named = std::any_of(files_.begin(), files_.end(), [](const SensorFile& file) {
      return file.format == SensorFormat::text && !file.name.behavior.empty();
    });
    return named ? Labelling::names : Labelling::generic;
  }

  // The event files that count. Without a demand for them a broken one is a remark.
  void load_events() {
    const bool demanded = labelling_ == Labelling::events;
    if (demanded && options_.events != "auto") {
      one_for_all_ = std::make_unique<EventFile>(read_events(options_.events));
      note_problems(*one_for_all_, detail::utf8_name(options_.events));
      return;
    }
    for (const SensorFile& file : files_) {
      if (file.events_file.empty() || events_.contains(file.events_file)) continue;
      EventFile& events = events_[file.events_file];
      try {
        events = read_events(file.events_file);
        if (demanded) note_problems(events, detail::utf8_name(file.events_file));
      } catch (const DataError& error) {
        if (demanded) throw;
        data_.problems.push_back({detail::utf8_name(file.events_file), error.what()});
      }
    }
    if (demanded && events_.empty()) {
      throw DataError(fmt::format("[sensor_folders] there is no {} in these folders", detail::kEventFileName));
    }
  }

  void note_problems(const EventFile& events, const std::string& path) {
    for (const std::string& problem : events.problems) data_.problems.push_back({path, problem});
  }

  const EventRecording* event_of(const SensorFile& file) const {
    const EventFile* events = one_for_all_.get();
    if (events == nullptr) {
      const auto found = events_.find(file.events_file);
      if (found == events_.end()) return nullptr;
      events = &found->second;
    }
    if (const EventRecording* merged = events->find(file.person + "_data__" + file.file)) return merged;
    return events->find(file.file);
  }

  void make_items() {
    std::map<std::string, const SensorFile*> throats;
    bool only_throats = labelling_ == Labelling::names;
    if (labelling_ == Labelling::names) {
      for (const SensorFile& file : files_) {
        if (file.name.place == SensorPlace::throat) throats[file.name.session] = &file;
        only_throats &= file.name.place == SensorPlace::throat;
      }
    }
    std::set<const EventRecording*> listed;
    for (const SensorFile& file : files_) {
      const bool throat = labelling_ == Labelling::names && file.name.place == SensorPlace::throat;
      if (throat && !only_throats) continue;
      Item& item = items_.emplace_back();
      item.file = &file;
      item.event = event_of(file);
      listed.insert(item.event);
      const auto pair = throats.find(file.name.session);
      if (!throat && pair != throats.end()) item.throat = pair->second;
      check_label(item);
    }
    if (labelling_ == Labelling::events) note_missing(listed);
    note_lonely_throats(throats);
  }

  // What needs no look into the file.
  void check_label(Item& item) {
    const SensorFile& file = *item.file;
    if (labelling_ == Labelling::events && item.event == nullptr) return item.skip("the event file does not list it");
    if (labelling_ == Labelling::names) {
      if (file.name.behavior.empty()) return item.skip("its name tells no behavior");
      if (!class_of_name(file.name.behavior)) {
        return item.skip(fmt::format("'{}' is none of the classes", file.name.behavior));
      }
    }
    std::error_code error;
    if (!fs::is_regular_file(file.path, error)) return item.skip("it is no regular file");
    const std::uintmax_t bytes = fs::file_size(file.path, error);
    if (!error && bytes > options_.max_file_bytes) {
      item.skip(fmt::format("{} MB is more than a recording has (the limit is {} MB)", bytes >> 20,
                            options_.max_file_bytes >> 20));
    }
  }

  void note_missing(const std::set<const EventRecording*>& listed) {
    const auto check = [&](const EventFile& events, const std::string& path) {
      for (const EventRecording& recording : events.recordings) {
        if (listed.contains(&recording)) continue;
        data_.problems.push_back({path, fmt::format("{}: there is no such recording", recording.file)});
        ++data_.skipped_files;
      }
    };
    if (one_for_all_) check(*one_for_all_, detail::utf8_name(options_.events));
    for (const auto& [path, events] : events_) check(events, detail::utf8_name(path));
  }

  void note_lonely_throats(const std::map<std::string, const SensorFile*>& throats) {
    std::set<const SensorFile*> used;
    for (const Item& item : items_) used.insert({item.throat, item.file});
    for (const auto& [session, file] : throats) {
      if (used.contains(file)) continue;
      data_.problems.push_back({file->shown, "left out: there is no recording of the ear that it belongs to"});
      ++data_.skipped_files;
    }
  }

  // The class that a behavior of the reference's names counts as.
  std::optional<std::string> class_of_name(const std::string& behavior) const {
    const std::vector<std::string>& classes = class_names();
    const auto has = [&](const std::string& name) {
      return std::find(classes.begin(), classes.end(), name) != classes.end();
    };
    if (has(behavior)) return behavior;
    if (behavior == "drink" && has("swallow")) return "swallow";
    return std::nullopt;
  }

  // Empty where the labels found are the classes.
  const std::vector<std::string>& class_names() const {
    if (!options_.class_names.empty() || labelling_ == Labelling::generic) return options_.class_names;
    return labelling_ == Labelling::names ? kWindowClasses : kEventClasses;
  }

  template <class Work>
  void for_each(const Work& work) {
    mmtrain::detail::parallel_for(threads_, static_cast<std::int64_t>(items_.size()), [&](std::int64_t k) {
      Item& item = items_[static_cast<std::size_t>(k)];
      if (item.skipped) return;
      try {
        work(item);
      } catch (const DataError& error) {
        item.skip(error.what());
      }
    });
  }

  static void read_raw(Item& item) {
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
      const double rate = static_cast<double>(item.raw.rows) / seconds;
      if (rate >= kLeastRate && rate <= kMostRate) {
        item.rate = rate;
      } else {
        item.say(*item.file,
                 fmt::format("{} rows in {:g} s cannot be: its rate is taken as unknown", item.raw.rows, seconds));
      }
    }
  }

  static RawRecording read_file(Item& item, const SensorFile& file) {
    RawRecording raw =
        file.format == SensorFormat::text ? detail::read_sensor_text(file.path) : detail::read_sensor_csv(file.path);
    item.malformed_lines += raw.malformed_lines;
    for (std::string& remark : raw.remarks) item.say(file, std::move(remark));
    return raw;
  }

  // A recording that does not tell its rate has that of the others.
  void settle_rates() {
    std::vector<double> known;
    for (const Item& item : items_) {
      if (!item.skipped && item.rate > 0) known.push_back(item.rate);
    }
    const double usual = known.empty() ? (options_.rate > 0 ? options_.rate : kNominalRate) : median(known);
    for (Item& item : items_) {
      if (item.rate == 0) item.rate = usual;
    }
    const bool windows_of_text = labelling_ == Labelling::names;
    common_rate_ = options_.rate > 0 ? options_.rate : windows_of_text ? kNominalRate : 0;
    // Windows have to be equally long in rows and in seconds.
    if (common_rate_ == 0 && labelling_ == Labelling::generic) common_rate_ = usual;
    data_.rate = common_rate_ > 0 ? common_rate_ : usual;
    data_.file_rate = usual;
    if (labelling_ != Labelling::events) {
      data_.window_rows = std::max<std::int64_t>(1, std::llround(options_.window_seconds * data_.rate));
    }
  }

  static double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  }

  double rate_of(const Item& item) const { return common_rate_ > 0 ? common_rate_ : item.rate; }

  // At the rate of the windows, cleaned.
  std::vector<float> prepared(const std::vector<float>& samples, std::int64_t channels, double rate,
                              SensorFormat format) const {
    const bool clean = options_.cleaning == Cleaning::automatic && format == SensorFormat::text;
    return detail::prepare_rows(samples, channels, rate, common_rate_ > 0 ? common_rate_ : rate, clean);
  }

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
      SensorRecording recording{.path = file.shown, .person = people[k].name, .part = {}, .rate = rate_of(item)};
      recording.samples = prepared(rows, channels, item.rate, file.format);
      recording.rows = static_cast<std::int64_t>(recording.samples.size()) / channels;
      item.recordings.push_back(std::move(recording));
      if (labelling_ == Labelling::events) {
        cut_events(item);
      } else {
        cut_windows(item, first);
      }
    }
    item.raw.samples = {};
    item.throat_raw = {};
    if (!item.windows.empty()) return;
    item.skip(labelling_ == Labelling::events
                  ? "it has no event"
                  : fmt::format("{} rows are less than a window of {}", item.raw.rows, data_.window_rows));
  }

  // When the throat's recording says that something happens; nothing: all the time.
  std::vector<detail::TimeSpan> activity_of(Item& item) const {
    if (item.throat == nullptr || item.file->name.behavior == "rest") return {};
    // Both recordings of a pair begin and end together.
    const double throat_rate =
        item.rate * static_cast<double>(item.throat_raw.rows) / static_cast<double>(item.raw.rows);
    const auto channels = static_cast<std::int64_t>(item.throat_raw.channels.size());
    const std::vector<float> samples = prepared(item.throat_raw.samples, channels, throat_rate, item.throat->format);
    const double said = item.file->name.event_seconds;
    return detail::find_activity(
        samples, channels,
        {.rate = data_.rate, .event_seconds = said > 0 ? said : kEventShare * options_.window_seconds});
  }

  void cut_windows(Item& item, std::int64_t first_raw_row) {
    const std::size_t index = item.recordings.size() - 1;
    const SensorRecording& recording = item.recordings.back();
    const std::vector<detail::TimeSpan> activity = activity_of(item);
    const std::int64_t length = data_.window_rows;
    const auto stride = std::max<std::int64_t>(1, std::llround(static_cast<double>(length) * (1 - options_.overlap)));
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
                                      const std::vector<detail::TimeSpan>& activity, std::int64_t first_raw_row) const {
    if (!item.raw.labels.empty()) return majority(item, window, first_raw_row);
    if (labelling_ == Labelling::generic) return item.file->label;
    if (activity.empty() || detail::coverage(activity, window.begin, window.end) > 0.5) {
      return class_of_name(item.file->name.behavior);
    }
    return class_of_name("rest");
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
    if (event.rows > 0 &&
        std::abs(static_cast<double>(event.rows - item.raw.rows)) > 0.02 * static_cast<double>(event.rows)) {
      item.say(*item.file, fmt::format("the event file counts {} rows, it has {}", event.rows, item.raw.rows));
    }
    const std::vector<std::string>& classes = class_names();
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

  void merge() {
    settle_classes();
    std::vector<double> lengths;
    for (Item& item : items_) {
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
      data_.cleaned |= options_.cleaning == Cleaning::automatic && item.file->format == SensorFormat::text;
    }
    if (labelling_ == Labelling::events && !lengths.empty()) crop_to(static_cast<std::int64_t>(median(lengths)));
    std::erase_if(data_.problems, [](const SensorProblem& problem) { return problem.reason.empty(); });
  }

  void settle_classes() {
    data_.class_names = class_names();
    if (!data_.class_names.empty()) return;
    std::set<std::string> found;
    for (const Item& item : items_) {
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
  Labelling labelling_ = Labelling::generic;
  double common_rate_ = 0;  // 0: every recording keeps its own
  std::vector<SensorFile> files_;
  std::unique_ptr<EventFile> one_for_all_;
  std::map<fs::path, EventFile> events_;
  std::vector<Item> items_;
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
  const bool text = file.extension() != ".csv";
  RawRecording raw = text ? detail::read_sensor_text(file) : detail::read_sensor_csv(file);
  for (std::string& remark : raw.remarks) problems.push_back({shown, std::move(remark)});
  double own = file_rate > 0 ? file_rate : raw.rate;
  if (own == 0 && text) {
    const std::string name = detail::utf8_name(file.filename());
    const double seconds = detail::parse_recording_name(name).total_seconds;
    const double told = seconds > 0 ? static_cast<double>(raw.rows) / seconds : 0;
    if (told >= kLeastRate && told <= kMostRate) own = told;
  }
  if (own == 0) own = usual_rate > 0 ? usual_rate : rate;
  const auto channels = static_cast<std::int64_t>(raw.channels.size());
  SensorRecording recording{.path = shown, .person = {}, .part = {}, .rate = rate};
  recording.samples = detail::prepare_rows(raw.samples, channels, own, rate, text && clean);
  recording.rows = static_cast<std::int64_t>(recording.samples.size()) / channels;
  return recording;
}

}  // namespace mmtrain::datasets
