#include "datasets/sensor_items.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <system_error>

#include "mmtrain/core/error.h"

namespace mmtrain::datasets::detail {
namespace fs = std::filesystem;
namespace {

const std::vector<std::string> kWindowClasses{"rest", "chew", "cough", "swallow"};
const std::vector<std::string> kEventClasses{"chew", "drink", "cough", "swallow", "talk", "other"};

class Chooser {
 public:
  Chooser(std::vector<SensorFile> files, const SensorOptions& options) : options_(options) {
    to_.files = std::move(files);
  }

  SensorItems choose() {
    to_.labelling = choose_labelling();
    to_.classes = choose_classes();
    load_events();
    make_items();
    return std::move(to_);
  }

 private:
  Labelling choose_labelling() const {
    if (!options_.events.empty()) return Labelling::events;
    const bool named = std::any_of(to_.files.begin(), to_.files.end(), [](const SensorFile& file) {
      return file.format == SensorFormat::text && !file.name.behavior.empty();
    });
    return named ? Labelling::names : Labelling::generic;
  }

  std::vector<std::string> choose_classes() const {
    if (!options_.class_names.empty() || to_.labelling == Labelling::generic) return options_.class_names;
    return to_.labelling == Labelling::names ? kWindowClasses : kEventClasses;
  }

  // The event files that count. Without a demand for them a broken one is a remark.
  void load_events() {
    const bool demanded = to_.labelling == Labelling::events;
    if (demanded && options_.events != "auto") {
      to_.one_for_all = std::make_unique<EventFile>(read_events(options_.events));
      note_problems(*to_.one_for_all, utf8_name(options_.events));
      return;
    }
    for (const SensorFile& file : to_.files) {
      if (file.events_file.empty() || to_.events.contains(file.events_file)) continue;
      EventFile& events = to_.events[file.events_file];
      try {
        events = read_events(file.events_file);
        if (demanded) note_problems(events, utf8_name(file.events_file));
      } catch (const DataError& error) {
        if (demanded) throw;
        to_.problems.push_back({utf8_name(file.events_file), error.what()});
      }
    }
    if (demanded && to_.events.empty()) {
      throw DataError(fmt::format("[sensor_folders] there is no {} in these folders", kEventFileName));
    }
  }

  void note_problems(const EventFile& events, const std::string& path) {
    for (const std::string& problem : events.problems) to_.problems.push_back({path, problem});
  }

  const EventRecording* event_of(const SensorFile& file) const {
    const EventFile* events = to_.one_for_all.get();
    if (events == nullptr) {
      const auto found = to_.events.find(file.events_file);
      if (found == to_.events.end()) return nullptr;
      events = &found->second;
    }
    if (const EventRecording* merged = events->find(file.person + "_data__" + file.file)) return merged;
    return events->find(file.file);
  }

  void make_items() {
    std::map<std::string, const SensorFile*> throats;
    bool only_throats = to_.labelling == Labelling::names;
    if (to_.labelling == Labelling::names) {
      for (const SensorFile& file : to_.files) {
        if (file.name.place == SensorPlace::throat) throats[file.name.session] = &file;
        only_throats &= file.name.place == SensorPlace::throat;
      }
    }
    std::set<const EventRecording*> listed;
    for (const SensorFile& file : to_.files) {
      const bool throat = to_.labelling == Labelling::names && file.name.place == SensorPlace::throat;
      if (throat && !only_throats) continue;
      Item& item = to_.items.emplace_back();
      item.file = &file;
      item.event = event_of(file);
      listed.insert(item.event);
      const auto pair = throats.find(file.name.session);
      if (!throat && pair != throats.end()) item.throat = pair->second;
      check_label(item);
    }
    if (to_.labelling == Labelling::events) note_missing(listed);
    note_lonely_throats(throats);
  }

  // What needs no look into the file.
  void check_label(Item& item) {
    const SensorFile& file = *item.file;
    if (to_.labelling == Labelling::events && item.event == nullptr)
      return item.skip("the event file does not list it");
    if (to_.labelling == Labelling::names) {
      if (file.name.behavior.empty()) return item.skip("its name tells no behavior");
      if (!class_of_name(file.name.behavior, to_.classes)) {
        return item.skip(fmt::format("'{}' is none of the classes", file.name.behavior));
      }
    }
    std::error_code error;
    if (!fs::is_regular_file(file.path, error)) item.skip("it is no regular file");
  }

  void note_missing(const std::set<const EventRecording*>& listed) {
    const auto check = [&](const EventFile& events, const std::string& path) {
      for (const EventRecording& recording : events.recordings) {
        if (listed.contains(&recording)) continue;
        to_.problems.push_back({path, fmt::format("{}: there is no such recording", recording.file)});
        ++to_.skipped_files;
      }
    };
    if (to_.one_for_all) check(*to_.one_for_all, utf8_name(options_.events));
    for (const auto& [path, events] : to_.events) check(events, utf8_name(path));
  }

  void note_lonely_throats(const std::map<std::string, const SensorFile*>& throats) {
    std::set<const SensorFile*> used;
    for (const Item& item : to_.items) used.insert({item.throat, item.file});
    for (const auto& [session, file] : throats) {
      if (used.contains(file)) continue;
      to_.problems.push_back({file->shown, "left out: there is no recording of the ear that it belongs to"});
      ++to_.skipped_files;
    }
  }

  const SensorOptions& options_;
  SensorItems to_;
};

}  // namespace

SensorItems choose_items(std::vector<SensorFile> files, const SensorOptions& options) {
  return Chooser(std::move(files), options).choose();
}

std::optional<std::string> class_of_name(const std::string& behavior, const std::vector<std::string>& classes) {
  const auto has = [&](const char* name) { return std::find(classes.begin(), classes.end(), name) != classes.end(); };
  if (has(behavior.c_str())) return behavior;
  if (behavior == "drink" && has("swallow")) return "swallow";
  return std::nullopt;
}

}  // namespace mmtrain::datasets::detail
