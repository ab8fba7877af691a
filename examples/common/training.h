#pragma once

#include <torch/optim/optimizer.h>

#include <mmtrain/batch/model.h>
#include <mmtrain/core/config.h>
#include <mmtrain/data/data_loader.h>
#include <mmtrain/io/atomic_file.h>
#include <mmtrain/optim/param_groups.h>
#include <mmtrain/parallel/strategy.h>
#include <mmtrain/train/trainer.h>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/cli.h"

/// What the training programs share: the common flags, the run directory with its resume rules, the optimizer by
/// name, and the lines every run prints.
namespace programs {

/// The common flags of the training programs; a program sets its own defaults before `declare`.
struct TrainingOptions {
  std::string data_dir, output_dir, name, device = "auto", resume, evaluate, pretrained, cache = "auto";
  std::vector<std::string> freeze;
  std::string optimizer = "adam", scheduler = "none", amp = "off", class_weights = "none";
  std::int64_t epochs = 1, batch_size = 64;
  int num_workers = 4;
  std::uint64_t seed = 42;
  static constexpr double kDefaultMomentum = -1;  ///< the optimizer's usual one
  double lr = 3e-4, weight_decay = 0, momentum = kDefaultMomentum, factor = 0.5, grad_clip = 0, label_smoothing = 0,
         ema_decay = 0;
  std::int64_t limit_train_batches = 0, limit_val_batches = 0, early_stopping_patience = 0, print_every = 1;
  std::int64_t val_interval = 1, log_interval = 10, save_freq = 0;
  std::int64_t accumulation_steps = 1, warmup_epochs = 0, step_size = 30, patience = 10;
  int replicas = 1, nproc = 1, max_restarts = 0;
  double dist_timeout = 600;
  bool sync_bn = false, find_unused_parameters = false;
  std::int64_t num_classes = 0;
  bool deterministic = false, use_amp = false, compile_model = false, summary = false, quiet = false;
  bool weighted_sampling = false, save_best_only = false;

  // What is no flag: how a program is made.
  bool device_is_wish = false;                          ///< other devices than `device` will do, with a warning
  bool workers_shared = false;                          ///< `num_workers` is for the ranks of a process together
  bool drop_last = false, pin_memory = true;            ///< of training batches; of all where there is a GPU
  int prefetch_factor = 2;                              ///< batches per worker read ahead
  double focal_gamma = 0;                               ///< above 0: focal loss of this gamma is added to the loss
  std::vector<mmtrain::optim::PrefixRule> groups = {};  ///< parameter groups with settings of their own

  void declare(Cli& cli);
  /// Settles what follows from other options. Throws `ConfigError` for values out of range and `DataError` for files
  /// that are not there, before anything is made or decoded.
  void validate();
};

/// `--nproc`: runs this program again as so many ranks and returns their exit code; nothing if this process shall
/// train.
std::optional<int> launch_ranks(const TrainingOptions& options, int argc, char** argv);

/// The ranks of this process, as `--device`, `--replicas` and the variables of torchrun say. Throws
/// `mmtrain::DeviceError` for devices that are not there, and `ConfigError` for flags that contradict one another.
std::shared_ptr<mmtrain::parallel::Strategy> make_strategy(const TrainingOptions& options);

/// Loaders of the splits, for this process's ranks. Without a split of its own, `val` is also what the best weights are
/// tested on.
struct Loaders {
  std::unique_ptr<mmtrain::DataLoader> train, val, test;
  mmtrain::DataLoader& tested() const { return test ? *test : *val; }
};
Loaders make_loaders(const TrainingOptions& options, const mmtrain::parallel::Strategy& strategy,
                     std::shared_ptr<const mmtrain::Dataset> train, std::shared_ptr<const mmtrain::Dataset> val,
                     std::shared_ptr<const mmtrain::Dataset> test = nullptr);

/// Where a run writes and what it takes up.
struct RunPlan {
  std::filesystem::path run_dir;
  std::optional<std::filesystem::path> checkpoint;  ///< resume from here
  std::optional<std::string> finished;              ///< the run is complete: its result line
  std::optional<mmtrain::FileLock> lock;            ///< keeps other processes off the run directory
};

/// Makes or finds the run directory as `--resume` says, and writes `config.json` and `env.json` into it. Throws
/// `ConfigError` naming the keys if a resumed run was made with another configuration.
RunPlan plan_run(const TrainingOptions& options, const mmtrain::Config& config,
                 const mmtrain::parallel::Strategy& strategy);

/// Throws `ConfigError` naming the keys if the run in `run_dir` was made with another configuration, but for those that
/// change how long, where and how loud it runs.
void require_same_config(const std::filesystem::path& run_dir, const mmtrain::Config& now);

/// Takes the directory of a run for this process, or throws `ConfigError` if another trains there, and writes
/// `config.json` and `env.json` into it.
mmtrain::FileLock claim_run(const std::filesystem::path& run_dir, const mmtrain::Config& config);

/// The plan of the main process, told to all.
RunPlan shared_plan(RunPlan plan, const mmtrain::parallel::Strategy& strategy);

/// The optimizer called `options.optimizer` over the parameters of `module`.
std::shared_ptr<torch::optim::Optimizer> make_optimizer(const torch::nn::Module& module,
                                                        const TrainingOptions& options);

/// The loss of training and validation. `class_counts`, of the training split, are what class weights come from.
mmtrain::Loss make_loss(const TrainingOptions& options, const std::vector<std::int64_t>& class_counts = {});

/// Loads `--pretrained`: whatever fits by name and shape, with a report of the rest.
void load_pretrained(torch::nn::Module& module, const std::string& path);

/// The lines with which a run begins: the system, the configuration, the samples of each split and the training rows of
/// each class, the size of the model, and what trains.
void print_setup(const TrainingOptions& options, const mmtrain::Config& config, const Loaders& loaders,
                 const torch::nn::Module& net, const mmtrain::parallel::Strategy& strategy);

/// Prints the layers of `module` with their parameter counts.
void print_summary(const torch::nn::Module& module);

/// The Trainer's options as the flags give them. `config` goes into every checkpoint, with the name of the program.
mmtrain::TrainerOptions trainer_options(const TrainingOptions& options, const RunPlan& plan,
                                        const mmtrain::Config& config, const std::string& program);

/// What a rank trains `model` with, with schedulers for epochs of `batches` batches.
mmtrain::RankParts make_rank(const TrainingOptions& options, std::shared_ptr<mmtrain::Model> model,
                             torch::Device device, std::int64_t batches);

/// What training gave.
struct Outcome {
  mmtrain::FitResult fit;
  mmtrain::MetricValues test;  ///< of the best weights; empty if a signal ended the run
  mmtrain::Config result;      ///< what the result line says
};

/// Trains and tests the best weights, which the trainer then has; writes `test_results.json`.
Outcome train_and_test(mmtrain::Trainer& trainer, const RunPlan& plan, const Loaders& loaders,
                       const mmtrain::parallel::Strategy& strategy);

/// The same, then marks the run as finished and prints the result line. Returns the exit code.
int run_training(mmtrain::Trainer& trainer, const RunPlan& plan, const Loaders& loaders,
                 const mmtrain::parallel::Strategy& strategy);

/// `--evaluate`: metrics of stored weights on a split, printed. Returns the exit code.
int evaluate(const TrainingOptions& options, const std::shared_ptr<mmtrain::Model>& model, mmtrain::DataLoader& split,
             torch::Device device);

/// Prints `result {json}`, the last line of a finished run. Returns 0.
int print_result(const std::string& json);

}  // namespace programs
