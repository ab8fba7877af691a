#pragma once

#include <cstdint>
#include <vector>

#include "mmtrain/batch/batch.h"
#include "mmtrain/data/dataset.h"

namespace mmtrain::detail {

// The tensor of `sample` that `spec` describes. Throws `ConfigError` if it is absent or of another type, which is a
// fault of the program, and `DataError` if its shape does not fit, which may be one of the data.
torch::Tensor checked_tensor(const TensorSpec& spec, const torch::Tensor* tensor);

// Whether a dimension of any tensor differs between samples.
bool has_lengths(const DatasetSpec& spec);

// Joins samples whose tensors were checked: stacks what is fixed, pads what is not. `ids` is left to the caller.
Batch collate(const DatasetSpec& spec, const std::vector<Sample>& samples, bool pinned);

// `sample` with each tensor checked, in the order of `spec`.
Sample checked_sample(const DatasetSpec& spec, const Sample& sample);

}  // namespace mmtrain::detail
