#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"

namespace mmtrain::parallel {

/// Settings of `launch`, which are those of `--nproc N [--max_restarts K]`.
struct LaunchOptions {
  int nproc = 1;         ///< ranks on this host
  int max_restarts = 0;  ///< how often all ranks are started again after one failed
  /// Time between SIGTERM and SIGKILL for ranks that shall end because another failed, and between a signal sent by the
  /// user and SIGKILL once the first rank has ended.
  std::chrono::milliseconds grace = std::chrono::seconds(15);
};

/// Whether this process is a rank already, of torchrun or of `launch`: RANK and WORLD_SIZE are set.
MMTRAIN_API bool is_launched();

/// Arguments without `--nproc N`, `--nproc=N`, `--max_restarts K` and `--max_restarts=K`.
MMTRAIN_API std::vector<std::string> without_launch_flags(const std::vector<std::string>& arguments);

/// Runs this program again as `nproc` ranks and waits for them. `arguments` are argv with the program's name; launch
/// flags are removed. The ranks get the variables of `torchrun --standalone` (see `init_from_env`) and, if
/// OMP_NUM_THREADS is unset, an equal share of the cores.
///
/// SIGINT and SIGTERM are passed on. When a rank fails, the others are ended and, up to `max_restarts` times and unless
/// the user sent a signal, all start again with TORCHELASTIC_RESTART_COUNT raised. Ranks die with this process; none
/// is left when it returns.
///
/// Call it first in main, before threads start and devices are looked for, and only if not `is_launched()`. Returns the
/// exit code for main: 0, or that of the rank that failed first, 128 + number for a signal. Throws `ConfigError` for
/// options out of range, `DistributedError` if the system starts no process.
MMTRAIN_API int launch(const LaunchOptions& options, const std::vector<std::string>& arguments);

}  // namespace mmtrain::parallel
