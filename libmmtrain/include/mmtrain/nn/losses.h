#pragma once

#include <torch/types.h>

#include <cstdint>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// A loss as the engine needs it: the weighted sum over the rows and the weight it was summed with, both scalars on the
/// device of the logits. The mean is `sum / weight`; sums and weights of parts of a batch add up, means do not.
struct LossValue {
  torch::Tensor sum;
  torch::Tensor weight;
};

namespace nn {

struct CrossEntropyOptions {
  torch::Tensor class_weights = {};  ///< float `[C]`; undefined: all 1
  std::int64_t ignore_index = -100;  ///< targets of this class count nowhere; class indices only
  double label_smoothing = 0;        ///< this share of the target is spread evenly over all classes, in [0, 1]
};

/// Cross entropy of logits `[B,C]` or `[B,C,...]` and a target: class indices int64 `[B]` or `[B,...]`, or
/// probabilities, float, shaped like the logits. `row_weights` `[B]` (undefined: all 1) scales each row's share in sum
/// and weight; a row of weight 0 counts nowhere, whatever it holds.
///
/// `sum / weight` is Python's `F.cross_entropy(..., reduction="mean")`: the weight of a row is its class's weight for
/// class indices, and 1 for probabilities. Half-precision logits are summed in float32. Throws `ConfigError` for
/// options out of range and for shapes that do not fit.
MMTRAIN_API LossValue cross_entropy(const torch::Tensor& logits, const torch::Tensor& target,
                                    const CrossEntropyOptions& options, const torch::Tensor& row_weights = {});

/// The same with default options.
MMTRAIN_API LossValue cross_entropy(const torch::Tensor& logits, const torch::Tensor& target,
                                    const torch::Tensor& row_weights = {});

struct FocalLossOptions {
  double gamma = 2;                  ///< 0 gives plain cross entropy; not negative
  torch::Tensor class_weights = {};  ///< float `[C]`; undefined: all 1
  std::int64_t ignore_index = -100;  ///< targets of this class count nowhere
  double cross_entropy = 0;          ///< so much of the cross entropy is added
  double label_smoothing = 0;        ///< of the cross entropy that is added
};

/// Focal loss of Lin et al., "Focal loss for dense object detection", ICCV 2017, for many classes: the cross entropy of
/// each row times (1 - p)^gamma, where p is the probability given to its class. Target: class indices. Rows weigh as in
/// `cross_entropy`.
MMTRAIN_API LossValue focal_loss(const torch::Tensor& logits, const torch::Tensor& target,
                                 const FocalLossOptions& options, const torch::Tensor& row_weights = {});

}  // namespace nn
}  // namespace mmtrain
