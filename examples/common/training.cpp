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
#include <mmtrain/report/classification_report.h>
#include <mmtrain/train/checkpoint.h>
#include <mmtrain/train/loggers.h>
#include <mmtrain/train/run_directory.h>
#include <mmtrain/train/signals.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

namespace programs {
namespace {

namespace fs = std::filesystem;

// Keys that may differ between a run and its continuation: they change how long, where and how loud, not what.
const std::set<std::string> kFreeKeys = {"epochs",     "num_workers", "device", "quiet",    "print_every", "resume",
                                         "output_dir", "name",        "cache",  "evaluate", "summary"};

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

RunPlan take_up(const fs::path& run_dir, const mmtrain::Config& config) {
  require_same_config(run_dir, config);
  const fs::path last = run_dir / "checkpoints" / "last";
  mmtrain::log::info(fmt::format("Resuming {} from {}", run_dir.string(), last.string()));
  return {run_dir, last, std::nullopt};
}

RunPlan find_or_create(const TrainingOptions& options, const mmtrain::Config& config) {
  const auto create = [&] { return RunPlan{mmtrain::create_run_directory(options.output_dir, options.name), {}, {}}; };
  if (options.resume.empty()) return create();
  if (options.resume != "auto") {
    // A run directory, or one of the checkpoints in it.
    fs::path run_dir = fs::path(options.resume);
    if (!run_dir.has_filename()) run_dir = run_dir.parent_path();
    if (fs::exists(run_dir / "state.json")) run_dir = fs::absolute(run_dir).parent_path().parent_path();
    if (!fs::exists(run_dir / "checkpoints" / "last")) {
      throw mmtrain::DataError(
          fmt::format("--resume {}: no checkpoints/last there; give a run directory or a checkpoint", options.resume));
    }
    return take_up(run_dir, config);
  }
  const std::optional<mmtrain::FoundRun> found = mmtrain::find_run(options.output_dir, options.name);
  if (!found) return create();
  if (found->finished) {
    require_same_config(found->path, config);
    const std::int64_t done =
        mmtrain::Config::load(found->path / "config.json").get<std::int64_t>("epochs").value_or(0);
    if (done >= options.epochs) return {found->path, {}, found->result};
  }
  return take_up(found->path, config);
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string result_json(const fs::path& run_dir, const mmtrain::FitResult& fit, double test_acc,
                        const std::string& device) {
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
  result.set("device", device);
  result.set("world_size", 1);
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
  cli.add_optional("resume", resume, "auto", "go on with a run: its directory, or the newest of this name");
  cli.add("evaluate", evaluate, "evaluate this checkpoint or weights file and end");
  cli.add("pretrained", pretrained, "start from the weights of this checkpoint or safetensors file, where names fit");
  cli.add("limit_train_batches", limit_train_batches, "batches of an epoch, 0: all");
  cli.add("limit_val_batches", limit_val_batches, "batches of a validation, 0: all");
  cli.add("cache", cache, "decode-once cache: auto, off, a folder, or a .safetensors file");
  cli.add_choice("optimizer", optimizer, {"adam", "adamw", "sgd", "rmsprop"}, "optimizer");
  cli.add("lr", lr, "learning rate");
  cli.add("weight_decay", weight_decay, "weight decay");
  cli.add("momentum", momentum, "momentum of sgd and rmsprop");
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
  cli.add("compile_model", compile_model, "run the step as a captured CUDA graph");
  cli.add("early_stopping_patience", early_stopping_patience,
          "epochs without a better validation accuracy, 0: never stop");
  cli.add("print_every", print_every, "epochs between printed lines");
  cli.add("summary", summary, "print the layers of the model and end");
  cli.add("quiet", quiet, "print warnings, errors and the result only");
}

RunPlan plan_run(const TrainingOptions& options, const mmtrain::Config& config) {
  RunPlan plan = find_or_create(options, config);
  if (!plan.finished) {
    mmtrain::write_file_atomic(plan.run_dir / "config.json", config.dump() + "\n");
    mmtrain::write_file_atomic(plan.run_dir / "env.json", mmtrain::to_json(mmtrain::collect_system_info()) + "\n");
  }
  return plan;
}

void TrainingOptions::validate() const {
  const auto require = [](bool fine, const char* flag, const char* rule, auto value) {
    if (!fine) throw mmtrain::ConfigError(fmt::format("--{} must {}, got {}", flag, rule, value));
  };
  require(epochs >= 1, "epochs", "be positive", epochs);
  require(warmup_epochs >= 0, "warmup_epochs", "not be negative", warmup_epochs);
  require(accumulation_steps >= 1, "accumulation_steps", "be positive", accumulation_steps);
  require(grad_clip >= 0, "grad_clip", "not be negative", grad_clip);
  require(ema_decay >= 0 && ema_decay < 1, "ema_decay", "be at least 0 and below 1", ema_decay);
  require(label_smoothing >= 0 && label_smoothing <= 1, "label_smoothing", "be between 0 and 1", label_smoothing);
  require(early_stopping_patience >= 0, "early_stopping_patience", "not be negative", early_stopping_patience);
  require(print_every >= 1, "print_every", "be positive", print_every);
}

std::shared_ptr<torch::optim::Optimizer> make_optimizer(const torch::nn::Module& module,
                                                        const TrainingOptions& options) {
  const std::vector<mmtrain::optim::ParamGroup> parameters = mmtrain::optim::named_groups(module);
  const double lr = options.lr, decay = options.weight_decay, momentum = options.momentum;
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
  mmtrain::log::info(fmt::format("{:<44} {:>22} {:>14}", "parameter", "shape", "elements"));
  for (const auto& item : module.named_parameters()) {
    const torch::Tensor& tensor = item.value();
    mmtrain::log::info(fmt::format("{:<44} {:>22} {:>14}", item.key(),
                                   fmt::format("{}", fmt::join(tensor.sizes(), "x")), tensor.numel()));
    total += tensor.numel();
    trainable += tensor.requires_grad() ? tensor.numel() : 0;
  }
  mmtrain::log::info(fmt::format("{} parameters, {} trainable", total, trainable));
}

torch::Device single_device(const std::string& device) {
  const std::vector<torch::Device> devices = mmtrain::parse_devices(device);
  if (devices.size() == 1 || device == "auto") return devices.front();
  throw mmtrain::ConfigError(fmt::format("--device {}: this program trains on one device", device));
}

TrainingSetup training_setup(const TrainingOptions& options, const RunPlan& plan, torch::Device device,
                             torch::optim::Optimizer& optimizer, std::int64_t batches) {
  TrainingSetup setup{{.epochs = options.epochs,
                       .device = device,
                       .limit_train_batches = options.limit_train_batches,
                       .limit_val_batches = options.limit_val_batches,
                       .early_stopping_patience = options.early_stopping_patience,
                       .accumulation_steps = options.accumulation_steps,
                       .run_dir = plan.run_dir,
                       .progress = !options.quiet},
                      step_options(options, device)};
  if (options.limit_train_batches > 0) batches = std::min(batches, options.limit_train_batches);
  const std::int64_t steps = (batches + options.accumulation_steps - 1) / options.accumulation_steps;
  if (options.scheduler == "onecycle") {
    setup.step.scheduler = std::make_shared<mmtrain::optim::ScheduledLR>(
        optimizer, mmtrain::optim::one_cycle_lr({.total_steps = options.epochs * steps}));
  } else {
    setup.step.epoch_scheduler = epoch_scheduler(options, optimizer);
  }
  return setup;
}

int run_training(mmtrain::Trainer& trainer, const RunPlan& plan, mmtrain::Model& model, mmtrain::DataLoader& train,
                 mmtrain::DataLoader& val, torch::Device device) {
  if (plan.checkpoint) trainer.resume(*plan.checkpoint);
  const mmtrain::StopSignals signals;
  const mmtrain::FitResult fit = trainer.fit(train, val);
  if (fit.signal != 0) {
    mmtrain::log::info(fmt::format("Stopped by signal {}: saved {}; go on with --resume {}", fit.signal,
                                   (plan.run_dir / "checkpoints" / "last").string(), plan.run_dir.string()));
    return 128 + fit.signal;  // as a shell reports it
  }
  mmtrain::load_state_dict(model.module(), mmtrain::load_weights(plan.run_dir / "checkpoints" / "best"));
  const mmtrain::MetricValues test = trainer.test(val);
  mmtrain::write_test_results(plan.run_dir / "test_results.json", test, val.dataset().class_names());
  mmtrain::log::info(fmt::format("Best epoch {}: Test Acc: {:.2f}%, top-5 {:.2f}%, weighted F1 {:.4f}", fit.best_epoch,
                                 100 * test.accuracy, 100 * test.top5, test.f1_weighted));
  const std::size_t skipped = train.errors().size() + val.errors().size();
  if (skipped > 0) mmtrain::log::warning(fmt::format("{} broken samples were skipped, each named above", skipped));
  mmtrain::log::info(fmt::format("Everything about this run is in {}", plan.run_dir.string()));
  const std::string result = result_json(plan.run_dir, fit, test.accuracy, device.str());
  mmtrain::finish_run(plan.run_dir, result);
  return print_result(result);
}

int evaluate(const TrainingOptions& options, const std::shared_ptr<mmtrain::Model>& model, mmtrain::DataLoader& val,
             torch::Device device) {
  mmtrain::load_state_dict(model->module(), mmtrain::load_weights(options.evaluate));
  mmtrain::Trainer trainer(model, make_optimizer(model->module(), options), make_loss(options),
                           {.device = device, .progress = !options.quiet}, step_options(options, device));
  const mmtrain::MetricValues values = trainer.evaluate(val, options.limit_val_batches);
  mmtrain::log::info(
      fmt::format("Test Loss: {:.4f}, Test Acc: {:.2f}%, top-5 {:.2f}%, macro F1 {:.4f}, weighted F1 {:.4f}",
                  values.loss, 100 * values.accuracy, 100 * values.top5, values.f1_macro, values.f1_weighted));
  mmtrain::log::info(mmtrain::classification_report(values.confusion, val.dataset().class_names()));
  return 0;
}

int print_result(const std::string& json) {
  std::printf("result %s\n", json.c_str());
  return 0;
}

}  // namespace programs
