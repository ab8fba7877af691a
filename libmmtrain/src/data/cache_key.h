#pragma once

#include <vector>

#include "data/cache_index.h"
#include "mmtrain/data/sample_source.h"

namespace mmtrain::detail {

// The cache that a source wants.
struct CacheKey : CacheIndex {
  std::vector<TensorSpec> spec;

  explicit CacheKey(const SampleSource& source);
};

}  // namespace mmtrain::detail
