#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "datasets/sensor_items.h"
#include "mmtrain/datasets/sensor_folders.h"

namespace mmtrain::datasets::detail {

// How recordings are cut into windows.
struct Cutting {
  const SensorOptions& options;
  Labelling labelling = Labelling::generic;
  const std::vector<std::string>& classes;  // as in SensorItems
  double common_rate = 0;                   // samples a second of all windows; 0: every recording keeps its own
  std::int64_t window_rows = 0;             // of windows that are no events
};

// Prepares what was read of an item and cuts it: fills its recordings, windows and labels, and frees the rest. A
// recording without any window is skipped. Windows of events are as long as these. Throws `DataError` with the reason.
void cut_item(Item& item, const Cutting& cutting);

}  // namespace mmtrain::datasets::detail
