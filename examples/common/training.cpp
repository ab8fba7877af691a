#include "common/training.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <mmtrain/core/error.h>
#include <mmtrain/core/log.h>
#include <mmtrain/device/device.h>
#include <mmtrain/device/system_info.h>
#include <mmtrain/io/atomic_file.h>
#include <mmtrain/io/state_dict.h>
#include <mmtrain/models/pretrained.h>
#include <mmtrain/models/registry.h>
#include <mmtrain/optim/adam.h>
#include <mmtrain/optim/param_groups.h>
#include <mmtrain/optim/rmsprop.h>
#include <mmtrain/optim/schedule.h>
#include <mmtrain/optim/sgd.h>
#include <mmtrain/parallel/data_parallel.h>
#include <mmtrain/parallel/launcher.h>
#include <mmtrain/parallel/strategy.h>
#include <mmtrain/report/classification_report.h>
#include <mmtrain/train/checkpoint.h>
#include <mmtrain/train/loggers.h>
#include <mmtrain/train/run_directory.h>
#include <mmtrain/train/signals.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

namespace programs {
namespace {

namespace fs = std::filesystem;

// Keys that may differ between a run and its continuation: they change how long, where and how loud, not what.
const std::set<std::string> kFreeKeys = {"epochs",
                                         "num_workers",
                                         "device",
                                         "quiet",
                                         "print_every",
                                         "resume",
                                         "output_dir",
                                         "name",
                                         "cache",
                                         "evaluate",
                                         "summary",
                                         "replicas",
                                         "nproc",
                                         "max_restarts",
                                         "dist_timeout",
                                         "log_dir",
                                         "log_interval",
                                         "gpu_ids",
                                         "use_multi_gpu",
                                         "save_freq",
                                         "save_best_only",
                                         "gpu",
                                         "gpu_id",
                                         "device_id",
                                         "multi_gpu",
                                         "gpu_memory_fraction",
                                         "pin_memory",
                                         "prefetch_factor",
                                         "persistent_workers",
                                         "device_count",
                                         "full_pipeline",
                                         "merge_strategy"};

// Goes on with the run of `run_dir` from one of its checkpoints.
RunPlan take_up(const fs::path& run_dir, const fs::path& checkpoint, const mmtrain::Config& config) {
  require_same_config(run_dir, config);
  mmtrain::reopen_run(run_dir);
  mmtrain::log::info(fmt::format("Resuming {} from {}", run_dir.string(), checkpoint.string()));
  return {run_dir, checkpoint, std::nullopt, {}};
}

fs::path last_of(const fs::path& run_dir) { return run_dir / "checkpoints" / "last"; }

RunPlan find_or_create(const TrainingOptions& options, const mmtrain::Config& config) {
  const auto create = [&] {
    return RunPlan{mmtrain::create_run_directory(options.output_dir, options.name), {}, {}, {}};
  };
  if (options.resume.empty()) return create();
  if (options.resume != "auto") {
    // A run directory, or one of the checkpoints in it.
    const fs::path given = fs::weakly_canonical(options.resume);
    if (fs::exists(given / "state.json")) return take_up(given.parent_path().parent_path(), given, config);
    if (!fs::exists(last_of(given))) {
      throw mmtrain::DataError(
          fmt::format("--resume {}: no checkpoints/last there; give a run directory or a checkpoint", options.resume));
    }
    return take_up(given, last_of(given), config);
  }
  const std::optional<mmtrain::FoundRun> found = mmtrain::find_run(options.output_dir, options.name);
  if (!found) return create();
  if (found->finished) {
    require_same_config(found->path, config);
    const std::int64_t done =
        mmtrain::Config::load(found->path / "config.json").get<std::int64_t>("epochs").value_or(0);
    if (done >= options.epochs) return {found->path, {}, found->result, {}};
  }
  return take_up(found->path, last_of(found->path), config);
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

mmtrain::Config result_of(const fs::path& run_dir, const mmtrain::FitResult& fit, const mmtrain::MetricValues& test,
                          const mmtrain::parallel::Strategy& strategy) {
  std::vector<double> seconds, speeds, waits;
  for (const mmtrain::EpochRecord& record : fit.history) {
    seconds.push_back(record.epoch_seconds);
    speeds.push_back(record.samples_per_second);
    waits.push_back(record.data_wait_pct);
  }
  mmtrain::Config result;
  result.set("run_dir", run_dir.string());
  result.set("epochs", fit.history.size());
  result.set("best_epoch", fit.best_epoch);
  result.set("best_val_acc", fit.best_val_acc);
  result.set("best_val_f1_weighted", fit.best_val_f1_weighted);
  result.set("test_acc", test.accuracy);
  result.set("test_f1_weighted", test.f1_weighted);
  result.set("test_f1_macro", test.f1_macro);
  result.set("epoch_seconds", median(seconds));
  result.set("samples_per_second", median(speeds));
  result.set("data_wait_pct", median(waits));
  result.set("device", strategy.ranks().front().device.str());
  result.set("world_size", strategy.world_size());
  return result;
}

// All samples once, or as many draws in which each class has the same chance.
std::shared_ptr<const mmtrain::Sampler> training_order(const TrainingOptions& options, const mmtrain::Dataset& train) {
  if (!options.weighted_sampling) return std::make_shared<mmtrain::RandomSampler>(train.size(), options.seed);
  const std::vector<std::int64_t> counts = mmtrain::class_counts(train);
  std::vector<double> weights;
  for (const std::int64_t label : train.labels()) {
    weights.push_back(1.0 / static_cast<double>(counts[static_cast<std::size_t>(label)]));
  }
  return std::make_shared<mmtrain::WeightedSampler>(std::move(weights), train.size(), options.seed);
}

// Rare classes weigh more: rows / (classes * rows of the class), as scikit-learn's "balanced", or the root of it.
torch::Tensor class_weights(const std::string& kind, const std::vector<std::int64_t>& counts) {
  if (kind == "none" || counts.empty()) return {};
  const torch::Tensor rows = torch::tensor(counts, torch::kDouble).clamp_min(1);
  const torch::Tensor weights = rows.sum() / (static_cast<double>(counts.size()) * rows);
  return (kind == "sqrt" ? weights.sqrt() : weights).to(torch::kFloat);
}

// Data with names for classes that it has no sample of, for nets that tell more apart.
class MoreClasses final : public mmtrain::Dataset {
 public:
  MoreClasses(std::shared_ptr<const mmtrain::Dataset> data, std::size_t classes)
      : data_(std::move(data)), names_(data_->class_names()) {
    while (names_.size() < classes) names_.push_back(fmt::format("class {}", names_.size()));
  }
  mmtrain::DatasetSpec spec() const override { return data_->spec(); }
  std::int64_t size() const override { return data_->size(); }
  void write(std::int64_t index, mmtrain::SampleSlot& slot) const override { data_->write(index, slot); }
  std::string sample_name(std::int64_t index) const override { return data_->sample_name(index); }
  std::vector<std::string> class_names() const override { return names_; }
  std::vector<std::int64_t> labels() const override { return data_->labels(); }

 private:
  std::shared_ptr<const mmtrain::Dataset> data_;
  std::vector<std::string> names_;
};

std::shared_ptr<const mmtrain::Dataset> with_classes(std::shared_ptr<const mmtrain::Dataset> data,
                                                     std::int64_t classes) {
  if (data == nullptr || classes == 0) return data;
  const std::size_t of_data = data->class_names().size(), wanted = static_cast<std::size_t>(classes);
  if (wanted < of_data) {
    throw mmtrain::ConfigError(fmt::format("--num_classes {}: the data has {} classes", classes, of_data));
  }
  return wanted == of_data ? data : std::make_shared<MoreClasses>(std::move(data), wanted);
}

constexpr std::size_t kListedClasses = 20;  // more are not listed when a run begins

constexpr double kWarmupStart = 0.01;  // of the learning rate
constexpr double kWarmupShare = 0.1;   // of the steps of a run

mmtrain::TrainStepOptions step_options(const TrainingOptions& options, torch::Device device) {
  const mmtrain::amp::Decision precision =
      mmtrain::amp::decide_precision(mmtrain::amp::parse_precision(options.amp), device);
  mmtrain::TrainStepOptions result{.channels_last = true,
                                   .precision = precision,
                                   .clip_norm = options.grad_clip,
                                   .compile = options.compile_model,
                                   .seed = options.seed};
  if (options.amp != "off") mmtrain::log::info("Precision: " + precision.reason);
  if (options.ema_decay > 0) result.ema = mmtrain::optim::EmaOptions{.decay = options.ema_decay, .warmup = true};
  return result;
}

// One that goes on with each epoch, null for a constant learning rate.
std::shared_ptr<mmtrain::optim::LRScheduler> epoch_scheduler(const TrainingOptions& options,
                                                             torch::optim::Optimizer& optimizer) {
  namespace optim = mmtrain::optim;
  const std::int64_t warmup = options.warmup_epochs;
  if (options.scheduler == "plateau") {
    return std::make_shared<optim::PlateauLR>(optimizer,
                                              optim::PlateauOptions{.factor = options.factor,
                                                                    .patience = static_cast<int>(options.patience),
                                                                    .warmup_steps = warmup,
                                                                    .warmup_start_factor = kWarmupStart});
  }
  if (options.scheduler == "none" && warmup == 0) return nullptr;
  const std::int64_t rest = std::max<std::int64_t>(options.epochs - warmup, 1);
  optim::Schedule schedule = optim::constant_lr();
  if (options.scheduler == "cosine") schedule = optim::cosine_lr(rest);
  if (options.scheduler == "step") schedule = optim::step_lr(options.step_size, options.factor);
  if (options.scheduler == "exponential") schedule = optim::exponential_lr(options.factor);
  if (options.scheduler == "polynomial") schedule = optim::polynomial_lr(rest);
  if (warmup > 0) schedule = optim::warmup_lr(warmup, std::move(schedule), kWarmupStart);
  return std::make_shared<optim::ScheduledLR>(optimizer, std::move(schedule));
}

// How many of each split could not be read.
void report_skipped(const Loaders& loaders) {
  std::string parts;
  std::size_t all = 0;
  const auto count = [&](const char* split, const std::unique_ptr<mmtrain::DataLoader>& loader) {
    const std::size_t skipped = loader ? loader->errors().size() : 0;
    if (skipped > 0) parts += fmt::format("{}{} of {}", parts.empty() ? "" : ", ", skipped, split);
    all += skipped;
  };
  count("train", loaders.train);
  count("val", loaders.val);
  count("test", loaders.test);
  if (all == 0) return;
  mmtrain::log::warning(fmt::format("{} broken samples were skipped, each named above ({})", all, parts));
}

// What was asked for is printed even if the rest is not.
void say(const std::string& text) { std::puts(text.c_str()); }

}  // namespace

void require_same_config(const fs::path& run_dir, const mmtrain::Config& now) {
  const auto before = nlohmann::json::parse(mmtrain::Config::load(run_dir / "config.json").dump());
  const auto wanted = nlohmann::json::parse(now.dump());
  std::vector<std::string> different;
  for (const auto& [key, value] : wanted.items()) {
    if (!kFreeKeys.contains(key) && (!before.contains(key) || before[key] != value)) different.push_back(key);
  }
  if (different.empty()) return;
  throw mmtrain::ConfigError(
      fmt::format("{} was started with another configuration: {} differ; use the same, or start a "
                  "new run under another --name",
                  run_dir.string(), fmt::join(different, ", ")));
}

void TrainingOptions::declare(Cli& cli) {
  cli.add("data_dir", data_dir, "directory of the data; without it demo data is generated");
  cli.add("output_dir", output_dir, "directory that holds the run directories");
  cli.add("name", name, "name of the run; default: the model's");
  cli.add("epochs", epochs, "passes over the training split");
  cli.add("batch_size", batch_size, "rows per rank and step");
  cli.add("num_workers", num_workers,
          workers_shared ? "threads that load data, per process" : "threads that load data, per rank");
  cli.add("seed", seed, "seed of weights, order and augmentation");
  cli.add("deterministic", deterministic, "only algorithms that repeat bit for bit");
  cli.add("device", device, "auto, cpu, cuda or cuda:N");
  cli.add("replicas", replicas, "replicas of the model that train together on the CPU, in each process");
  cli.add("nproc", nproc, "processes that train together on this machine");
  cli.add("max_restarts", max_restarts, "how often all processes are started again after one failed");
  cli.add("dist_timeout", dist_timeout, "seconds after which a rank that does not answer ends the run");
  cli.add("sync_bn", sync_bn, "batch normalization by the statistics of all ranks");
  cli.add("find_unused_parameters", find_unused_parameters, "let parameters be left out of a step on some ranks");
  cli.add_optional("resume", resume, "auto", "go on with a run: its directory, or the newest of this name");
  cli.add("evaluate", evaluate, "evaluate this run, checkpoint or weights file and end");
  cli.add(
      "pretrained", pretrained,
      "start from the weights of this checkpoint, safetensors or .pth file, where names fit; torchvision's resnet18 "
      "fits the visual encoder");
  cli.add("freeze", freeze, "beginnings of the names of parameters that are not trained, e.g. visual_encoder.backbone");
  cli.add("limit_train_batches", limit_train_batches, "batches of an epoch, 0: all");
  cli.add("limit_val_batches", limit_val_batches, "batches of a validation, 0: all");
  cli.add("cache", cache, "decode-once cache: auto, off, a folder, or a .safetensors file");
  cli.add_choice("optimizer", optimizer, {"adam", "adamw", "sgd", "rmsprop"}, "optimizer");
  cli.add("lr", lr, "learning rate");
  cli.add("weight_decay", weight_decay, "weight decay");
  cli.add("momentum", momentum, "momentum of sgd and rmsprop; -1: 0.9 for sgd, 0 for rmsprop");
  cli.add_choice(
      "scheduler", scheduler,
      {"none", "cosine", "step", "exponential", "polynomial", "plateau", "onecycle", "warmup_cosine"},
      "learning rate over the epochs; onecycle changes it each step, and so does warmup_cosine, which rises in "
      "the first tenth of all steps");
  cli.add("warmup_epochs", warmup_epochs, "epochs in which the learning rate rises from 1 % in a line");
  cli.add("step_size", step_size, "epochs between the falls of --scheduler step");
  cli.add("factor", factor, "factor of each fall of --scheduler step, exponential and plateau");
  cli.add("patience", patience, "epochs without a lower validation loss before --scheduler plateau falls");
  cli.add_choice("class_weights", class_weights, {"none", "balanced", "sqrt"},
                 "weight of each class in the loss: 1, rows / (classes * rows of the class), or the root of that");
  cli.add("weighted_sampling", weighted_sampling, "draw training samples so that all classes come equally often");
  cli.add("label_smoothing", label_smoothing, "share of each target that is spread over all classes");
  cli.add("grad_clip", grad_clip, "largest norm of the gradients, 0: any");
  cli.add("accumulation_steps", accumulation_steps, "batches whose joined gradient makes one optimizer step");
  cli.add("ema_decay", ema_decay, "decay of the average of weights that is evaluated and saved, 0: none");
  cli.add_choice("amp", amp, {"auto", "off", "fp16", "bf16"}, "mixed precision; auto: what the device is fast with");
  cli.add("use_amp", use_amp, "the same as --amp auto");
  cli.add("num_classes", num_classes, "classes the net tells apart, 0: those of the data");
  cli.add("compile_model", compile_model, "run the step as a captured CUDA graph");
  cli.add("early_stopping_patience", early_stopping_patience, "validations without a better accuracy, 0: never stop");
  cli.add("val_interval", val_interval, "epochs from one validation to the next");
  cli.add("save_freq", save_freq, "epochs between checkpoints that stay, 0: best and last only");
  cli.add("save_best_only", save_best_only, "keep no checkpoints but the best and the last");
  cli.add("log_interval", log_interval, "batches between looks at the loss while an epoch runs");
  cli.add("print_every", print_every, "epochs between printed lines");
  cli.add("summary", summary, "print the layers of the model and end");
  cli.add("quiet", quiet, "print warnings, errors and the result only");
}

mmtrain::FileLock claim_run(const fs::path& run_dir, const mmtrain::Config& config) {
  std::optional<mmtrain::FileLock> lock = mmtrain::FileLock::try_lock(run_dir / ".lock");
  if (!lock) {
    throw mmtrain::ConfigError(
        fmt::format("{} is being trained by another process: wait for it, or choose another --name", run_dir.string()));
  }
  mmtrain::write_file_atomic(run_dir / "config.json", config.dump() + "\n");
  mmtrain::write_file_atomic(run_dir / "env.json", mmtrain::to_json(mmtrain::collect_system_info()) + "\n");
  return std::move(*lock);
}

RunPlan plan_run(const TrainingOptions& options, const mmtrain::Config& config,
                 const mmtrain::parallel::Strategy& strategy) {
  RunPlan plan;
  if (strategy.is_main()) {
    plan = find_or_create(options, config);
    if (!plan.finished) plan.lock = claim_run(plan.run_dir, config);
  }
  return shared_plan(std::move(plan), strategy);
}

RunPlan shared_plan(RunPlan plan, const mmtrain::parallel::Strategy& strategy) {
  if (!strategy.has_processes()) return plan;
  mmtrain::parallel::ProcessGroup group = strategy.processes();
  mmtrain::Config told;
  told.set("run_dir", plan.run_dir.string());
  if (plan.checkpoint) told.set("checkpoint", plan.checkpoint->string());
  if (plan.finished) told.set("finished", *plan.finished);
  const mmtrain::Config heard = mmtrain::Config::parse(mmtrain::parallel::broadcast_text(group, told.dump()));
  RunPlan result{heard.get<std::string>("run_dir").value(), {}, heard.get<std::string>("finished"), {}};
  if (const auto checkpoint = heard.get<std::string>("checkpoint")) result.checkpoint = *checkpoint;
  result.lock = std::move(plan.lock);
  return result;
}

std::optional<int> launch_ranks(const TrainingOptions& options, int argc, char** argv) {
  const bool one_is_enough = options.summary || !options.evaluate.empty();  // nothing is trained
  if (options.nproc == 1 || one_is_enough || mmtrain::parallel::is_launched()) return std::nullopt;
  return mmtrain::parallel::launch({.nproc = options.nproc, .max_restarts = options.max_restarts},
                                   std::vector<std::string>(argv, argv + argc));
}

namespace {

// Each process of a host has a GPU of its own, or all of them the CPU.
torch::Device device_of_process(const TrainingOptions& options, const std::vector<torch::Device>& devices,
                                mmtrain::parallel::ProcessGroup& group) {
  const auto place = static_cast<std::size_t>(group.local_rank());
  if (devices[0].is_cpu()) return devices[0];
  const torch::Tensor too_few = torch::tensor(place >= devices.size() ? 1 : 0, torch::kInt32);
  group.all_reduce(too_few, mmtrain::parallel::ReduceOp::max);
  if (too_few.item<std::int32_t>() == 0) return devices[place];
  const std::string reason =
      fmt::format("{} GPUs are fewer than the processes of a host, which need one each", devices.size());
  if (options.device != "auto" && !options.device_is_wish) {
    throw mmtrain::ConfigError(fmt::format("--device {}: {}: start fewer, or --device cpu", options.device, reason));
  }
  mmtrain::log::warning(reason + ": the CPU is used");
  return torch::kCPU;
}

}  // namespace

std::shared_ptr<mmtrain::parallel::Strategy> make_strategy(const TrainingOptions& options) {
  using namespace mmtrain::parallel;
  const GroupOptions group_options{
      .timeout = std::chrono::milliseconds(static_cast<std::int64_t>(1000 * options.dist_timeout))};
  const std::vector<torch::Device> devices = mmtrain::parse_devices(options.device);
  if (options.replicas > 1 && !devices[0].is_cpu()) {
    throw mmtrain::ConfigError(
        fmt::format("--replicas {} is for --device cpu, got {}: several GPUs are named as --device cuda:0,1",
                    options.replicas, devices[0].str()));
  }
  ProcessGroup group = init_from_env(group_options);
  mmtrain::log::set_rank(group.rank());
  if (!options.evaluate.empty() && group.world_size() > 1) {
    throw mmtrain::ConfigError("--evaluate is for one process: run it without torchrun");
  }
  if (options.replicas > 1) {
    return std::make_shared<ReplicaStrategy>(cpu_replicas(static_cast<std::size_t>(options.replicas)), group_options,
                                             /*threads=*/0, group);
  }
  if (group.world_size() > 1) {
    return std::make_shared<DistributedDataParallel>(group, device_of_process(options, devices, group));
  }
  if (devices.size() > 1) return std::make_shared<ReplicaStrategy>(devices, group_options);
  return std::make_shared<SingleDevice>(devices[0]);
}

Loaders make_loaders(const TrainingOptions& options, const mmtrain::parallel::Strategy& strategy,
                     std::shared_ptr<const mmtrain::Dataset> train, std::shared_ptr<const mmtrain::Dataset> val,
                     std::shared_ptr<const mmtrain::Dataset> test) {
  using namespace mmtrain;
  train = with_classes(std::move(train), options.num_classes);
  val = with_classes(std::move(val), options.num_classes);
  test = with_classes(std::move(test), options.num_classes);
  const auto ranks = static_cast<int>(strategy.ranks().size());
  const DataLoaderOptions load{.batch_size = options.batch_size * ranks,
                               .num_workers = options.num_workers * (options.workers_shared ? 1 : ranks),
                               .prefetch_factor = options.prefetch_factor,
                               .pin_memory = options.pin_memory && strategy.ranks()[0].device.is_cuda(),
                               .bad_samples = BadSamplePolicy::skip,
                               .seed = options.seed};
  const parallel::ProcessGroup& group = strategy.processes();
  std::shared_ptr<const Sampler> order = training_order(options, *train);
  if (strategy.has_processes()) {
    order = std::make_shared<DistributedSampler>(order, group.rank(), group.world_size());
  }
  const auto in_order = [&](const std::shared_ptr<const Dataset>& split) {
    std::shared_ptr<const Sampler> all = std::make_shared<SequentialSampler>(split->size());
    if (strategy.has_processes()) {
      // Every sample once: a rank may have one less than another.
      std::vector<std::int64_t> share;
      for (std::int64_t i = group.rank(); i < split->size(); i += group.world_size()) share.push_back(i);
      all = std::make_shared<SubsetSampler>(std::move(share), /*shuffle=*/false);
    }
    return std::make_unique<DataLoader>(split, std::move(all), load);
  };
  DataLoaderOptions load_train = load;
  load_train.drop_last = options.drop_last;
  return {std::make_unique<DataLoader>(train, std::move(order), load_train), in_order(val),
          test ? in_order(test) : nullptr};
}

void TrainingOptions::validate() {
  const auto require = [](bool fine, const char* flag, const char* rule, auto value) {
    if (!fine) throw mmtrain::ConfigError(fmt::format("--{} must {}, got {}", flag, rule, value));
  };
  const auto at_least = [&](std::int64_t least, const char* flag, std::int64_t value) {
    require(value >= least, flag, least == 0 ? "not be negative" : "be positive", value);
  };
  at_least(1, "epochs", epochs);
  at_least(1, "batch_size", batch_size);
  at_least(0, "num_workers", num_workers);
  at_least(0, "limit_train_batches", limit_train_batches);
  at_least(0, "limit_val_batches", limit_val_batches);
  at_least(0, "warmup_epochs", warmup_epochs);
  at_least(1, "accumulation_steps", accumulation_steps);
  at_least(1, "step_size", step_size);
  at_least(0, "patience", patience);
  at_least(0, "early_stopping_patience", early_stopping_patience);
  at_least(1, "print_every", print_every);
  at_least(1, "val_interval", val_interval);
  at_least(1, "log_interval", log_interval);
  at_least(0, "save_freq", save_freq);
  at_least(1, "replicas", replicas);
  at_least(1, "nproc", nproc);
  at_least(0, "max_restarts", max_restarts);
  at_least(0, "num_classes", num_classes);
  require(lr > 0 && std::isfinite(lr), "lr", "be positive", lr);
  require(weight_decay >= 0 && std::isfinite(weight_decay), "weight_decay", "not be negative", weight_decay);
  require(momentum == kDefaultMomentum || (momentum >= 0 && momentum < 1), "momentum", "be at least 0 and below 1",
          momentum);
  require(factor > 0 && factor <= 1, "factor", "be above 0 and at most 1", factor);
  require(grad_clip >= 0, "grad_clip", "not be negative", grad_clip);
  require(ema_decay >= 0 && ema_decay < 1, "ema_decay", "be at least 0 and below 1", ema_decay);
  require(label_smoothing >= 0 && label_smoothing <= 1, "label_smoothing", "be between 0 and 1", label_smoothing);
  require(dist_timeout > 0, "dist_timeout", "be positive", dist_timeout);
  if ((scheduler == "onecycle" || scheduler == "warmup_cosine") && warmup_epochs > 0) {
    throw mmtrain::ConfigError(fmt::format(
        "--warmup_epochs goes with every scheduler but onecycle and warmup_cosine: {} has a warm-up of its own",
        scheduler));
  }
  for (const auto& [flag, path] : {std::pair("evaluate", evaluate), std::pair("pretrained", pretrained)}) {
    if (!path.empty() && !fs::exists(path)) {
      throw mmtrain::DataError(fmt::format("--{} {}: there is no such file or directory", flag, path));
    }
  }
  if (use_amp && amp == "off") amp = "auto";
  // Resuming compares configurations: one directory has one name.
  if (!data_dir.empty()) data_dir = fs::weakly_canonical(data_dir).string();
}

std::shared_ptr<torch::optim::Optimizer> make_optimizer(const torch::nn::Module& module,
                                                        const TrainingOptions& options) {
  const std::vector<mmtrain::optim::ParamGroup> parameters = mmtrain::optim::named_groups(module, options.groups);
  const double lr = options.lr, decay = options.weight_decay;
  const bool default_momentum = options.momentum == TrainingOptions::kDefaultMomentum;
  const double momentum = !default_momentum ? options.momentum : options.optimizer == "sgd" ? 0.9 : 0.0;
  using namespace mmtrain::optim;
  if (options.optimizer == "adam") return std::make_shared<Adam>(parameters, AdamOptions(lr).weight_decay(decay));
  if (options.optimizer == "adamw") return std::make_shared<AdamW>(parameters, AdamWOptions(lr).weight_decay(decay));
  if (options.optimizer == "sgd") {
    return std::make_shared<SGD>(parameters, SGDOptions(lr).momentum(momentum).weight_decay(decay));
  }
  return std::make_shared<RMSprop>(parameters, RMSpropOptions(lr).momentum(momentum).weight_decay(decay));
}

mmtrain::Loss make_loss(const TrainingOptions& options, const std::vector<std::int64_t>& class_counts) {
  const torch::Tensor weights = class_weights(options.class_weights, class_counts);
  if (options.focal_gamma > 0) {
    return mmtrain::focal_loss({.gamma = options.focal_gamma,
                                .class_weights = weights,
                                .cross_entropy = 1,
                                .label_smoothing = options.label_smoothing});
  }
  return mmtrain::cross_entropy_loss({.class_weights = weights, .label_smoothing = options.label_smoothing});
}

void load_pretrained(torch::nn::Module& module, const std::string& path) {
  // Where torchvision's resnet18 belongs in the emotion net.
  const mmtrain::LoadReport report =
      mmtrain::load_pretrained(module, mmtrain::load_weights(path), {"visual_encoder.backbone."});
  mmtrain::log::info(fmt::format("Pretrained weights from {}: {}", path, report.summary()));
}

void print_setup(const TrainingOptions& options, const mmtrain::Config& config, const Loaders& loaders,
                 const torch::nn::Module& net, const mmtrain::parallel::Strategy& strategy) {
  using mmtrain::log::info;
  for (const std::string& line : mmtrain::to_lines(mmtrain::collect_system_info())) info(line);
  info("Configuration: " + config.dump());
  const mmtrain::Dataset& train = loaders.train->dataset();
  const std::vector<std::string> names = train.class_names();
  const std::string test = loaders.test ? fmt::format(", {} test", loaders.test->dataset().size()) : "";
  info(fmt::format("Samples: {} train, {} val{}, {} classes", train.size(), loaders.val->dataset().size(), test,
                   names.size()));
  if (const std::vector<std::int64_t> counts = mmtrain::class_counts(train); names.size() <= kListedClasses) {
    std::string text;
    for (std::size_t k = 0; k < names.size(); ++k) text += fmt::format("{}{} {}", k ? ", " : "", names[k], counts[k]);
    info("Training samples by class: " + text);
  }
  info(fmt::format("Model parameters: {:.2f}M", static_cast<double>(mmtrain::count_parameters(net)) / 1e6));
  info(strategy.description());
  const std::int64_t ranks = strategy.world_size();
  if (ranks == 1) info("single device, not parallel");
  const auto here = static_cast<std::int64_t>(strategy.ranks().size());
  const std::int64_t workers = loaders.train->options().num_workers;  // of this process
  info(fmt::format("Batch {} per device, {} in all; workers {} per device, {} in all", options.batch_size,
                   options.batch_size * ranks, workers / here, workers * (ranks / here)));
}

void print_summary(const torch::nn::Module& module) {
  std::int64_t total = 0, trainable = 0;
  say(fmt::format("{:<44} {:>22} {:>14}", "parameter", "shape", "elements"));
  for (const auto& item : module.named_parameters()) {
    const torch::Tensor& tensor = item.value();
    say(fmt::format("{:<44} {:>22} {:>14}", item.key(), fmt::format("{}", fmt::join(tensor.sizes(), "x")),
                    tensor.numel()));
    total += tensor.numel();
    trainable += tensor.requires_grad() ? tensor.numel() : 0;
  }
  say(fmt::format("{} parameters, {} trainable", total, trainable));
}

mmtrain::TrainerOptions trainer_options(const TrainingOptions& options, const RunPlan& plan,
                                        const mmtrain::Config& config, const std::string& program) {
  mmtrain::Config about;
  about.set("program", program);
  about.set("config", config);
  return {.epochs = options.epochs,
          .limit_train_batches = options.limit_train_batches,
          .limit_val_batches = options.limit_val_batches,
          .early_stopping_patience = options.early_stopping_patience,
          .val_interval = options.val_interval,
          .log_interval = options.log_interval,
          .save_interval = options.save_best_only ? 0 : options.save_freq,
          .accumulation_steps = options.accumulation_steps,
          .run_dir = plan.run_dir,
          .about = std::move(about),
          .progress = !options.quiet};
}

mmtrain::RankParts make_rank(const TrainingOptions& options, std::shared_ptr<mmtrain::Model> model,
                             torch::Device device, std::int64_t batches) {
  model->module().to(device);
  mmtrain::freeze(model->module(), options.freeze);
  mmtrain::RankParts parts{model, make_optimizer(model->module(), options), step_options(options, device)};
  parts.step.sync_batchnorm = options.sync_bn;
  parts.step.reducer.find_unused_parameters = options.find_unused_parameters;
  if (options.limit_train_batches > 0) batches = std::min(batches, options.limit_train_batches);
  const std::int64_t steps = (batches + options.accumulation_steps - 1) / options.accumulation_steps;
  namespace optim = mmtrain::optim;
  const std::int64_t all_steps = options.epochs * steps;
  if (options.scheduler == "onecycle") {
    parts.step.scheduler =
        std::make_shared<optim::ScheduledLR>(*parts.optimizer, optim::one_cycle_lr({.total_steps = all_steps}));
  } else if (options.scheduler == "warmup_cosine") {
    const auto warmup = std::max<std::int64_t>(1, std::llround(kWarmupShare * static_cast<double>(all_steps)));
    parts.step.scheduler = std::make_shared<optim::ScheduledLR>(
        *parts.optimizer,
        optim::warmup_lr(warmup, optim::cosine_lr(std::max<std::int64_t>(1, all_steps - warmup)), kWarmupStart));
  } else {
    parts.step.epoch_scheduler = epoch_scheduler(options, *parts.optimizer);
  }
  return parts;
}

Outcome train_and_test(mmtrain::Trainer& trainer, const RunPlan& plan, const Loaders& loaders,
                       const mmtrain::parallel::Strategy& strategy) {
  if (plan.checkpoint) trainer.resume(*plan.checkpoint);
  const mmtrain::StopSignals signals;
  Outcome outcome{trainer.fit(*loaders.train, *loaders.val), {}, {}};
  const mmtrain::FitResult& fit = outcome.fit;
  if (fit.signal != 0) {
    mmtrain::log::info(fmt::format("Stopped by signal {}: saved {}", fit.signal, last_of(plan.run_dir).string()));
    return outcome;
  }
  trainer.load_weights(mmtrain::load_weights(plan.run_dir / "checkpoints" / "best"));
  const mmtrain::MetricValues test = outcome.test = trainer.test(loaders.tested());
  if (const int signal = mmtrain::StopSignals::received(); signal != 0) {
    outcome.fit.signal = signal;
    mmtrain::log::info(
        fmt::format("Stopped by signal {} while testing: {} has all epochs", signal, last_of(plan.run_dir).string()));
    return outcome;
  }
  report_skipped(loaders);
  if (!strategy.is_main()) return outcome;
  mmtrain::write_test_results(plan.run_dir / "test_results.json", test, loaders.tested().dataset().class_names());
  mmtrain::log::info(fmt::format("Best epoch {}: Test Acc: {:.2f}%, top-5 {:.2f}%, macro F1 {:.4f}, weighted F1 {:.4f}",
                                 fit.best_epoch, 100 * test.accuracy, 100 * test.top5, test.f1_macro,
                                 test.f1_weighted));
  outcome.result = result_of(plan.run_dir, fit, test, strategy);
  return outcome;
}

int run_training(mmtrain::Trainer& trainer, const RunPlan& plan, const Loaders& loaders,
                 const mmtrain::parallel::Strategy& strategy) {
  const Outcome outcome = train_and_test(trainer, plan, loaders, strategy);
  if (const int signal = outcome.fit.signal; signal != 0) {
    mmtrain::log::info(fmt::format("Go on with --resume {}", plan.run_dir.string()));
    return 128 + signal;  // as a shell reports it
  }
  if (!strategy.is_main()) return 0;
  mmtrain::log::info(fmt::format("Everything about this run is in {}", plan.run_dir.string()));
  const std::string result = outcome.result.dump(-1);
  mmtrain::finish_run(plan.run_dir, result);
  return print_result(result);
}

int evaluate(const TrainingOptions& options, const std::shared_ptr<mmtrain::Model>& model, mmtrain::DataLoader& split,
             torch::Device device) {
  const fs::path best = fs::path(options.evaluate) / "checkpoints" / "best";
  mmtrain::load_state_dict(model->module(),
                           mmtrain::load_weights(fs::exists(best) ? best : fs::path(options.evaluate)));
  mmtrain::Trainer trainer(model, make_optimizer(model->module(), options), make_loss(options),
                           {.device = device, .progress = !options.quiet}, step_options(options, device));
  const mmtrain::MetricValues values = trainer.evaluate(split, options.limit_val_batches);
  say(fmt::format("Test Loss: {:.4f}, Test Acc: {:.2f}%, top-5 {:.2f}%, macro F1 {:.4f}, weighted F1 {:.4f}",
                  values.loss, 100 * values.accuracy, 100 * values.top5, values.f1_macro, values.f1_weighted));
  say(mmtrain::classification_report(values.confusion, split.dataset().class_names()));
  return 0;
}

int print_result(const std::string& json) {
  std::printf("result %s\n", json.c_str());
  return 0;
}

}  // namespace programs
