#pragma once

#include <torch/optim/optimizer.h>

#include <functional>
#include <memory>

#include "mmtrain/batch/batch.h"
#include "mmtrain/batch/model.h"
#include "mmtrain/core/export.h"
#include "mmtrain/nn/losses.h"

namespace mmtrain {

/// Loss of a model's output on a batch, as (sum, weight).
using Loss = std::function<LossValue(const torch::Tensor& output, const Batch& batch)>;

/// `nn::cross_entropy` of the output and the batch's target, with the batch's row weights.
MMTRAIN_API Loss cross_entropy_loss();

/// What a step leaves behind, on the device: reading a value waits for the device, so the caller decides when.
struct StepResult {
  torch::Tensor loss_sum;  ///< scalar
  torch::Tensor weight;    ///< scalar: the mean loss is loss_sum / weight
  torch::Tensor output;    ///< the model's output, detached
};

struct TrainStepOptions {
  /// Keeps weights and 4-d inputs in channels-last memory, which convolutions on CPU and tensor cores like better.
  bool channels_last = false;
};

/// One optimizer step on one batch, in fixed order: forward, backward of the weighted mean, step, zero. Usable in any
/// hand-written loop; the Trainer has no other way to train.
class MMTRAIN_API TrainStep {
 public:
  TrainStep(std::shared_ptr<Model> model, std::shared_ptr<torch::optim::Optimizer> optimizer, Loss loss,
            TrainStepOptions options = {});

  /// Trains on `batch`, which is on the model's device. The model must be in training mode.
  StepResult run(const Batch& batch);

  /// Loss and output without training; gradients are not recorded. The caller chooses the mode of the model.
  StepResult evaluate(const Batch& batch);

  Model& model() { return *model_; }
  torch::optim::Optimizer& optimizer() { return *optimizer_; }

 private:
  torch::Tensor forward(const Batch& batch);

  std::shared_ptr<Model> model_;
  std::shared_ptr<torch::optim::Optimizer> optimizer_;
  Loss loss_;
  TrainStepOptions options_;
};

/// Moves every 4-d parameter and buffer of `module` into channels-last memory; names, values and shapes stay.
MMTRAIN_API void to_channels_last(torch::nn::Module& module);

}  // namespace mmtrain
