#pragma once

#include "mmtrain/core/export.h"

namespace mmtrain {

/// Catches SIGINT and SIGTERM while it lives: the first is remembered, so that training ends after the step and saves;
/// a second ends the process at once with 128 + signal. One object at a time.
class MMTRAIN_API StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The signal that asked to stop, or 0; always 0 while no object lives.
  static int received();
};

}  // namespace mmtrain
