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
  std::string optimizer = "adam";
  std::int64_t epochs = 1, batch_size = 64;
  int num_workers = 4;
  std::uint64_t seed = 42;
  double lr = 3e-4, weight_decay = 0, momentum = 0.9;
  std::int64_t limit_train_batches = 0, limit_val_batches = 0, early_stopping_patience = 0, print_every = 1;
  bool deterministic = false, summary = false, quiet = false;

  void declare(Cli& cli);
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

/// LibTorch's optimizer called `options.optimizer` over the trainable parameters of `module`.
std::shared_ptr<torch::optim::Optimizer> make_optimizer(const torch::nn::Module& module,
                                                        const TrainingOptions& options);

/// Loads `--pretrained`: whatever fits by name and shape, with a report of the rest.
void load_pretrained(torch::nn::Module& module, const std::string& path);

/// Prints the layers of `module` with their parameter counts.
void print_summary(const torch::nn::Module& module);

/// The one device that `--device` names. Throws `mmtrain::DeviceError` if it is not there, and `ConfigError` for
/// several.
torch::Device single_device(const std::string& device);

/// The Trainer's options as the flags give them.
mmtrain::TrainerOptions trainer_options(const TrainingOptions& options, const RunPlan& plan, torch::Device device);

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
