#include "mmtrain/nn/losses.h"

#include <torch/nn/functional/loss.h>

namespace mmtrain::nn {

namespace F = torch::nn::functional;

LossValue cross_entropy(const torch::Tensor& logits, const torch::Tensor& target, const torch::Tensor& row_weights) {
  if (!row_weights.defined()) {
    const torch::Tensor sum = F::cross_entropy(logits, target, F::CrossEntropyFuncOptions().reduction(torch::kSum));
    return {sum, torch::scalar_tensor(target.numel(), sum.options().requires_grad(false))};
  }
  const torch::Tensor rows = F::cross_entropy(logits, target, F::CrossEntropyFuncOptions().reduction(torch::kNone));
  // A padded row may hold anything, also what gives an infinite loss: 0 times that would be NaN.
  const torch::Tensor counted = torch::where(row_weights != 0, rows * row_weights, torch::zeros_like(rows));
  return {counted.sum(), row_weights.sum()};
}

}  // namespace mmtrain::nn
