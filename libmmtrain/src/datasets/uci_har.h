#pragma once

#include <filesystem>

#include "mmtrain/datasets/sensor_folders.h"

namespace mmtrain::datasets::detail {

// The folder itself, or the one in it, that holds `train/Inertial Signals`; empty if there is none.
std::filesystem::path find_uci_har(const std::filesystem::path& folder);

// Adds all windows of the data set. Throws `DataError` naming the file that is missing or broken.
void read_uci_har(const std::filesystem::path& root, SensorData& data);

}  // namespace mmtrain::datasets::detail
