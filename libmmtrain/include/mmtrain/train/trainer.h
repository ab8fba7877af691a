#pragma once

#include <torch/optim/optimizer.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "mmtrain/batch/model.h"
#include "mmtrain/core/config.h"
#include "mmtrain/core/export.h"
#include "mmtrain/data/data_loader.h"
#include "mmtrain/data/mix.h"
#include "mmtrain/parallel/strategy.h"
#include "mmtrain/train/callback.h"
#include "mmtrain/train/metrics.h"
#include "mmtrain/train/train_step.h"

namespace mmtrain {

struct TrainerOptions {
  std::int64_t epochs = 1;
  torch::Device device = torch::kCPU;        ///< without a strategy
  std::int64_t limit_train_batches = 0;      ///< 0: all
  std::int64_t limit_val_batches = 0;        ///< 0: all
  std::int64_t early_stopping_patience = 0;  ///< validations without a better accuracy; 0: never
  std::int64_t val_interval = 1;             ///< epochs from one validation to the next; the last is always validated
  std::int64_t log_interval = 10;            ///< batches between looks at the loss, which wait for the device
  std::int64_t save_interval = 0;            ///< epochs between checkpoints that stay, `epoch_NNN`; 0: none
  std::int64_t max_broken_losses = 10;       ///< so many batches in a row without a finite loss end the run; 0: none do
  std::int64_t accumulation_steps = 1;       ///< batches whose joined gradient makes one optimizer step
  std::optional<MixOptions> mix = {};        ///< mixup or cutmix of each training batch, seeded as the step is
  std::filesystem::path run_dir = {};        ///< checkpoints go here; empty: nothing is written
  Config about = {};     ///< goes into the state of every checkpoint: what it takes to build and use the model
  bool progress = true;  ///< a progress line while an epoch runs
};

/// What one rank trains with.
struct RankParts {
  std::shared_ptr<Model> model;
  std::shared_ptr<torch::optim::Optimizer> optimizer;
  TrainStepOptions step = {};  ///< its `group` is set by the Trainer
};

/// Makes the parts of a rank: the model on `device`, and an optimizer of its parameters.
using RankFactory = std::function<RankParts(torch::Device device)>;

/// Trains and validates: epochs, metrics, callbacks, checkpoints, stopping. Knows no concrete model or dataset.
///
///     Trainer trainer(model, optimizer, cross_entropy_loss(), {.epochs = 10});
///     trainer.add(std::make_shared<ConsoleLogger>());
///     FitResult result = trainer.fit(train_loader, val_loader);
class MMTRAIN_API Trainer {
 public:
  /// Moves the model to the device. Throws `ConfigError` for options out of range. An optimizer made before keeps its
  /// parameters: they are moved in place. `step` has precision, clipping, average of weights, schedulers ... A
  /// scheduler of epochs that waits for a plateau looks at the validation loss.
  Trainer(std::shared_ptr<Model> model, std::shared_ptr<torch::optim::Optimizer> optimizer, Loss loss,
          TrainerOptions options, TrainStepOptions step = {});

  /// Trains by a strategy: `make_rank` is called once for each rank of this process, one after the other. The weights
  /// are those of rank 0; what the others draw does not move the random generator.
  ///
  /// Ranks that are threads share the batches of one loader, whose `batch_size` is that of all together; `loss` is
  /// called on all of them at the same time. A rank that is a process has loaders of its own: for training with a
  /// `DistributedSampler`, for validation with a sampler of its share. All make the same decisions; the main process
  /// alone saves and calls the callbacks.
  Trainer(std::shared_ptr<parallel::Strategy> strategy, const RankFactory& make_rank, Loss loss,
          TrainerOptions options);
  ~Trainer();

  /// Watches the run, in the order added.
  void add(std::shared_ptr<Callback> callback);

  /// Takes up a run from a checkpoint directory: weights and their average, optimizer, scaler, schedulers, random
  /// generator, metrics, position inside the epoch. `fit` with the same loaders then goes on as if it had never
  /// stopped, bit for bit on CPU.
  void resume(const std::filesystem::path& checkpoint);

  /// Gives the model, of every rank, these weights. Throws `DataError` where they do not fit.
  void load_weights(const StateDict& weights);

  /// Trains until the last epoch, early stopping or a signal (see `StopSignals`), validating after each epoch (or every
  /// `val_interval`). Writes `checkpoints/last` after each epoch and `checkpoints/best` when the validation accuracy is
  /// the best so far. Throws `Error` naming the batch after `max_broken_losses`. `state.json` of a checkpoint holds the
  /// names of the classes and `about`.
  FitResult fit(DataLoader& train, DataLoader& val);

  /// Metrics of the model as it is, in evaluation mode. Every sample counts once. Validation inside `fit` is of the
  /// averaged weights where there are any, and these are the weights of the checkpoints.
  MetricValues evaluate(DataLoader& loader, std::int64_t limit_batches = 0);

  /// `evaluate` with the limit of validation, reported to the callbacks as the final test.
  MetricValues test(DataLoader& loader);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mmtrain
