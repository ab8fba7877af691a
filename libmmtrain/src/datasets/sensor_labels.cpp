#include "datasets/sensor_labels.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "datasets/directory.h"
#include "datasets/sensor_reader.h"
#include "mmtrain/core/error.h"

namespace mmtrain::datasets::detail {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPersonSuffix = "_data";
constexpr std::string_view kRunPrefix = "training_results_";  // what a program left here is no recording
constexpr int kMaxDepth = 16;                                 // deeper folders are a circle of links

bool is_person_folder(std::string_view name) {
  return name.size() > kPersonSuffix.size() && name.ends_with(kPersonSuffix);
}

std::string person_of(std::string name) {
  if (is_person_folder(name)) name.resize(name.size() - kPersonSuffix.size());
  return name;
}

std::optional<SensorFormat> format_of(const std::string& name) {
  std::string extension = fs::path(name).extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (extension == ".txt") return SensorFormat::text;
  if (extension == ".csv") return SensorFormat::csv;
  return std::nullopt;
}

struct Place {
  std::string person;
  std::string label;  // of the folder; empty directly in a person's
  fs::path events_file;
};

class Finder {
 public:
  explicit Finder(std::vector<std::pair<std::string, std::string>>& unreadable) : unreadable_(unreadable) {}

  void search(const fs::path& folder, Place place, int depth) {
    if (depth > kMaxDepth) return;
    DirectoryListing listing;
    try {
      listing = list_directory(folder);
    } catch (const DataError& error) {
      if (depth == 0) throw;
      unreadable_.emplace_back(utf8_name(folder), error.what());
      return;
    }
    if (std::find(listing.files.begin(), listing.files.end(), kEventFileName) != listing.files.end()) {
      place.events_file = folder / kEventFileName;
    }
    for (const std::string& file : listing.files) add(folder / file, place);
    for (const std::string& name : listing.folders) {
      if (name.starts_with(kRunPrefix)) continue;
      const std::string shown = utf8_name(name);
      const Place below = is_person_folder(shown) ? Place{person_of(shown), "", place.events_file}
                                                  : Place{place.person, shown, place.events_file};
      search(folder / name, below, depth + 1);
    }
  }

  std::vector<SensorFile> take() { return std::move(files_); }

 private:
  void add(const fs::path& path, const Place& place) {
    const std::optional<SensorFormat> format = format_of(path.filename().string());
    if (!format) return;
    SensorFile file{.path = path,
                    .format = *format,
                    .shown = utf8_name(path),
                    .file = utf8_name(path.filename()),
                    .person = place.person,
                    .label = {},
                    .name = {},
                    .events_file = place.events_file};
    std::string stem = file.file.substr(0, file.file.rfind('.'));
    // Recordings of several folders that were gathered in one are called <folder>__<file>.
    if (const std::size_t joint = stem.find("__"); joint != stem.npos && joint > 0) {
      file.person = person_of(stem.substr(0, joint));
      stem.erase(0, joint + 2);
    }
    file.name = parse_recording_name(stem);
    // A pair is of one person, in one folder.
    file.name.session = utf8_name(path.parent_path()) + "/" + file.person + "/" + file.name.session;
    if (*format == SensorFormat::text) file.label = file.name.behavior;
    if (file.label.empty()) file.label = label_before_number(stem).value_or(place.label);
    files_.push_back(std::move(file));
  }

  std::vector<std::pair<std::string, std::string>>& unreadable_;
  std::vector<SensorFile> files_;
};

}  // namespace

std::optional<std::string> label_before_number(std::string_view stem) {
  const std::size_t joint = stem.rfind('_');
  if (joint == stem.npos || joint == 0 || joint + 1 == stem.size()) return std::nullopt;
  const std::string_view number = stem.substr(joint + 1);
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (!std::all_of(number.begin(), number.end(), is_digit)) return std::nullopt;
  return std::string(stem.substr(0, joint));
}

std::vector<SensorFile> find_sensor_files(const fs::path& folder,
                                          std::vector<std::pair<std::string, std::string>>& unreadable) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw DataError("[sensor_folders] there is no folder '" + utf8_name(folder) + "'");
  }
  Finder finder(unreadable);
  const std::string name = utf8_name(fs::weakly_canonical(folder).filename());
  finder.search(folder, {person_of(name), "", {}}, 0);
  return finder.take();
}

}  // namespace mmtrain::datasets::detail
