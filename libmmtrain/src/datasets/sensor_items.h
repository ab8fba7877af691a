#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "datasets/sensor_labels.h"
#include "datasets/sensor_reader.h"
#include "mmtrain/datasets/event_file.h"
#include "mmtrain/datasets/sensor_folders.h"

namespace mmtrain::datasets::detail {

// Where the labels come from.
enum class Labelling { names, events, generic };

// One recording on its way from the file to the windows.
struct Item {
  const SensorFile* file = nullptr;
  const SensorFile* throat = nullptr;  // the recording of its pair
  const EventRecording* event = nullptr;

  RawRecording raw = {}, throat_raw = {};
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

// Recordings that are to be read, each with what belongs to it: which they are, what they are called and how they are
// labelled follows from names and event files alone. Items point into the other members.
struct SensorItems {
  Labelling labelling = Labelling::generic;
  std::vector<std::string> classes;  // by index; empty where the labels found are the classes
  std::vector<SensorFile> files;
  std::unique_ptr<EventFile> one_for_all;  // the event file that was asked for by its path
  std::map<std::filesystem::path, EventFile> events;
  std::vector<Item> items;
  std::vector<SensorProblem> problems;
  std::int64_t skipped_files = 0;  // that are no items
};

// Throws `DataError` where an event file is demanded and cannot be read.
SensorItems choose_items(std::vector<SensorFile> files, const SensorOptions& options);

// The class that a behavior of the reference's names counts as: drinking is swallowing where it is no class of its own.
std::optional<std::string> class_of_name(const std::string& behavior, const std::vector<std::string>& classes);

}  // namespace mmtrain::datasets::detail
