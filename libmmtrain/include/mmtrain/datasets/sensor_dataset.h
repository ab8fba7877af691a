#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/data/dataset.h"
#include "mmtrain/datasets/sensor_features.h"
#include "mmtrain/datasets/sensor_folders.h"

namespace mmtrain::datasets {

/// Random changes of windows in training; each is drawn anew for every epoch.
struct SensorAugmentation {
  double shift = 0.05;       ///< of a window's length in time, at most, both ways
  double scale_std = 0.05;   ///< of a factor around 1 on each channel
  double noise_std = 0.01;   ///< of noise, in standard deviations of the channel
  double mask_share = 0.05;  ///< of the window, at most, set to the mean
};

struct SensorDatasetOptions {
  bool series = true;  ///< input `series`, float `[window_rows, channels]`; `stft` is there if the features have bins
  bool augment = false;
  SensorAugmentation augmentation = {};
};

/// Some windows of recordings as samples: inputs `series` and `stft` (`[channels, bins, frames]`), brought to scale,
/// and the class as target.
class MMTRAIN_API SensorDataset final : public Dataset {
 public:
  SensorDataset(std::shared_ptr<const SensorData> data, std::vector<std::int64_t> windows,
                std::shared_ptr<const SensorFeatures> features, SensorStatistics statistics,
                const SensorDatasetOptions& options = {});

  DatasetSpec spec() const override;
  std::int64_t size() const override { return static_cast<std::int64_t>(windows_.size()); }
  void write(std::int64_t index, SampleSlot& slot) const override;
  std::string sample_name(std::int64_t index) const override;
  std::vector<std::string> class_names() const override { return data_->class_names; }
  std::vector<std::int64_t> labels() const override;

 private:
  void augment(std::span<float> series, RandomStream& random) const;

  std::shared_ptr<const SensorData> data_;
  std::vector<std::int64_t> windows_;
  std::shared_ptr<const SensorFeatures> features_;
  SensorStatistics statistics_;
  SensorDatasetOptions options_;
};

}  // namespace mmtrain::datasets
