#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// Counts of a classification: `matrix[t][p]` rows of class `t` were predicted as class `p`.
using ConfusionMatrix = std::vector<std::vector<std::int64_t>>;

/// Quality of the answers for one class. What would be a division by zero is 0, as in scikit-learn.
struct ClassMetrics {
  double precision = 0;      ///< share of the rows predicted as this class that are of it
  double recall = 0;         ///< share of the rows of this class that were predicted as it
  double f1 = 0;             ///< harmonic mean of the two
  std::int64_t support = 0;  ///< rows of this class
};

/// Result of an evaluation. Shares are fractions 0..1; all are 0 (the loss NaN) when nothing was counted.
struct MetricValues {
  double loss = 0;         ///< weighted mean: sum of losses / sum of weights
  double accuracy = 0;     ///< share of rows whose highest logit is the target's
  double top5 = 0;         ///< share of rows whose target is among the 5 highest logits (all classes if fewer)
  double f1_macro = 0;     ///< mean f1 of the classes that occur as target or prediction (scikit-learn's default)
  double f1_weighted = 0;  ///< mean f1 of all classes, weighted by support
  std::int64_t rows = 0;   ///< rows counted
  std::vector<ClassMetrics> classes;
  ConfusionMatrix confusion;
};

/// Precision, recall, f1 and support of each class. Throws `ConfigError` if `confusion` is not square.
MMTRAIN_API std::vector<ClassMetrics> class_metrics(const ConfusionMatrix& confusion);

/// Accumulates loss, accuracy and confusion matrix of a classifier where the logits are: `add` never waits for the
/// device, `compute` does once. Rows of weight 0 (padding) and negative targets (ignored rows) count nowhere.
class MMTRAIN_API ClassificationMetrics {
 public:
  /// Throws `ConfigError` unless `classes` is positive.
  explicit ClassificationMetrics(std::int64_t classes, torch::Device device = torch::kCPU);

  /// Counts a batch: `logits` `[B,C]` (any floating type), `target` int64 `[B]` or probabilities `[B,C]` (the likeliest
  /// class counts), its `loss_sum` and `weight` (scalars,
  /// see `LossValue`), and optionally `row_weights` `[B]`. As in `torch.argmax`, NaN counts as the highest value and
  /// among equal logits the lowest class comes first. All tensors are on the device of the metrics. Throws
  /// `ConfigError` for other shapes.
  void add(const torch::Tensor& logits, const torch::Tensor& target, const torch::Tensor& loss_sum,
           const torch::Tensor& weight, const torch::Tensor& row_weights = {});

  /// What `add` has gathered since the last `reset`.
  MetricValues compute() const;

  void reset();

  std::int64_t classes() const { return classes_; }

  /// The whole state, on the device, in place: int64 `[C*C+1]` and float64 `[2]`. Adding the states of several
  /// accumulators (an all-reduce over ranks) gives the state of all their rows.
  std::vector<torch::Tensor> state() const { return {counts_, sums_}; }

 private:
  std::int64_t classes_;
  torch::Tensor counts_;   // confusion matrix by row, then the rows with the target among the top 5
  torch::Tensor sums_;     // loss sum, weight
  torch::Tensor columns_;  // 0..C-1
};

}  // namespace mmtrain
