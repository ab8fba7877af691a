#include "common/training.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <mmtrain/core/error.h>
#include <mmtrain/core/log.h>
#include <mmtrain/device/device.h>
#include <mmtrain/device/system_info.h>
#include <mmtrain/io/atomic_file.h>
#include <mmtrain/io/state_dict.h>
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
const std::set<std::string> kFreeKeys = {"epochs",  "num_workers", "device", "quiet",        "print_every",
                                         "resume",  "output_dir",  "name",   "cache",        "evaluate",
                                         "summary", "replicas",    "nproc",  "max_restarts", "dist_timeout"};

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

std::string result_json(const fs::path& run_dir, const mmtrain::FitResult& fit, double test_acc,
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
  result.set("test_acc", test_acc);
  result.set("epoch_seconds", median(seconds));
  result.set("samples_per_second", median(speeds));
  result.set("data_wait_pct", median(waits));
  result.set("device", strategy.ranks().front().device.str());
  result.set("world_size", strategy.world_size());
  return result.dump(-1);
}

constexpr double kWarmupStart = 0.01;  // of the learning rate

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

// The plan of the main process.
RunPlan shared(RunPlan plan, const mmtrain::parallel::Strategy& strategy) {
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

// What was asked for is printed even if the rest is not.
void say(const std::string& text) { std::puts(text.c_str()); }

}  // namespace

void TrainingOptions::declare(Cli& cli) {
  cli.add("data_dir", data_dir, "directory of the data; without it demo data is generated");
  cli.add("output_dir", output_dir, "directory that holds the run directories");
  cli.add("name", name, "name of the run; default: the model's");
  cli.add("epochs", epochs, "passes over the training split");
  cli.add("batch_size", batch_size, "rows per rank and step");
  cli.add("num_workers", num_workers, "threads that load data, per rank");
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
  cli.add("evaluate", evaluate, "evaluate this checkpoint or weights file and end");
  cli.add("pretrained", pretrained, "start from the weights of this checkpoint or safetensors file, where names fit");
  cli.add("limit_train_batches", limit_train_batches, "batches of an epoch, 0: all");
  cli.add("limit_val_batches", limit_val_batches, "batches of a validation, 0: all");
  cli.add("cache", cache, "decode-once cache: auto, off, a folder, or a .safetensors file");
  cli.add_choice("optimizer", optimizer, {"adam", "adamw", "sgd", "rmsprop"}, "optimizer");
  cli.add("lr", lr, "learning rate");
  cli.add("weight_decay", weight_decay, "weight decay");
  cli.add("momentum", momentum, "momentum of sgd and rmsprop; -1: 0.9 for sgd, 0 for rmsprop");
  cli.add_choice("scheduler", scheduler, {"none", "cosine", "step", "exponential", "polynomial", "plateau", "onecycle"},
                 "learning rate over the epochs; onecycle changes it each step");
  cli.add("warmup_epochs", warmup_epochs, "epochs in which the learning rate rises from 1 % in a line");
  cli.add("step_size", step_size, "epochs between the falls of --scheduler step");
  cli.add("factor", factor, "factor of each fall of --scheduler step, exponential and plateau");
  cli.add("patience", patience, "epochs without a lower validation loss before --scheduler plateau falls");
  cli.add("label_smoothing", label_smoothing, "share of each target that is spread over all classes");
  cli.add("grad_clip", grad_clip, "largest norm of the gradients, 0: any");
  cli.add("accumulation_steps", accumulation_steps, "batches whose joined gradient makes one optimizer step");
  cli.add("ema_decay", ema_decay, "decay of the average of weights that is evaluated and saved, 0: none");
  cli.add_choice("amp", amp, {"auto", "off", "fp16", "bf16"}, "mixed precision; auto: what the device is fast with");
  cli.add("use_amp", use_amp, "the same as --amp auto");
  cli.add("num_classes", num_classes, "classes the net tells apart, 0: those of the data");
  cli.add("compile_model", compile_model, "run the step as a captured CUDA graph");
  cli.add("early_stopping_patience", early_stopping_patience,
          "epochs without a better validation accuracy, 0: never stop");
  cli.add("print_every", print_every, "epochs between printed lines");
  cli.add("summary", summary, "print the layers of the model and end");
  cli.add("quiet", quiet, "print warnings, errors and the result only");
}

RunPlan plan_run(const TrainingOptions& options, const mmtrain::Config& config,
                 const mmtrain::parallel::Strategy& strategy) {
  RunPlan plan;
  if (strategy.is_main()) {
    plan = find_or_create(options, config);
    if (!plan.finished) {
      plan.lock = mmtrain::FileLock::try_lock(plan.run_dir / ".lock");
      if (!plan.lock) {
        throw mmtrain::ConfigError(
            fmt::format("{} is being trained by another process: wait for it, or choose another "
                        "--name",
                        plan.run_dir.string()));
      }
      mmtrain::write_file_atomic(plan.run_dir / "config.json", config.dump() + "\n");
      mmtrain::write_file_atomic(plan.run_dir / "env.json", mmtrain::to_json(mmtrain::collect_system_info()) + "\n");
    }
  }
  return strategy.has_processes() ? shared(std::move(plan), strategy) : std::move(plan);
}

std::optional<int> launch_ranks(const TrainingOptions& options, int argc, char** argv) {
  const bool one_is_enough = options.summary || !options.evaluate.empty();  // nothing is trained
  if (options.nproc == 1 || one_is_enough || mmtrain::parallel::is_launched()) return std::nullopt;
  return mmtrain::parallel::launch({.nproc = options.nproc, .max_restarts = options.max_restarts},
                                   std::vector<std::string>(argv, argv + argc));
}

std::shared_ptr<mmtrain::parallel::Strategy> make_strategy(const TrainingOptions& options) {
  using namespace mmtrain::parallel;
  const GroupOptions group_options{
      .timeout = std::chrono::milliseconds(static_cast<std::int64_t>(1000 * options.dist_timeout))};
  std::vector<torch::Device> devices = mmtrain::parse_devices(options.device);
  if (devices.size() > 1) {
    if (options.device != "auto") {
      throw mmtrain::ConfigError(
          fmt::format("--device {}: training on several GPUs is not built yet; name one", options.device));
    }
    mmtrain::log::warning(fmt::format("training on several GPUs is not built yet: {} is used", devices[0].str()));
    devices.erase(devices.begin() + 1, devices.end());
  }
  ProcessGroup group = init_from_env(group_options);
  mmtrain::log::set_rank(group.rank());
  if ((options.replicas > 1 || group.world_size() > 1) && !devices[0].is_cpu()) {
    throw mmtrain::ConfigError(
        fmt::format("several ranks train on the CPU only in this version: --device cpu, got {}", devices[0].str()));
  }
  if (!options.evaluate.empty() && group.world_size() > 1) {
    throw mmtrain::ConfigError("--evaluate is for one process: run it without torchrun");
  }
  if (options.replicas > 1) {
    return std::make_shared<ReplicaStrategy>(cpu_replicas(static_cast<std::size_t>(options.replicas)), group_options,
                                             /*threads=*/0, group);
  }
  if (group.world_size() > 1) return std::make_shared<DistributedDataParallel>(group, devices[0]);
  return std::make_shared<SingleDevice>(devices[0]);
}

Loaders make_loaders(const TrainingOptions& options, const mmtrain::parallel::Strategy& strategy,
                     std::shared_ptr<const mmtrain::Dataset> train, std::shared_ptr<const mmtrain::Dataset> val) {
  using namespace mmtrain;
  const auto ranks = static_cast<int>(strategy.ranks().size());
  const DataLoaderOptions load{.batch_size = options.batch_size * ranks,
                               .num_workers = options.num_workers * ranks,
                               .pin_memory = strategy.ranks()[0].device.is_cuda(),
                               .bad_samples = BadSamplePolicy::skip,
                               .seed = options.seed};
  std::shared_ptr<const Sampler> order = std::make_shared<RandomSampler>(train->size(), options.seed);
  std::shared_ptr<const Sampler> all = std::make_shared<SequentialSampler>(val->size());
  if (strategy.has_processes()) {
    const parallel::ProcessGroup& group = strategy.processes();
    order = std::make_shared<DistributedSampler>(order, group.rank(), group.world_size());
    // Every sample once: a rank may have one less than another.
    std::vector<std::int64_t> share;
    for (std::int64_t i = group.rank(); i < val->size(); i += group.world_size()) share.push_back(i);
    all = std::make_shared<SubsetSampler>(std::move(share), /*shuffle=*/false);
  }
  return {std::make_unique<DataLoader>(train, order, load), std::make_unique<DataLoader>(val, all, load)};
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
  if (scheduler == "onecycle" && warmup_epochs > 0) {
    throw mmtrain::ConfigError(
        "--warmup_epochs goes with every scheduler but onecycle, which has a warm-up of its own");
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
  const std::vector<mmtrain::optim::ParamGroup> parameters = mmtrain::optim::named_groups(module);
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

mmtrain::Loss make_loss(const TrainingOptions& options) {
  return mmtrain::cross_entropy_loss({.label_smoothing = options.label_smoothing});
}

void load_pretrained(torch::nn::Module& module, const std::string& path) {
  const mmtrain::LoadReport report =
      mmtrain::load_state_dict(module, mmtrain::load_weights(path), {.strict = false, .partial = true});
  if (report.loaded.empty()) throw mmtrain::DataError(fmt::format("--pretrained {}: no name fits the model", path));
  mmtrain::log::info(fmt::format("Pretrained weights from {}: {}", path, report.summary()));
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

mmtrain::TrainerOptions trainer_options(const TrainingOptions& options, const RunPlan& plan) {
  return {.epochs = options.epochs,
          .limit_train_batches = options.limit_train_batches,
          .limit_val_batches = options.limit_val_batches,
          .early_stopping_patience = options.early_stopping_patience,
          .accumulation_steps = options.accumulation_steps,
          .run_dir = plan.run_dir,
          .progress = !options.quiet};
}

mmtrain::RankParts make_rank(const TrainingOptions& options, std::shared_ptr<mmtrain::Model> model,
                             torch::Device device, std::int64_t batches) {
  model->module().to(device);
  mmtrain::RankParts parts{model, make_optimizer(model->module(), options), step_options(options, device)};
  parts.step.sync_batchnorm = options.sync_bn;
  parts.step.reducer.find_unused_parameters = options.find_unused_parameters;
  if (options.limit_train_batches > 0) batches = std::min(batches, options.limit_train_batches);
  const std::int64_t steps = (batches + options.accumulation_steps - 1) / options.accumulation_steps;
  if (options.scheduler == "onecycle") {
    parts.step.scheduler = std::make_shared<mmtrain::optim::ScheduledLR>(
        *parts.optimizer, mmtrain::optim::one_cycle_lr({.total_steps = options.epochs * steps}));
  } else {
    parts.step.epoch_scheduler = epoch_scheduler(options, *parts.optimizer);
  }
  return parts;
}

int run_training(mmtrain::Trainer& trainer, const RunPlan& plan, const Loaders& loaders,
                 const mmtrain::parallel::Strategy& strategy) {
  if (plan.checkpoint) trainer.resume(*plan.checkpoint);
  const mmtrain::StopSignals signals;
  const mmtrain::FitResult fit = trainer.fit(*loaders.train, *loaders.val);
  if (fit.signal != 0) {
    mmtrain::log::info(fmt::format("Stopped by signal {}: saved {}; go on with --resume {}", fit.signal,
                                   (plan.run_dir / "checkpoints" / "last").string(), plan.run_dir.string()));
    return 128 + fit.signal;  // as a shell reports it
  }
  trainer.load_weights(mmtrain::load_weights(plan.run_dir / "checkpoints" / "best"));
  const mmtrain::MetricValues test = trainer.test(*loaders.val);
  const std::size_t skipped = loaders.train->errors().size() + loaders.val->errors().size();
  if (skipped > 0) mmtrain::log::warning(fmt::format("{} broken samples were skipped, each named above", skipped));
  if (!strategy.is_main()) return 0;
  mmtrain::write_test_results(plan.run_dir / "test_results.json", test, loaders.val->dataset().class_names());
  mmtrain::log::info(fmt::format("Best epoch {}: Test Acc: {:.2f}%, top-5 {:.2f}%, weighted F1 {:.4f}", fit.best_epoch,
                                 100 * test.accuracy, 100 * test.top5, test.f1_weighted));
  mmtrain::log::info(fmt::format("Everything about this run is in {}", plan.run_dir.string()));
  const std::string result = result_json(plan.run_dir, fit, test.accuracy, strategy);
  mmtrain::finish_run(plan.run_dir, result);
  return print_result(result);
}

int evaluate(const TrainingOptions& options, const std::shared_ptr<mmtrain::Model>& model, mmtrain::DataLoader& val,
             torch::Device device) {
  mmtrain::load_state_dict(model->module(), mmtrain::load_weights(options.evaluate));
  mmtrain::Trainer trainer(model, make_optimizer(model->module(), options), make_loss(options),
                           {.device = device, .progress = !options.quiet}, step_options(options, device));
  const mmtrain::MetricValues values = trainer.evaluate(val, options.limit_val_batches);
  say(fmt::format("Test Loss: {:.4f}, Test Acc: {:.2f}%, top-5 {:.2f}%, macro F1 {:.4f}, weighted F1 {:.4f}",
                  values.loss, 100 * values.accuracy, 100 * values.top5, values.f1_macro, values.f1_weighted));
  say(mmtrain::classification_report(values.confusion, val.dataset().class_names()));
  return 0;
}

int print_result(const std::string& json) {
  std::printf("result %s\n", json.c_str());
  return 0;
}

}  // namespace programs
