#pragma once

#include <cstdint>
#include <filesystem>

#include "mmtrain/core/export.h"

namespace mmtrain::datasets {

struct GenerateBehaviorOptions {
  std::uint64_t seed = 0;
  int people = 8;       ///< 1..1000, a folder `pK_data` each
  double seconds = 60;  ///< length of a recording, 20..3600
  bool quirks = false;  ///< plant the faults of real collections, see `generate_behavior`
};

/// How many recordings there are, pairs counted twice, and how many of them cannot be used.
struct GeneratedBehavior {
  std::int64_t recordings = 0, bad = 0;
};

/// Makes `directory`: recordings of ear and throat in the reference's exact text format (see `sensor_folders.h`), free
/// of any licence, byte-identical for the same options. Each person has a pulse, a way to wear the sensors and to move
/// of their own; of each there are two sessions of chewing, coughing, swallowing and rest, and one of drinking and of
/// talking, each with its pair, and an `events_config.json` that tells when things happen. The clock is nominally 100
/// Hz, truly 46 to 50, and some rows are lost.
///
/// Chewing rocks the jaw at 1.2 to 1.8 Hz, a cough is a spike of a third of a second, swallowing a dip of the light
/// with a small bump, talking a faint flutter; all differ in strength from person to person, and heads turn meanwhile.
///
/// With `quirks`, in the first folder: a file name and a header in GBK, decimal commas, ideographic spaces, comments,
/// blank, short and torn lines, text in the middle, a hidden file; recordings that cannot be used: five columns, an
/// empty file, a header alone; a channel that never changes; a pair without its throat; and in the event file an
/// unknown label, negative times, times behind the end and a recording that is not there.
///
/// The directory appears complete or not at all. Throws `ConfigError` for options out of range or a directory that is
/// there and not empty, `Error` where it cannot be written.
MMTRAIN_API GeneratedBehavior generate_behavior(const std::filesystem::path& directory,
                                                const GenerateBehaviorOptions& options = {});

}  // namespace mmtrain::datasets
