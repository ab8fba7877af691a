#pragma once

#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <vector>

#include <torch/types.h>

#include "mmtrain/batch/batch.h"
#include "mmtrain/core/export.h"
#include "mmtrain/data/dataset.h"
#include "mmtrain/data/sampler.h"

namespace mmtrain {

/// What the loader does with a sample that cannot be read.
enum class BadSamplePolicy {
  throw_error,  ///< the consumer gets a `DataError` naming the sample; the loader stays usable
  skip          ///< the batch is shorter, later batches do not shift; listed in `errors()`
};

struct DataLoaderOptions {
  std::int64_t batch_size = 1;
  int num_workers = 0;          ///< threads that read; 0 reads in the caller
  int prefetch_factor = 2;      ///< batches in flight per worker, at most
  bool drop_last = false;       ///< leave out the last batch if it is shorter
  bool pin_memory = false;      ///< batches in page-locked memory (needs CUDA)
  std::optional<torch::Device> prefetch_device = {};  ///< copy batches to this CUDA device ahead, on a side stream
  BadSamplePolicy bad_samples = BadSamplePolicy::throw_error;
  std::uint64_t seed = 0;       ///< of the random numbers that samples see
};

/// Reads batches with worker threads and hands them out in the sampler's order: the same seed gives the same batches
/// with 0, 1 or N workers. Workers persist between epochs. Leaving an epoch early, starting another, an error in a
/// sample and destruction in any state are all fine. One consumer at a time.
///
///     DataLoader loader(dataset, std::make_shared<RandomSampler>(dataset->size(), seed), {.batch_size = 64});
///     for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
///       for (Batch& batch : loader.epoch(epoch)) { ... }
///     }
class MMTRAIN_API DataLoader {
 public:
  /// Throws `ConfigError` for options out of range.
  DataLoader(std::shared_ptr<const Dataset> dataset, std::shared_ptr<const Sampler> sampler, DataLoaderOptions options);
  ~DataLoader();
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;

  class MMTRAIN_API Iterator {
   public:
    using value_type = Batch;
    using difference_type = std::ptrdiff_t;
    Batch& operator*() const;
    Iterator& operator++();
    bool operator==(std::default_sentinel_t) const;

   private:
    friend class DataLoader;
    explicit Iterator(DataLoader* loader) : loader_(loader) {}
    DataLoader* loader_;
  };

  /// One pass over the data; ends any pass still open. Iterate it once.
  class MMTRAIN_API Epoch {
   public:
    Iterator begin();
    std::default_sentinel_t end() const { return {}; }

   private:
    friend class DataLoader;
    Epoch(DataLoader* loader, std::int64_t epoch, std::int64_t first_batch)
        : loader_(loader), epoch_(epoch), first_batch_(first_batch) {}
    DataLoader* loader_;
    std::int64_t epoch_, first_batch_;
  };

  /// The batches of `epoch`, from batch `first_batch` on (to resume inside an epoch).
  Epoch epoch(std::int64_t epoch, std::int64_t first_batch = 0);

  /// Batches in an epoch.
  std::int64_t size() const;
  const Dataset& dataset() const;
  const DataLoaderOptions& options() const;

  /// Seconds the consumer waited for batches in the current or last epoch.
  double wait_seconds() const;

  /// Samples that could not be read, each once, over the life of the loader (policy skip).
  std::vector<SampleError> errors() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mmtrain
