#pragma once

#include <mmtrain/batch/model.h>
#include <mmtrain/core/config.h>
#include <mmtrain/datasets/sensor_features.h>
#include <mmtrain/datasets/sensor_folders.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/cli.h"

/// What training and prediction on sensor recordings share.
namespace programs {

/// Sizes of the nets; 0: the net's reference.
struct BehaviorModelOptions {
  std::int64_t d_model = 0, num_heads = 0, num_layers = 0, d_ff = 0;
  double cnn_width = 1, head_dropout = 0.3;

  void declare(Cli& cli);
  /// From the configuration of a run.
  static BehaviorModelOptions from(const mmtrain::Config& config);
};

/// The net called `name`, `cnn`, `transformer`, `fusion` or `dual`, freshly initialized.
std::shared_ptr<mmtrain::Model> make_behavior_model(const std::string& name, const BehaviorModelOptions& options,
                                                    std::int64_t channels, std::int64_t classes);

/// What recordings became before a net was trained on them: the same has to happen to those it is used on. It is a part
/// of every checkpoint.
struct Preparation {
  std::vector<std::string> channels, class_names;
  double rate = 0;               ///< samples a second of the windows
  double file_rate = 0;          ///< samples a second that the files had, most of them
  std::int64_t window_rows = 0;  ///< of a window
  double overlap = 0.5;          ///< of windows that follow one another
  bool cleaned = false;
  mmtrain::datasets::SensorFeatureOptions features;
  mmtrain::datasets::SensorStatistics statistics;

  mmtrain::datasets::SensorFeatures make_features() const;
  mmtrain::Config to_config() const;
  /// Throws `mmtrain::DataError` for a key that is missing.
  static Preparation from_config(const mmtrain::Config& config);
};

/// Inputs that the net called `name` reads.
bool reads_series(const std::string& name);
bool reads_spectrum(const std::string& name);

}  // namespace programs
