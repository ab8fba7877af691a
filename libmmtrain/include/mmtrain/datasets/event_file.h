#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "mmtrain/core/export.h"

namespace mmtrain::datasets {

/// One recording of an event file.
struct EventRecording {
  std::string file;                 ///< its name, without folders
  std::string label;                ///< what happens in it, as the file says
  std::vector<double> starts = {};  ///< seconds from its beginning at which an event begins, not negative
  double event_seconds = 0;         ///< how long each event lasts
  double total_seconds = 0;         ///< how long the recording lasts
  std::int64_t rows = 0;            ///< samples somebody counted in it; 0: not given
};

/// When things happen in the recordings of a folder, an `events_config.json`:
///
///     {"version": 2, "allowed_labels": ["cough", ...],
///      "files": [{"file": "a.txt", "label": "cough", "event_starts_sec": [10, 20], "event_duration_sec": 2.0,
///                 "total_duration_sec": 60.0, "rows_detected": 2772}, ...]}
///
/// `allowed_labels` may be absent: then every label is allowed. Other keys are ignored.
struct MMTRAIN_API EventFile {
  std::vector<std::string> allowed_labels;
  std::vector<EventRecording> recordings;
  /// What was left out, and why: a recording without a usable name, label or duration, one that comes twice, an event
  /// at a negative time. Each names its recording.
  std::vector<std::string> problems;

  /// The recording called `name`, also with `_denoise` before its extension, or null.
  const EventRecording* find(std::string_view name) const;
};

/// Reads the text of an event file; `source` is how messages call it. Throws `DataError` with line and column for text
/// that is not JSON, and for JSON that is not an event file of version 1 or 2.
MMTRAIN_API EventFile parse_events(std::string_view text, std::string_view source);

/// Reads an event file of at most 64 MiB. Throws `DataError`, also if it cannot be read.
MMTRAIN_API EventFile read_events(const std::filesystem::path& path);

}  // namespace mmtrain::datasets
