#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "mmtrain/core/export.h"
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

}  // namespace mmtrain::datasets
