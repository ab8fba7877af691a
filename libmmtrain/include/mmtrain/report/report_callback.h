#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/train/callback.h"

namespace mmtrain {

/// Writes what an evaluation found into a run directory: `plots/confusion_matrix.png` and `classification_report.txt`.
/// Without class names the classes are called by their index. Throws `ConfigError` if the names do not fit, `Error` if
/// a file cannot be written.
MMTRAIN_API void write_test_report(const std::filesystem::path& run_dir, const MetricValues& metrics,
                                   const std::vector<std::string>& class_names);

/// Draws a run: `plots/curves.png` after each epoch (those before a resume included), and the files of
/// `write_test_report` and `report.html` after the final test. Does nothing in a run without a directory.
class MMTRAIN_API ReportCallback final : public Callback {
 public:
  void on_fit_begin(const FitInfo& info) override;
  void on_epoch_end(const EpochRecord& record) override;
  void on_test_end(const MetricValues& metrics) override;

 private:
  std::filesystem::path run_dir_;
  std::vector<std::string> class_names_;
  std::vector<EpochRecord> history_;
};

}  // namespace mmtrain
