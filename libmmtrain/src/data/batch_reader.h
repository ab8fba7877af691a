#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "data/buffer_pool.h"
#include "mmtrain/batch/batch.h"
#include "mmtrain/data/data_loader.h"
#include "mmtrain/data/dataset.h"

namespace mmtrain::detail {

// What came of reading a batch.
struct ReadResult {
  Batch batch;                      // the rows that could be read; without tensors if there are none
  std::vector<SampleError> bad;     // the rows that could not
  std::exception_ptr failure = {};  // anything else that was thrown
  std::string failed_sample = {};   // while reading this one
};

// Reads batches of a dataset into memory that is used again. Thread-safe.
class BatchReader {
 public:
  BatchReader(std::shared_ptr<const Dataset> dataset, const DataLoaderOptions& options);
  ~BatchReader();
  BatchReader(const BatchReader&) = delete;
  BatchReader& operator=(const BatchReader&) = delete;

  // Reads the samples `indices`, with the random numbers of `epoch`. Stops after the sample at hand on request (the
  // result is then of no use), and after the first bad one unless bad samples are skipped.
  ReadResult read(std::span<const std::int64_t> indices, std::int64_t epoch,
                  const std::stop_token& stop) const noexcept;

 private:
  // A tensor of the batch inside a block of the pool.
  struct Field {
    TensorSpec spec;
    std::size_t offset, row_bytes;
  };

  std::vector<torch::Tensor> allocate(std::int64_t rows) const;
  void read_into_slots(std::span<const std::int64_t> indices, std::int64_t epoch, const std::stop_token& stop,
                       ReadResult& result) const;
  void read_and_collate(const SampleDataset& dataset, std::span<const std::int64_t> indices,
                        const std::stop_token& stop, ReadResult& result) const;
  template <class Read>
  bool attempt(std::int64_t index, ReadResult& result, Read read) const;
  torch::Tensor ids_tensor(const std::vector<std::int64_t>& ids) const;

  const std::shared_ptr<const Dataset> dataset_;
  const SampleDataset* const collated_;  // set if lengths vary: such batches are joined from samples
  const DatasetSpec spec_;
  const std::uint64_t seed_;
  const bool skip_, pinned_;
  std::vector<Field> fields_;  // the inputs, then the target if there is one
  std::shared_ptr<BufferPool> pool_;
};

}  // namespace mmtrain::detail
