#pragma once

#include <torch/types.h>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// A loss as the engine needs it: the weighted sum over the rows and the weight it was summed with, both scalars on the
/// device of the logits. The mean is `sum / weight`; sums and weights of parts of a batch add up, means do not.
struct LossValue {
  torch::Tensor sum;
  torch::Tensor weight;
};

namespace nn {

/// Cross entropy of logits `[B,C]` and class indices int64 `[B]`. `row_weights` `[B]` (undefined: all 1) scales each
/// row's share in sum and weight; a row of weight 0 counts nowhere.
MMTRAIN_API LossValue cross_entropy(const torch::Tensor& logits, const torch::Tensor& target,
                                    const torch::Tensor& row_weights = {});

}  // namespace nn
}  // namespace mmtrain
