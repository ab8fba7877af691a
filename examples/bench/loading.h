#pragma once

#include <cstdint>
#include <vector>

#include "mmtrain/data/data_loader.h"

namespace mmtrain::bench {

/// One value of each repeat.
struct LoadingRates {
  std::vector<double> rates;  ///< samples a second
  std::vector<double> waits;  ///< per cent of the time that the consumer waited
};

/// Takes batches from one epoch after another, for `seconds` in all, after one of `samples` that warms page cache and
/// buffers. The consumer takes `consume_rate` samples a second, or as many as there are for 0.
LoadingRates measure_loading(DataLoader& loader, std::int64_t samples, double seconds, double consume_rate);

}  // namespace mmtrain::bench
