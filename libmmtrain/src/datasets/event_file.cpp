#include "mmtrain/datasets/event_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <system_error>

#include "core/json.h"
#include "mmtrain/core/error.h"

namespace mmtrain::datasets {
namespace {

using mmtrain::detail::readable;
using nlohmann::json;

constexpr std::uintmax_t kMaxBytes = 64 << 20;
constexpr std::size_t kMaxName = 120;  // of what a message quotes

std::string text_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// JSON has no infinities, but 1e999 is read as one.
std::optional<double> number_of(const json& value) {
  if (!value.is_number()) return std::nullopt;
  const double number = value.get<double>();
  return std::isfinite(number) ? std::optional(number) : std::nullopt;
}

double number_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() ? number_of(*found).value_or(0) : 0;
}

// The name alone, whatever folders stand before it.
std::string without_folders(const std::string& path) {
  const std::size_t slash = path.find_last_of("/\\");
  return slash == path.npos ? path : path.substr(slash + 1);
}

class Reader {
 public:
  explicit Reader(EventFile& events) : events_(events) {}

  void add(const json& entry) {
    ++number_;
    const std::string problem = problem_of(entry);
    if (!problem.empty()) events_.problems.push_back(fmt::format("{}: {}", name_of(entry), problem));
  }

 private:
  std::string name_of(const json& entry) const {
    const std::string file = entry.is_object() ? text_of(entry, "file") : "";
    return file.empty() ? fmt::format("recording {}", number_) : readable(file, kMaxName);
  }

  // Takes the recording over, or says why it cannot be used.
  std::string problem_of(const json& entry) {
    if (!entry.is_object()) return "not an object";
    EventRecording recording{.file = without_folders(text_of(entry, "file")), .label = text_of(entry, "label")};
    if (recording.file.empty()) return "it has no file";
    if (!names_.insert(recording.file).second) return "it is listed twice: the first counts";
    if (recording.label.empty()) return "it has no label";
    const std::vector<std::string>& allowed = events_.allowed_labels;
    if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), recording.label) == allowed.end()) {
      return fmt::format("its label '{}' is not among the allowed ones", readable(recording.label, kMaxName));
    }
    recording.event_seconds = number_of(entry, "event_duration_sec");
    recording.total_seconds = number_of(entry, "total_duration_sec");
    if (recording.event_seconds <= 0) return "event_duration_sec is missing or not positive";
    if (recording.total_seconds <= 0) return "total_duration_sec is missing or not positive";
    const double rows = number_of(entry, "rows_detected");
    if (rows > 0 && rows < 1e15) recording.rows = static_cast<std::int64_t>(rows);
    const auto starts = entry.find("event_starts_sec");
    if (starts == entry.end() || !starts->is_array()) return "event_starts_sec is missing or not a list";
    std::int64_t left_out = 0;
    for (const json& start : *starts) {
      const std::optional<double> seconds = number_of(start);
      if (seconds && *seconds >= 0) {
        recording.starts.push_back(*seconds);
      } else {
        ++left_out;
      }
    }
    events_.recordings.push_back(std::move(recording));
    return left_out == 0 ? "" : fmt::format("{} events at negative times, or at none, are left out", left_out);
  }

  EventFile& events_;
  std::set<std::string> names_;
  std::int64_t number_ = 0;
};

}  // namespace

const EventRecording* EventFile::find(std::string_view name) const {
  const auto stem_of = [](std::string_view file) {
    const std::size_t dot = file.rfind('.');
    constexpr std::string_view kDenoised = "_denoise";
    std::string_view stem = dot == file.npos ? file : file.substr(0, dot);
    if (stem.ends_with(kDenoised)) stem.remove_suffix(kDenoised.size());
    return stem;
  };
  const auto is = [&](const auto& same) {
    const auto found = std::find_if(recordings.begin(), recordings.end(), same);
    return found == recordings.end() ? nullptr : &*found;
  };
  if (const EventRecording* exact = is([&](const EventRecording& r) { return r.file == name; })) return exact;
  return is([&](const EventRecording& r) { return stem_of(r.file) == stem_of(name); });
}

EventFile parse_events(std::string_view text, std::string_view source) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  const auto fail = [&](const std::string& reason) -> void {
    throw DataError(fmt::format("[events] {}: {}", source, reason));
  };
  json root;
  try {
    root = mmtrain::detail::parse_json<json>(text);
  } catch (const mmtrain::detail::JsonError& error) {
    throw DataError("[events] " + error.in(source));
  }
  if (!root.is_object()) fail("an event file is a JSON object");
  if (const auto version = root.find("version"); version != root.end() && *version != 1 && *version != 2) {
    fail(fmt::format("version {} is not known, only 1 and 2", readable(version->dump(-1, ' ', true), kMaxName)));
  }
  const auto files = root.find("files");
  if (files == root.end() || !files->is_array()) fail("it has no list \"files\"");
  EventFile events;
  if (const auto labels = root.find("allowed_labels"); labels != root.end() && labels->is_array()) {
    for (const json& label : *labels) {
      if (label.is_string()) events.allowed_labels.push_back(label.get<std::string>());
    }
  }
  Reader reader(events);
  for (const json& entry : *files) reader.add(entry);
  return events;
}

EventFile read_events(const std::filesystem::path& path) {
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(path, error);
  if (error) throw DataError(fmt::format("[events] cannot read '{}': {}", path.string(), error.message()));
  if (bytes > kMaxBytes) {
    throw DataError(fmt::format("[events] '{}' has {} bytes: no event file is that large", path.string(), bytes));
  }
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file) throw DataError(fmt::format("[events] cannot read '{}'", path.string()));
  return parse_events(text, path.string());
}

}  // namespace mmtrain::datasets
