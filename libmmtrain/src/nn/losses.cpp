#include "mmtrain/nn/losses.h"

#include <ATen/OpMathType.h>
#include <ATen/core/Reduction.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "mmtrain/core/error.h"

namespace mmtrain::nn {
namespace {

bool has_indices(const torch::Tensor& target) { return !target.is_floating_point(); }

// Half precision has too few bits for sums.
torch::Tensor wide(const torch::Tensor& logits) { return logits.to(at::toOpMathType(logits.scalar_type())); }

std::optional<torch::Tensor> class_weights_like(const torch::Tensor& logits, const torch::Tensor& class_weights) {
  if (!class_weights.defined()) return std::nullopt;
  return class_weights.to(logits.options().requires_grad(false));
}

void check_shapes(const char* who, const torch::Tensor& logits, const torch::Tensor& target,
                  const torch::Tensor& class_weights, const torch::Tensor& row_weights) {
  if (logits.dim() < 2) {
    throw ConfigError(fmt::format("[{}] the logits must be [B,C,...], got [{}]", who, fmt::join(logits.sizes(), ",")));
  }
  std::vector<std::int64_t> wanted = logits.sizes().vec();
  if (has_indices(target)) wanted.erase(wanted.begin() + 1);
  if (target.sizes() != torch::IntArrayRef(wanted)) {
    throw ConfigError(
        fmt::format("[{}] logits [{}] need class indices without the second dimension, or probabilities of "
                    "the same shape; got [{}]",
                    who, fmt::join(logits.sizes(), ","), fmt::join(target.sizes(), ",")));
  }
  if (class_weights.defined() && (class_weights.dim() != 1 || class_weights.size(0) != logits.size(1))) {
    throw ConfigError(fmt::format("[{}] class_weights must hold one weight for each of the {} classes, got [{}]", who,
                                  logits.size(1), fmt::join(class_weights.sizes(), ",")));
  }
  if (row_weights.defined() && (row_weights.dim() != 1 || row_weights.size(0) != logits.size(0))) {
    throw ConfigError(fmt::format("[{}] there must be one row weight for each of the {} rows, got [{}]", who,
                                  logits.size(0), fmt::join(row_weights.sizes(), ",")));
  }
}

void check_smoothing(const char* who, double label_smoothing) {
  if (!(label_smoothing >= 0 && label_smoothing <= 1)) {
    throw ConfigError(fmt::format("[{}] label_smoothing must be between 0 and 1, got {}", who, label_smoothing));
  }
}

// What each target counts, shaped like class indices.
torch::Tensor target_weights(const torch::Tensor& logits, const torch::Tensor& target,
                             const CrossEntropyOptions& options) {
  const auto float_options = logits.options().requires_grad(false);
  if (!has_indices(target)) return torch::ones_like(target.select(1, 0), float_options);
  const torch::Tensor counted = target != options.ignore_index;
  if (!options.class_weights.defined()) return counted.to(float_options);
  const torch::Tensor weights = *class_weights_like(logits, options.class_weights);
  return torch::where(counted, weights.index_select(0, target.where(counted, 0).flatten()).view_as(target), 0);
}

// One value for each row, to multiply with values shaped like class indices.
torch::Tensor by_row(const torch::Tensor& row_weights, const torch::Tensor& like) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(like.dim()), 1);
  shape[0] = like.size(0);
  return row_weights.to(like.options().requires_grad(false)).view(shape);
}

// Sums `losses`, shaped like class indices, and `weights` over all rows.
LossValue reduce(const torch::Tensor& losses, const torch::Tensor& weights, const torch::Tensor& row_weights) {
  if (!row_weights.defined()) return {losses.sum(), weights.sum()};
  const torch::Tensor scale = by_row(row_weights, losses);
  // A padded row may hold anything, also what gives an infinite loss: 0 times that would be NaN.
  return {torch::where(scale != 0, losses * scale, 0).sum(), (weights * scale).sum()};
}

torch::Tensor cross_entropy_op(const torch::Tensor& logits, const torch::Tensor& target,
                               const CrossEntropyOptions& options, at::Reduction::Reduction reduction) {
  const torch::Tensor goal = has_indices(target) ? target : target.to(logits.scalar_type());
  return at::cross_entropy_loss(logits, goal, class_weights_like(logits, options.class_weights), reduction,
                                options.ignore_index, options.label_smoothing);
}

}  // namespace

LossValue cross_entropy(const torch::Tensor& logits, const torch::Tensor& target, const CrossEntropyOptions& options,
                        const torch::Tensor& row_weights) {
  check_shapes("cross_entropy", logits, target, options.class_weights, row_weights);
  check_smoothing("cross_entropy", options.label_smoothing);
  const torch::Tensor values = wide(logits);
  const torch::Tensor weights = target_weights(values, target, options);
  if (row_weights.defined()) {
    return reduce(cross_entropy_op(values, target, options, at::Reduction::None), weights, row_weights);
  }
  return {cross_entropy_op(values, target, options, at::Reduction::Sum), weights.sum()};
}

LossValue cross_entropy(const torch::Tensor& logits, const torch::Tensor& target, const torch::Tensor& row_weights) {
  return cross_entropy(logits, target, CrossEntropyOptions{}, row_weights);
}

LossValue focal_loss(const torch::Tensor& logits, const torch::Tensor& target, const FocalLossOptions& options,
                     const torch::Tensor& row_weights) {
  check_shapes("focal_loss", logits, target, options.class_weights, row_weights);
  check_smoothing("focal_loss", options.label_smoothing);
  if (!has_indices(target)) throw ConfigError("[focal_loss] the target must be class indices, got probabilities");
  if (!(options.gamma >= 0)) {
    throw ConfigError(fmt::format("[focal_loss] gamma must not be negative, got {}", options.gamma));
  }
  const CrossEntropyOptions plain{.class_weights = options.class_weights,
                                  .ignore_index = options.ignore_index,
                                  .label_smoothing = options.label_smoothing};
  const torch::Tensor values = wide(logits);
  const torch::Tensor weights = target_weights(values, target, plain);
  const torch::Tensor surprise =
      cross_entropy_op(values, target, {.ignore_index = options.ignore_index}, at::Reduction::None);
  // 1 - p without cancellation. The bound keeps the slope of a broken power finite where p is 1.
  const torch::Tensor miss = (-torch::expm1(-surprise)).clamp_min(1e-12);
  torch::Tensor losses = weights * miss.pow(options.gamma) * surprise;
  if (options.cross_entropy != 0) {
    losses = losses + options.cross_entropy * cross_entropy_op(values, target, plain, at::Reduction::None);
  }
  return reduce(losses, weights, row_weights);
}

}  // namespace mmtrain::nn
