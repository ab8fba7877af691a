#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include <torch/ordered_dict.h>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// Tensors by name, in a fixed order.
using NamedTensors = torch::OrderedDict<std::string, torch::Tensor>;

/// The tensor called `name` in `inputs`; throws `DataError` listing the names there are.
MMTRAIN_API const torch::Tensor& input_called(const std::string& name, const NamedTensors& inputs);

/// The unit of data every module speaks: what a model reads, what it should answer, and who the rows are.
/// Every tensor has the batch as its first dimension. Copying a Batch copies handles, never data.
struct MMTRAIN_API Batch {
  NamedTensors inputs;    ///< what the model reads, e.g. `image [B,3,H,W]`
  torch::Tensor target;   ///< what it should answer, e.g. class indices int64 `[B]`; may be undefined
  torch::Tensor weights;  ///< weight of each row, float `[B]`; undefined means 1 for all
  torch::Tensor ids;      ///< index of each row in its dataset, int64 `[B]`; may be undefined

  /// Number of rows; 0 for a batch without tensors.
  std::int64_t size() const;

  /// The input called `name`; throws `DataError` listing the names there are.
  const torch::Tensor& input(const std::string& name) const { return input_called(name, inputs); }

  /// All tensors on `device`. With `non_blocking`, copies from pinned memory return at once.
  Batch to(torch::Device device, bool non_blocking = false) const;

  /// All tensors in page-locked memory, for fast asynchronous copies to CUDA. Needs a CUDA device.
  Batch pin_memory() const;

  /// Rows [begin, begin + count), as views.
  Batch narrow(std::int64_t begin, std::int64_t count) const;

  /// `parts` pieces in row order whose sizes differ by at most one, the longer ones first; a piece may be empty
  /// when there are fewer rows than parts. Views.
  std::vector<Batch> split(std::int64_t parts) const;
};

}  // namespace mmtrain
