// Any text is an event file whose parts hold together, or refused by a DataError.
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "mmtrain/core/error.h"
#include "mmtrain/datasets/event_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mmtrain::datasets;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const EventFile events = parse_events(text, "fuzz.json");
    for (const EventRecording& recording : events.recordings) {
      const bool sound = !recording.file.empty() && !recording.label.empty() && recording.event_seconds > 0 &&
                         std::isfinite(recording.event_seconds) && recording.total_seconds > 0 && recording.rows >= 0 &&
                         events.find(recording.file) != nullptr;
      if (!sound) std::abort();
      for (const double start : recording.starts) {
        if (!(start >= 0) || !std::isfinite(start)) std::abort();
      }
    }
  } catch (const mmtrain::DataError&) {
  }
  return 0;
}
