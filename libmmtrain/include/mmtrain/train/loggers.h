#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/train/callback.h"

namespace mmtrain {

/// Prints shapes and device of the first batch, and a line after each epoch: `Epoch   1/80: Train Loss: 5.1754, Train
/// Acc: 0.94%, Test Loss: 5.0138, Test Acc: 2.17%, LR: 0.000300, Time: 19.77s`.
class MMTRAIN_API ConsoleLogger final : public Callback {
 public:
  /// Every `print_every` epochs, and the last. With `f1` a second line has macro and weighted F1, which say more than
  /// the accuracy where classes are rare.
  explicit ConsoleLogger(std::int64_t print_every = 1, bool f1 = false) : print_every_(print_every), f1_(f1) {}
  void on_fit_begin(const FitInfo& info) override;
  void on_first_batch(const Batch& batch) override;
  void on_epoch_end(const EpochRecord& record) override;

 private:
  std::int64_t print_every_, epochs_ = 0;
  bool f1_;
};

/// Writes `metrics.csv`, one row an epoch. The whole file is replaced each time, so it is never torn and a resumed run
/// starts from the epochs its checkpoint knows.
class MMTRAIN_API CsvLogger final : public Callback {
 public:
  void on_fit_begin(const FitInfo& info) override;
  void on_epoch_end(const EpochRecord& record) override;

 private:
  void write() const;

  std::filesystem::path path_;
  std::vector<EpochRecord> rows_;
};

/// Writes TensorBoard scalars: loss/train, loss/val, accuracy/train, accuracy/val, f1/..., lr (with several parameter
/// groups one of each), gradient norm, speed, data wait, memory of each device.
class MMTRAIN_API TensorBoardLogger final : public Callback {
 public:
  /// Writes into the run directory, and into `also` where that is named: one place for many runs.
  explicit TensorBoardLogger(std::filesystem::path also = {});
  ~TensorBoardLogger() override;
  void on_fit_begin(const FitInfo& info) override;
  void on_epoch_end(const EpochRecord& record) override;
  void on_fit_end(const FitResult& result) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Writes loss, accuracies, F1, precision, recall, F1 and support of each class, and the confusion matrix as JSON.
MMTRAIN_API void write_test_results(const std::filesystem::path& path, const MetricValues& values,
                                    const std::vector<std::string>& class_names);

}  // namespace mmtrain
