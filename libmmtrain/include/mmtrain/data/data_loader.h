#pragma once

#include <torch/types.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "mmtrain/batch/batch.h"
#include "mmtrain/core/export.h"
#include "mmtrain/data/dataset.h"
#include "mmtrain/data/sampler.h"

namespace mmtrain {

/// What the loader does with a sample that cannot be read.
enum class BadSamplePolicy {
  throw_error,  ///< using its batch throws a `DataError` naming the sample; the next batch can be had all the same
  skip          ///< the batch is shorter, later batches do not shift; listed in `errors()`
};

struct DataLoaderOptions {
  std::int64_t batch_size = 1;
  int num_workers = 0;      ///< threads that read; 0 reads in the caller
  int prefetch_factor = 2;  ///< batches per worker read ahead or being read, at most
  bool drop_last = false;   ///< leave out the last batch if it is shorter
  bool pin_memory = false;  ///< batches in page-locked memory (needs CUDA)
  /// Hand out batches on this CUDA device: while one is in use, the next is copied on a side stream.
  std::optional<torch::Device> prefetch_device = {};
  BadSamplePolicy bad_samples = BadSamplePolicy::throw_error;
  std::uint64_t seed = 0;  ///< of the random numbers that samples see
};

/// Reads batches with worker threads and hands them out in the sampler's order: the same seed gives the same batches
/// with 0, 1 or N workers. Workers start with the first epoch, stay, and run ATen with one thread each. Leaving an
/// epoch early, starting another, an error in a sample and destruction in any state are all fine. Exceptions other
/// than `DataError` (out of memory, say) are never taken for a bad sample: they surface at their batch. One consumer
/// at a time.
///
///     DataLoader loader(dataset, std::make_shared<RandomSampler>(dataset->size(), seed), {.batch_size = 64});
///     for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
///       for (Batch& batch : loader.epoch(epoch)) { ... }
///     }
///
/// A batch holds the tensors of the dataset's spec with a batch dimension in front, and sample indices as `ids`. Its
/// memory is used again once the last tensor of it is gone. A batch without any good sample is left out; an epoch
/// without one throws `DataError` at its end.
class MMTRAIN_API DataLoader {
 public:
  /// Throws `ConfigError` for options out of range, `DeviceError` if the machine has no such device.
  DataLoader(std::shared_ptr<const Dataset> dataset, std::shared_ptr<const Sampler> sampler, DataLoaderOptions options);
  /// Waits for samples that are being read.
  ~DataLoader();
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;

  /// An input iterator. Errors surface in `*it`, once `++it` or `begin` has got there; `++it` then goes on behind them.
  class MMTRAIN_API Iterator {
   public:
    using value_type = Batch;
    using difference_type = std::ptrdiff_t;
    /// The batch, until the next `++` or `begin`; move from it to keep it. Throws what went wrong with it.
    Batch& operator*() const;
    Iterator& operator++();
    void operator++(int) { ++*this; }
    /// Also true once a later `begin` has ended this pass.
    bool operator==(std::default_sentinel_t) const;

   private:
    friend class DataLoader;
    Iterator(DataLoader* loader, std::uint64_t pass) : loader_(loader), pass_(pass) {}
    DataLoader* loader_;
    std::uint64_t pass_;
  };

  /// The range of an epoch's batches.
  class MMTRAIN_API Epoch {
   public:
    /// Starts the pass over the data, which ends any other, and waits for its first batch.
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
  const Sampler& sampler() const;
  const DataLoaderOptions& options() const;

  /// Number, in its epoch, of the batch behind the current one: `first_batch` to go on from here. Differs from a count
  /// of batches where one had no good sample.
  std::int64_t next_batch() const;

  /// Seconds the consumer waited for batches in the current or last epoch (with no workers: the reading itself).
  double wait_seconds() const;

  /// Samples that could not be read, in the order met, each once over the life of the loader (policy skip).
  std::vector<SampleError> errors() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Throws `DataError` if not one sample of `dataset` can be read; `split` names it in the message. Reads up to the
/// first good sample: worth a call before an hour of training that would end in such a validation split.
MMTRAIN_API void require_readable(std::shared_ptr<const Dataset> dataset, std::string_view split);

}  // namespace mmtrain
