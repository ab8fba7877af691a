#pragma once

#include <c10/core/Device.h>

#include <mmtrain/core/config.h>
#include <mmtrain/datasets/sensor_split.h>
#include <mmtrain/train/callback.h>
#include <mmtrain/train/metrics.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace programs {

/// What training one net gave.
struct ModelResult {
  std::string name = {};
  std::int64_t parameters = 0;
  double seconds = 0;
  mmtrain::FitResult fit = {};
  mmtrain::MetricValues test = {};                ///< of the best weights on the held-out split
  mmtrain::MetricValues report = {};              ///< on what the final report is on
  std::vector<mmtrain::MetricValues> folds = {};  ///< of a cross-validation; empty without one
  mmtrain::Config line = {};                      ///< of the result line
};

/// Compares the nets of a run and writes `model_comparison.csv`, `classification_report.txt`, `test_results.json`,
/// `comprehensive_results.png`, `plots/`, `experiment_summary.json` and, after a cross-validation,
/// `cross_validation.json`. The best net is that with the best validation accuracy. Returns the JSON of the result
/// line.
std::string report_models(const std::filesystem::path& run_dir, const std::vector<ModelResult>& results,
                          const mmtrain::datasets::SensorData& data, const mmtrain::datasets::SensorSplit& split,
                          const mmtrain::Config& config, c10::Device device, double seconds);

}  // namespace programs
