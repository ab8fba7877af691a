#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// Makes `out/name`, or `out/name-2`, `out/name-3` ... if taken. Throws `ConfigError` if it cannot be written.
MMTRAIN_API std::filesystem::path create_run_directory(const std::filesystem::path& out, const std::string& name);

/// A run found on disk.
struct FoundRun {
  std::filesystem::path path;
  bool finished = false;  ///< its `result.json` is there
  std::string result;     ///< text of `result.json`
};

/// Whether a directory called `candidate` belongs to the runs of `name`: `name`, or `name-N`.
MMTRAIN_API bool is_run_of(const std::string& candidate, const std::string& name);

/// The newest unfinished run called `name` in `out` that has a checkpoint, else the newest finished one, else none.
MMTRAIN_API std::optional<FoundRun> find_run(const std::filesystem::path& out, const std::string& name);

/// Makes a finished run one that goes on.
MMTRAIN_API void reopen_run(const std::filesystem::path& run_dir);

/// Marks a run as finished: writes `result.json`.
MMTRAIN_API void finish_run(const std::filesystem::path& run_dir, const std::string& result_json);

}  // namespace mmtrain
