#pragma once

#include <filesystem>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/train/callback.h"

namespace mmtrain {

/// Writes `report.html` into a run directory: one file for a browser, which needs no other. It holds what stands there
/// by now (pictures, classification report, configuration) and the epochs of `history`; what is missing is left out.
/// Throws `Error` if the file cannot be written.
MMTRAIN_API void write_html_report(const std::filesystem::path& run_dir, const std::vector<EpochRecord>& history);

}  // namespace mmtrain
