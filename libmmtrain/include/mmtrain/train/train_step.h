#pragma once

#include <torch/optim/optimizer.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "mmtrain/amp/grad_scaler.h"
#include "mmtrain/amp/policy.h"
#include "mmtrain/batch/batch.h"
#include "mmtrain/batch/model.h"
#include "mmtrain/core/config.h"
#include "mmtrain/core/export.h"
#include "mmtrain/io/state_dict.h"
#include "mmtrain/nn/losses.h"
#include "mmtrain/optim/ema.h"
#include "mmtrain/optim/scheduler.h"
#include "mmtrain/parallel/gradient_reducer.h"
#include "mmtrain/parallel/process_group.h"

namespace mmtrain {

namespace detail {
class StepGraph;
}

/// Loss of a model's output on a batch, as (sum, weight).
using Loss = std::function<LossValue(const torch::Tensor& output, const Batch& batch)>;

/// `nn::cross_entropy` of the output and the batch's target, with the batch's row weights.
MMTRAIN_API Loss cross_entropy_loss(const nn::CrossEntropyOptions& options = {});

/// `nn::focal_loss` of the same.
MMTRAIN_API Loss focal_loss(const nn::FocalLossOptions& options = {});

/// Where the rows of a batch lie in the batch that all ranks share: row i is number `first + i * stride` of `total`. By
/// default the rows of all ranks follow one another by turns.
struct RowPlace {
  std::int64_t first = 0;
  std::int64_t stride = 1;
  std::int64_t total = 0;  ///< 0: as many as the `rows` of all ranks together
  std::int64_t rows = -1;  ///< of this rank that count, where `total` is not known
};

/// What a rank lets the others know with its step; each is true for all ranks if it is for one.
struct StepStatus {
  bool stop = false;      ///< a signal came, say: training shall end after this step
  bool no_batch = false;  ///< this rank has no more batches: the step is not made
};

/// What a step leaves behind, on the device: reading a value waits for the device, so the caller decides when.
struct StepResult {
  torch::Tensor loss_sum = {};  ///< scalar
  torch::Tensor weight = {};    ///< scalar: the mean loss is loss_sum / weight
  torch::Tensor output = {};    ///< the model's output, detached
  torch::Tensor grad_norm =
      {};  ///< scalar, before clipping; undefined without `clip_norm` and before the step is complete
  torch::Tensor skipped =
      {};                  ///< scalar, 1 if gradients overflowed and the step was left out; undefined without scaler
  StepStatus status = {};  ///< of all ranks
};

struct TrainStepOptions {
  /// Keeps weights and 4-d inputs in channels-last memory, which convolutions on CPU and tensor cores like better.
  bool channels_last = false;
  /// Mixed precision of forward and loss, and whether gradients are scaled: see `amp::decide_precision`.
  amp::MixedPrecision precision = {};
  amp::GradScalerOptions scaler = {};  ///< used if `precision.scaler`
  double clip_norm = 0;                ///< largest global norm of the gradients; 0: any
  double clip_value = 0;               ///< largest absolute value of a gradient's elements; 0: any
  std::optional<optim::EmaOptions> ema = {};
  std::shared_ptr<optim::LRScheduler> scheduler = {};        ///< goes on with each optimizer step, also one left out
  std::shared_ptr<optim::LRScheduler> epoch_scheduler = {};  ///< goes on with `end_epoch`
  /// Runs the step as a captured CUDA graph; elsewhere nothing is compiled, and a line of the log says so.
  bool compile = false;
  std::uint64_t seed = 0;  ///< of dropout
  /// The ranks that train together, each with a step of its own that is made at the same time as theirs. The loss is
  /// the weighted mean over the joined batch of all of them.
  parallel::ProcessGroup group = {};
  parallel::ReducerOptions reducer = {};
  bool sync_batchnorm = false;  ///< batch normalization by the statistics of all ranks' rows
};

/// One optimizer step, in fixed order: forward, backward of the weighted mean, unscale, clip, step, scaler update,
/// zero; then scheduler and average of weights. Usable in any hand-written loop; the Trainer has no other way to train.
///
///     for (Batch& batch : loader.epoch(epoch)) step.run(batch);
///
/// Several micro-batches make one step whose gradient is that of their joined batch, whatever their sizes and weights:
///
///     step.accumulate(first); step.accumulate(second); step.run(third);
///
/// With a `group`, every rank calls the same functions the same number of times; parameters stay equal on all ranks to
/// the last bit.
class MMTRAIN_API TrainStep {
 public:
  /// Numbers the dropout layers of the model (`nn::assign_dropout_layers`). Throws `ConfigError` for options out of
  /// range.
  TrainStep(std::shared_ptr<Model> model, std::shared_ptr<torch::optim::Optimizer> optimizer, Loss loss,
            TrainStepOptions options = {});
  ~TrainStep();

  /// Trains on `batch`, which is on the model's device, together with what was accumulated before. The model must be in
  /// training mode.
  StepResult run(const Batch& batch, const RowPlace& place = {}, StepStatus status = {});

  /// Adds the gradients of `batch` to those of the step that a later `run` or `finish` completes.
  StepResult accumulate(const Batch& batch, const RowPlace& place = {}, StepStatus status = {});

  /// Takes the place of `run` or `accumulate` on a rank that has no batch. What was accumulated is dropped on all
  /// ranks.
  StepResult pass(StepStatus status = {.no_batch = true});

  /// Completes a step from what was accumulated; nothing happens if that is nothing. The loss, weight and output of the
  /// result are undefined.
  StepResult finish();

  /// The epoch scheduler goes on; `metric` is what it may look for a plateau in.
  void end_epoch(double metric);

  /// Loss and output without training; gradients are not recorded. The caller chooses the mode of the model.
  StepResult evaluate(const Batch& batch);

  /// Optimizer steps made, those left out included.
  std::int64_t step_count() const { return step_count_; }
  /// Whether batch normalization takes the statistics of all ranks: then each needs a row.
  bool has_joint_statistics() const { return options_.sync_batchnorm && options_.group.world_size() > 1; }
  /// Whether micro-batches wait for the rest of their step.
  bool is_accumulating() const { return micro_batches_ > 0; }

  Model& model() { return *model_; }
  torch::optim::Optimizer& optimizer() { return *optimizer_; }
  const amp::GradScaler& scaler() const { return scaler_; }
  /// Whether steps are recorded: `compile` was asked for, and there is something to compile for.
  bool is_compiled() const { return graph_ != nullptr; }
  /// The average of the weights, or null.
  optim::Ema* ema() { return ema_ ? &*ema_ : nullptr; }

  /// What has to be saved beside the weights and their average: tensors of the optimizer by parameter name, and numbers
  /// of step, scaler and scheduler. Ask between steps.
  struct State {
    StateDict optimizer;
    Config values;
  };
  State state_dict();
  /// Puts a state back. Throws `DataError` naming what is missing, unexpected or misshaped.
  void load_state_dict(const State& state);

 private:
  void compile();
  void begin_step();
  torch::Tensor forward(const Batch& batch);
  LossValue forward_loss(const Batch& batch, torch::Tensor& output);
  torch::Tensor agree(const torch::Tensor& weight, std::int64_t& rows, StepStatus& status);
  void clear_gradients();
  void drop();
  StepResult backward(const Batch& batch, const RowPlace& place, StepStatus status, bool completes);
  StepResult backward_or_drop(const Batch& batch, const RowPlace& place, StepStatus status, bool completes);
  StepResult run_whole(const Batch& batch, const RowPlace& place, StepStatus status);
  void apply_gradients(StepResult& result);
  void advance(const StepResult& result);
  std::vector<torch::Tensor> trained_parameters() const;

  std::shared_ptr<Model> model_;
  std::shared_ptr<torch::optim::Optimizer> optimizer_;
  Loss loss_;
  TrainStepOptions options_;
  amp::GradScaler scaler_;
  std::unique_ptr<parallel::GradientReducer> reducer_;
  std::optional<optim::Ema> ema_;
  std::int64_t step_count_ = 0;

  // Of the step that is open.
  std::int64_t micro_batches_ = 0, rows_ = 0;
  double nominal_weight_ = 0;  // what gradients were divided by
  torch::Tensor weight_;       // what they have to be divided by

  std::unique_ptr<detail::StepGraph> graph_;  // with `compile` where there is anything to compile for
  torch::Tensor step_on_device_;              // `step_count_`, for the graph
};

/// Moves every 4-d parameter and buffer of `module` into channels-last memory; names, values and shapes stay.
MMTRAIN_API void to_channels_last(torch::nn::Module& module);

}  // namespace mmtrain
