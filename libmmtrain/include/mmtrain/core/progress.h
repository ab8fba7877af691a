#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// How often a `ProgressLine` shows itself.
struct ProgressOptions {
  std::chrono::milliseconds redraw_interval = std::chrono::milliseconds(100);  ///< on a terminal
  std::chrono::milliseconds plain_interval = std::chrono::seconds(10);         ///< lines of a pipe or file
  std::int64_t start = 0;  ///< what was done before this line began, so that ETA counts only new work
};

/// Progress of a counted loop: one line redrawn in place on a terminal, an info line now and then elsewhere. Update it
/// as often as you like. For one thread; lines of the log appear above it.
///
///     train 3/10 [==========>         ]  53% 211/400 loss 1.832, 5120 samples/s, ETA 0:21
class MMTRAIN_API ProgressLine {
 public:
  /// `label` leads the line, e.g. the epoch; `total` is the number of steps.
  ProgressLine(std::string label, std::int64_t total, ProgressOptions options = {});
  /// Removes the line.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// `done` steps are finished; `fields` is the caller's text: loss, speed, memory.
  void update(std::int64_t done, std::string_view fields);
  /// Removes the line from the terminal; the caller's summary comes next. May be called again.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  std::string label_;
  std::int64_t total_;
  ProgressOptions options_;
  Clock::time_point started_, shown_;
};

/// What a progress line says, in at most `width` columns: the bar shrinks and goes first, then the end is cut.
/// `width` 0: no bar and no limit. `eta` is ready text, empty for none.
MMTRAIN_API std::string progress_text(std::string_view label, std::int64_t done, std::int64_t total,
                                      std::string_view fields, std::string_view eta, int width);

/// Columns of the terminal on stdout: the variable COLUMNS, else what the terminal says, else 80.
MMTRAIN_API int terminal_width();

/// `m:ss` or `h:mm:ss`.
MMTRAIN_API std::string format_duration(std::chrono::seconds duration);

}  // namespace mmtrain
