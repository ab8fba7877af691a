#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/data/dataset.h"
#include "mmtrain/datasets/sensor_features.h"
#include "mmtrain/datasets/sensor_folders.h"

namespace mmtrain::datasets {

/// What is never parted by a split. Windows of one recording overlap: parted at random (`window`), the test knows what
/// was trained on, and its accuracy says little about recordings to come.
enum class SplitBy { file, person, window };

/// `file`, `person` or `window`; throws `ConfigError` for another word.
MMTRAIN_API SplitBy parse_split(std::string_view word);

struct SensorSplitOptions {
  SplitBy by = SplitBy::file;
  double test_size = 0.2;  ///< share of the windows that is tested on
  double val_size = 0.15;  ///< share that early stopping looks at; 0: there is none
  std::uint64_t seed = 0;
};

/// Indices of windows.
struct SensorSplit {
  std::vector<std::int64_t> train, val, test;
};

/// Parts the windows, in each class as near to the shares as whole recordings or people allow. Where the layout has a
/// test split of its own (UCI HAR), `file` takes that, and whole people for validation. Throws `ConfigError` for shares
/// out of range, `DataError` where there are fewer recordings or people than parts.
MMTRAIN_API SensorSplit split_windows(const SensorData& data, const SensorSplitOptions& options);

/// Parts `windows` in two: the rest, and one with `share` of them; a share of 0 leaves that empty.
MMTRAIN_API std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>> split_off(
    const SensorData& data, const std::vector<std::int64_t>& windows, SplitBy by, double share, std::uint64_t seed);

/// The windows in `folds` parts, alike in their classes. As many folds as there are people, by person, leave one person
/// out each. Throws `ConfigError` for less than 2 folds, `DataError` where there are fewer recordings or people.
MMTRAIN_API std::vector<std::vector<std::int64_t>> sensor_folds(const SensorData& data, SplitBy by, std::int64_t folds,
                                                                std::uint64_t seed);

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
