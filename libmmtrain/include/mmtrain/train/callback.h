#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "mmtrain/batch/batch.h"
#include "mmtrain/core/export.h"
#include "mmtrain/device/memory.h"
#include "mmtrain/train/metrics.h"

namespace mmtrain {

/// What is known after an epoch. Accuracies are fractions 0..1. Values of an epoch without validation are NaN.
struct EpochRecord {
  std::int64_t epoch = 0;        ///< counted from 1
  std::int64_t global_step = 0;  ///< optimizer steps since the start of training
  double train_loss = 0, train_acc = 0;
  double val_loss = 0, val_acc = 0, val_top5 = 0, val_f1_macro = 0, val_f1_weighted = 0;
  double lr = 0;                     ///< of the first parameter group
  double epoch_seconds = 0;          ///< training and validation
  double samples_per_second = 0;     ///< of training
  double data_wait_pct = 0;          ///< share of the training time spent waiting for batches, per cent
  std::int64_t skipped_samples = 0;  ///< samples that could not be read, so far
  double grad_norm = 0;              ///< mean over the steps, before clipping; NaN where it is not measured
  std::int64_t skipped_steps = 0;    ///< steps left out because gradients overflowed
  bool best = false;                 ///< the best validation result so far

  /// Learning rate of a parameter group.
  struct GroupRate {
    std::string group;
    double lr = 0;
  };
  /// Memory of a device at the end of the epoch.
  struct DeviceMemory {
    std::string device;
    MemoryStats memory;
  };
  // Of the epoch just ended only: histories taken up from a checkpoint do without.
  std::vector<GroupRate> group_rates = {};
  std::vector<DeviceMemory> memory = {};
};

/// What a finished, stopped or interrupted `Trainer::fit` returns.
struct FitResult {
  std::vector<EpochRecord> history;  ///< all epochs, those before a resume included
  std::int64_t best_epoch = 0;       ///< 0 if no epoch was validated
  double best_val_acc = 0;
  double best_val_f1_weighted = 0;  ///< of the best epoch
  int signal = 0;                   ///< SIGINT or SIGTERM if one stopped the run, else 0
  bool stopped_early = false;       ///< early stopping ended the run
};

/// What a callback may know when training begins.
struct FitInfo {
  std::int64_t epochs = 0;           ///< planned
  std::int64_t first_epoch = 1;      ///< above 1 when the run was resumed
  std::vector<EpochRecord> history;  ///< epochs done before
  std::filesystem::path run_dir;     ///< empty: nothing is written
  std::vector<std::string> class_names;
};

/// Watches a run. Errors thrown by a callback end the run.
class MMTRAIN_API Callback {
 public:
  virtual ~Callback() = default;
  virtual void on_fit_begin(const FitInfo&) {}
  /// The first batch of this run, on the device, before the model sees it.
  virtual void on_first_batch(const Batch&) {}
  virtual void on_epoch_end(const EpochRecord&) {}
  virtual void on_fit_end(const FitResult&) {}
  /// The final evaluation of the best weights, where a program makes one.
  virtual void on_test_end(const MetricValues&) {}
};

}  // namespace mmtrain
