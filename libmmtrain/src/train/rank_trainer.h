#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "mmtrain/train/metrics.h"
#include "mmtrain/train/train_step.h"
#include "mmtrain/train/trainer.h"

namespace mmtrain::detail {

/// What one rank does for the Trainer: its step, and what it has counted. Made and used on the rank's thread, read by
/// the Trainer between calls.
class RankTrainer {
 public:
  RankTrainer(RankParts parts, Loss loss, torch::Device device);

  /// Trains on `batch`, number `number` of its epoch, which is on the device, and counts it.
  StepStatus train(const Batch& batch, std::int64_t number, const RowPlace& place, bool completes, StepStatus status);
  /// Completes a step whose last batch never came.
  void finish_step() { count(step_.finish()); }

  /// With the average of the weights, if that is asked for and there is one.
  void begin_evaluation(bool averaged);
  void evaluate(const Batch& batch);
  void end_evaluation() { averaged_.reset(); }

  TrainStep& step() { return step_; }
  torch::nn::Module& module() { return step_.model().module(); }
  torch::Device device() const { return device_; }

  /// Of the open epoch; empty before the first batch.
  std::optional<ClassificationMetrics>& trained() { return trained_; }
  std::optional<ClassificationMetrics>& evaluated() { return evaluated_; }
  /// Of the open epoch, on the device: sum and number of finite gradient norms, steps left out, norms that are not
  /// finite.
  torch::Tensor& step_sums() { return step_sums_; }
  /// On the device: how many of the last batches in a row had a loss that is not finite, and the number of the first.
  const torch::Tensor& broken_losses() const { return broken_losses_; }

 private:
  void count(const StepResult& outcome);
  void watch_loss(const torch::Tensor& loss, std::int64_t number);

  TrainStep step_;
  torch::Device device_;
  std::optional<ClassificationMetrics> trained_, evaluated_;
  torch::Tensor step_sums_, broken_losses_;
  std::optional<optim::EmaScope> averaged_;
};

}  // namespace mmtrain::detail
