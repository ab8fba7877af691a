#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/recording_name.h"

namespace mmtrain::datasets::detail {

// The name of the file with the events of a folder.
inline constexpr const char* kEventFileName = "events_config.json";

enum class SensorFormat { text, csv };

// A file with a recording, as its place in the folders describes it.
struct SensorFile {
  std::filesystem::path path;
  SensorFormat format = SensorFormat::text;
  std::string shown;                  // path for messages
  std::string file;                   // its name, UTF-8
  std::string person;                 // of the folder
  std::string label;                  // by its name or folder; empty if unknown
  RecordingName name;                 // what the reference's naming says
  std::filesystem::path events_file;  // the nearest events_config.json above it; empty without one
};

// All recordings below `folder`, in the order of their paths. Folders below that cannot be read go to `unreadable`.
// Throws `DataError` if `folder` itself is not there or cannot be read.
std::vector<SensorFile> find_sensor_files(const std::filesystem::path& folder,
                                          std::vector<std::pair<std::string, std::string>>& unreadable);

// `<LABEL>` of a name `<LABEL>_<i>`.
std::optional<std::string> label_before_number(std::string_view stem);

}  // namespace mmtrain::datasets::detail
