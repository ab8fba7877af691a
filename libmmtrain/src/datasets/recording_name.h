#pragma once

#include <string>
#include <string_view>

namespace mmtrain::datasets::detail {

enum class SensorPlace { unknown, ear, throat };

// What the name of a sensor recording says, e.g. `耳道-说话共6次持续5秒间隔10秒`: place, behavior and protocol.
struct RecordingName {
  SensorPlace place = SensorPlace::unknown;
  std::string behavior;      // rest, chew, cough, swallow, drink or talk; empty if the name says none
  std::string session;       // the name without its place: equal for the two recordings of a pair
  double total_seconds = 0;  // of the recording; this and the rest 0 if not said
  double event_seconds = 0;  // how long each event lasts
  double every_seconds = 0;  // from one event to the next
};

// `stem` is UTF-8, without extension.
RecordingName parse_recording_name(std::string_view stem);

}  // namespace mmtrain::datasets::detail
