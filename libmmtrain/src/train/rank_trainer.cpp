#include "train/rank_trainer.h"

#include <utility>

namespace mmtrain::detail {
namespace {

void add(std::optional<ClassificationMetrics>& metrics, const StepResult& outcome, const Batch& batch) {
  if (!metrics) metrics.emplace(outcome.output.size(1), outcome.output.device());
  metrics->add(outcome.output, batch.target, outcome.loss_sum, outcome.weight, batch.weights);
}

}  // namespace

RankTrainer::RankTrainer(RankParts parts, Loss loss, torch::Device device)
    : step_(std::move(parts.model), std::move(parts.optimizer), std::move(loss), std::move(parts.step)),
      device_(device),
      step_sums_(torch::zeros({4}, torch::TensorOptions(torch::kDouble).device(device))),
      broken_losses_(torch::zeros({2}, step_sums_.options())) {}

StepStatus RankTrainer::train(const Batch& batch, std::int64_t number, const RowPlace& place, bool completes,
                              StepStatus status) {
  const StepResult outcome = completes ? step_.run(batch, place, status) : step_.accumulate(batch, place, status);
  if (outcome.status.no_batch) return outcome.status;
  add(trained_, outcome, batch);
  count(outcome);
  watch_loss(outcome.loss_sum, number);
  return outcome.status;
}

void RankTrainer::watch_loss(const torch::Tensor& loss, std::int64_t number) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor row = torch::where(loss.isfinite(), 0.0, broken_losses_[0] + 1);
  const torch::Tensor first = torch::where(row == 1, static_cast<double>(number), broken_losses_[1]);
  broken_losses_.copy_(torch::stack({row, first}));
}

void RankTrainer::count(const StepResult& outcome) {
  if (!outcome.grad_norm.defined() && !outcome.skipped.defined()) return;
  const torch::NoGradGuard no_grad;
  const torch::Tensor none = torch::zeros({}, step_sums_.options());
  torch::Tensor norm = none, finite = none, broken = none;
  if (outcome.grad_norm.defined()) {
    finite = outcome.grad_norm.isfinite();
    norm = torch::where(finite, outcome.grad_norm.to(torch::kDouble), 0.0);
    finite = finite.to(torch::kDouble);
    broken = 1 - finite;
  }
  const torch::Tensor skipped = outcome.skipped.defined() ? outcome.skipped.to(step_sums_.options()) : none;
  step_sums_.add_(torch::stack({norm, finite, skipped, broken}));
}

void RankTrainer::begin_evaluation(bool averaged) {
  module().eval();
  evaluated_.reset();
  if (averaged && step_.ema()) averaged_.emplace(*step_.ema());
}

void RankTrainer::evaluate(const Batch& batch) { add(evaluated_, step_.evaluate(batch), batch); }

}  // namespace mmtrain::detail
