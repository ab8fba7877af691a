#pragma once

#include <torch/optim/optimizer.h>

#include <mmtrain/batch/model.h>
#include <mmtrain/core/config.h>
#include <mmtrain/data/data_loader.h>
#include <mmtrain/train/trainer.h>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "common/cli.h"

/// What the training programs share: the common flags, the run directory with its resume rules, the optimizer by
/// name, and the lines every run prints.
namespace programs {

/// The common flags of the training programs; a program sets its own defaults before `declare`.
struct TrainingOptions {
  std::string data_dir, output_dir, name, device = "auto", resume, evaluate, pretrained, cache = "auto";
  std::string optimizer = "adam", scheduler = "none", amp = "off";
  std::int64_t epochs = 1, batch_size = 64;
  int num_workers = 4;
  std::uint64_t seed = 42;
  double lr = 3e-4, weight_decay = 0, momentum = 0.9, factor = 0.5, grad_clip = 0, label_smoothing = 0, ema_decay = 0;
  std::int64_t limit_train_batches = 0, limit_val_batches = 0, early_stopping_patience = 0, print_every = 1;
  std::int64_t accumulation_steps = 1, warmup_epochs = 0, step_size = 30, patience = 10;
  bool deterministic = false, compile_model = false, summary = false, quiet = false;

  void declare(Cli& cli);
  /// Throws `ConfigError` for values out of range that nothing else would find before the run directory is made.
  void validate() const;
};

/// Where a run writes and what it takes up.
struct RunPlan {
  std::filesystem::path run_dir;
  std::optional<std::filesystem::path> checkpoint;  ///< resume from here
  std::optional<std::string> finished;              ///< the run is complete: its result line
};

/// Makes or finds the run directory as `--resume` says, and writes `config.json` and `env.json` into it. Throws
/// `ConfigError` naming the keys if a resumed run was made with another configuration.
RunPlan plan_run(const TrainingOptions& options, const mmtrain::Config& config);

/// The optimizer called `options.optimizer` over the parameters of `module`.
std::shared_ptr<torch::optim::Optimizer> make_optimizer(const torch::nn::Module& module,
                                                        const TrainingOptions& options);

/// The loss of training and validation.
mmtrain::Loss make_loss(const TrainingOptions& options);

/// Loads `--pretrained`: whatever fits by name and shape, with a report of the rest.
void load_pretrained(torch::nn::Module& module, const std::string& path);

/// Prints the layers of `module` with their parameter counts.
void print_summary(const torch::nn::Module& module);

/// The one device that `--device` names. Throws `mmtrain::DeviceError` if it is not there, and `ConfigError` for
/// several.
torch::Device single_device(const std::string& device);

/// How a run is trained.
struct TrainingSetup {
  mmtrain::TrainerOptions trainer;
  mmtrain::TrainStepOptions step;
};

/// The Trainer's options as the flags give them, with schedulers of `optimizer` for epochs of `batches` batches.
TrainingSetup training_setup(const TrainingOptions& options, const RunPlan& plan, torch::Device device,
                             torch::optim::Optimizer& optimizer, std::int64_t batches);

/// Trains, tests the best weights on `val`, writes `test_results.json` and prints the result line. Returns the exit
/// code.
int run_training(mmtrain::Trainer& trainer, const RunPlan& plan, mmtrain::Model& model, mmtrain::DataLoader& train,
                 mmtrain::DataLoader& val, torch::Device device);

/// `--evaluate`: metrics of stored weights on `val`, printed. Returns the exit code.
int evaluate(const TrainingOptions& options, const std::shared_ptr<mmtrain::Model>& model, mmtrain::DataLoader& val,
             torch::Device device);

/// Prints `result {json}`, the last line of a finished run. Returns 0.
int print_result(const std::string& json);

}  // namespace programs
