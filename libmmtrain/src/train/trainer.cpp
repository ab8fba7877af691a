#include "mmtrain/train/trainer.h"

#include <ATen/Context.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/core/progress.h"
#include "mmtrain/train/checkpoint.h"
#include "mmtrain/train/signals.h"

namespace mmtrain {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

constexpr int kStateFormat = 2;
// Batches between readings of the loss, each of which waits for the device.
constexpr std::int64_t kProgressInterval = 10;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// NaN has no place in JSON: null stands for it.
json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }
double number(const json& value) { return value.is_null() ? std::nan("") : value.get<double>(); }

json to_json(const EpochRecord& r) {
  return {{"epoch", r.epoch},
          {"global_step", r.global_step},
          {"train_loss", number(r.train_loss)},
          {"train_acc", number(r.train_acc)},
          {"val_loss", number(r.val_loss)},
          {"val_acc", number(r.val_acc)},
          {"val_top5", number(r.val_top5)},
          {"val_f1_macro", number(r.val_f1_macro)},
          {"val_f1_weighted", number(r.val_f1_weighted)},
          {"lr", r.lr},
          {"epoch_seconds", r.epoch_seconds},
          {"samples_per_second", number(r.samples_per_second)},
          {"data_wait_pct", number(r.data_wait_pct)},
          {"skipped_samples", r.skipped_samples},
          {"grad_norm", number(r.grad_norm)},
          {"skipped_steps", r.skipped_steps},
          {"best", r.best}};
}

EpochRecord record_from(const json& j) {
  return {.epoch = j.at("epoch"),
          .global_step = j.at("global_step"),
          .train_loss = number(j.at("train_loss")),
          .train_acc = number(j.at("train_acc")),
          .val_loss = number(j.at("val_loss")),
          .val_acc = number(j.at("val_acc")),
          .val_top5 = number(j.at("val_top5")),
          .val_f1_macro = number(j.at("val_f1_macro")),
          .val_f1_weighted = number(j.at("val_f1_weighted")),
          .lr = j.at("lr"),
          .epoch_seconds = j.at("epoch_seconds"),
          .samples_per_second = number(j.at("samples_per_second")),
          .data_wait_pct = number(j.at("data_wait_pct")),
          .skipped_samples = j.at("skipped_samples"),
          .grad_norm = number(j.at("grad_norm")),
          .skipped_steps = j.at("skipped_steps"),
          .best = j.at("best")};
}

// Entries of `dict` whose names begin with `prefix`, without it.
StateDict section(const StateDict& dict, const std::string& prefix) {
  StateDict result;
  for (const auto& item : dict) {
    if (item.key().starts_with(prefix)) result.insert(item.key().substr(prefix.size()), item.value());
  }
  return result;
}

void append(StateDict& dict, const std::string& prefix, const StateDict& entries) {
  for (const auto& item : entries) dict.insert(prefix + item.key(), item.value());
}

void validate(const TrainerOptions& options) {
  const auto require = [](bool fine, const char* name, const char* rule, std::int64_t value) {
    if (!fine) throw ConfigError(fmt::format("[Trainer] {} must {}, got {}", name, rule, value));
  };
  require(options.epochs >= 1, "epochs", "be positive", options.epochs);
  require(options.limit_train_batches >= 0, "limit_train_batches", "not be negative", options.limit_train_batches);
  require(options.limit_val_batches >= 0, "limit_val_batches", "not be negative", options.limit_val_batches);
  require(options.accumulation_steps >= 1, "accumulation_steps", "be positive", options.accumulation_steps);
  require(options.early_stopping_patience >= 0, "early_stopping_patience", "not be negative",
          options.early_stopping_patience);
}

}  // namespace

struct Trainer::Impl {
  TrainerOptions options;
  std::uint64_t seed;
  TrainStep step;
  std::vector<std::shared_ptr<Callback>> callbacks;

  // Where training stands: everything `resume` must restore beside the tensors.
  std::int64_t epoch = 0;    ///< epochs finished
  std::int64_t batch = 0;    ///< batches of the next epoch already trained on
  std::int64_t rows = 0;     ///< rows trained on in the open epoch
  double train_seconds = 0;  ///< of the open epoch, before a resume
  double wait_seconds = 0;
  std::int64_t epochs_since_best = 0;
  FitResult result;
  std::optional<ClassificationMetrics> metrics;  ///< of the open epoch
  torch::Tensor step_sums;  ///< of the open epoch: finite gradient norms, their number, steps left out

  Impl(std::shared_ptr<Model> model, std::shared_ptr<torch::optim::Optimizer> optimizer, Loss loss,
       TrainerOptions trainer_options, TrainStepOptions step_options)
      : options(std::move(trainer_options)),
        seed(step_options.seed),
        step(std::move(model), std::move(optimizer), std::move(loss), std::move(step_options)),
        step_sums(torch::zeros({3}, torch::TensorOptions(torch::kDouble).device(options.device))) {}

  torch::nn::Module& module() { return step.model().module(); }
  bool limit_reached(std::int64_t done, std::int64_t limit) const { return limit > 0 && done >= limit; }
  double learning_rate() { return step.optimizer().param_groups().at(0).options().get_lr(); }

  // Trains on a batch and counts it.
  void train_batch(const Batch& loaded, std::int64_t batches);
  void count(const StepResult& outcome);
  // Trains the open epoch to its end; false if a signal ended it before.
  bool train_epoch(DataLoader& loader);
  MetricValues evaluate(DataLoader& loader, std::int64_t limit, const std::string& label);
  void close_epoch(DataLoader& loader, const MetricValues& trained, const MetricValues& validated, double seconds);
  void save(const char* name);
  void load(const std::filesystem::path& directory);
  void report_skipped(const DataLoader& loader, std::int64_t& reported);
  std::int64_t reported_train = 0, reported_val = 0;  ///< bad samples already named
  std::int64_t micro_batches = 0;                     ///< of the step that is open
  bool first_batch_shown = false;
};

bool Trainer::Impl::train_epoch(DataLoader& loader) {
  module().train();
  const std::int64_t batches =
      options.limit_train_batches > 0 ? std::min(options.limit_train_batches, loader.size()) : loader.size();
  std::optional<ProgressLine> progress;
  if (options.progress) progress.emplace(fmt::format("Epoch {}/{}", epoch + 1, options.epochs), batches);
  const Clock::time_point start = Clock::now();
  const double seconds_before = train_seconds, wait_before = wait_seconds;

  bool finished = true;
  if (!limit_reached(batch, options.limit_train_batches)) {
    for (Batch& loaded : loader.epoch(epoch, batch)) {
      batch = loader.next_batch();
      train_batch(loaded, batches);
      train_seconds = seconds_before + seconds_since(start);
      wait_seconds = wait_before + loader.wait_seconds();
      if (progress && (batch % kProgressInterval == 0 || batch == batches)) {
        const MetricValues so_far = metrics->compute();
        progress->update(batch, fmt::format("loss {:.4f}  acc {:.2f}%  {:.0f} samples/s  wait {:.1f}%", so_far.loss,
                                            100 * so_far.accuracy, static_cast<double>(rows) / train_seconds,
                                            100 * wait_seconds / train_seconds));
      }
      if (step.is_accumulating()) continue;  // a signal waits for the step to be complete
      if (StopSignals::received() != 0) {
        finished = false;
        break;
      }
      if (limit_reached(batch, options.limit_train_batches)) break;
    }
  }
  count(step.finish());  // if the batch that should have completed a step had no good sample
  micro_batches = 0;
  if (progress) progress->finish();
  report_skipped(loader, reported_train);
  if (finished && rows == 0)
    throw DataError("[Trainer] the training split gave no batch: has it fewer samples than drop_last needs?");
  return finished;
}

void Trainer::Impl::train_batch(const Batch& loaded, std::int64_t batches) {
  Batch moved = loaded.to(options.device, /*non_blocking=*/true);
  if (options.mix) moved = mix(moved, *options.mix, seed, epoch, batch - 1);
  if (!first_batch_shown) {
    for (const auto& callback : callbacks) callback->on_first_batch(moved);
    first_batch_shown = true;
  }
  const bool completes = ++micro_batches >= options.accumulation_steps || batch == batches;
  const StepResult outcome = completes ? step.run(moved) : step.accumulate(moved);
  if (completes) micro_batches = 0;
  if (!metrics) metrics.emplace(outcome.output.size(1), options.device);
  metrics->add(outcome.output, moved.target, outcome.loss_sum, outcome.weight, moved.weights);
  count(outcome);
  rows += moved.size();
}

void Trainer::Impl::count(const StepResult& outcome) {
  if (!outcome.grad_norm.defined() && !outcome.skipped.defined()) return;
  const torch::NoGradGuard no_grad;
  const torch::Tensor none = torch::zeros({}, step_sums.options());
  torch::Tensor norm = none, finite = none;
  if (outcome.grad_norm.defined()) {
    finite = outcome.grad_norm.isfinite();
    norm = torch::where(finite, outcome.grad_norm.to(torch::kDouble), 0.0);
  }
  const torch::Tensor skipped = outcome.skipped.defined() ? outcome.skipped.to(step_sums.options()) : none;
  step_sums.add_(torch::stack({norm, finite.to(torch::kDouble), skipped}));
}

MetricValues Trainer::Impl::evaluate(DataLoader& loader, std::int64_t limit, const std::string& label) {
  module().eval();
  std::optional<ClassificationMetrics> seen;
  std::optional<ProgressLine> progress;
  if (options.progress) progress.emplace(label, limit > 0 ? std::min(limit, loader.size()) : loader.size());
  std::int64_t done = 0;
  for (Batch& loaded : loader.epoch(0)) {
    const Batch moved = loaded.to(options.device, /*non_blocking=*/true);
    const StepResult outcome = step.evaluate(moved);
    if (!seen) seen.emplace(outcome.output.size(1), options.device);
    seen->add(outcome.output, moved.target, outcome.loss_sum, outcome.weight, moved.weights);
    if (progress) progress->update(++done, "");
    if (limit_reached(done, limit)) break;
  }
  if (progress) progress->finish();
  report_skipped(loader, reported_val);
  if (!seen) throw DataError("[Trainer] the evaluated split gave no batch: has it fewer samples than drop_last needs?");
  return seen->compute();
}

// Every bad sample is named once.
void Trainer::Impl::report_skipped(const DataLoader& loader, std::int64_t& reported) {
  const std::vector<SampleError> errors = loader.errors();
  for (; reported < static_cast<std::int64_t>(errors.size()); ++reported) {
    const SampleError& error = errors[static_cast<std::size_t>(reported)];
    log::warning(fmt::format("skipped {}: {}", error.path, error.reason));
  }
}

void Trainer::Impl::close_epoch(DataLoader& loader, const MetricValues& trained, const MetricValues& validated,
                                double seconds) {
  ++epoch;
  const torch::Tensor sums = step_sums.cpu();
  EpochRecord record{.epoch = epoch,
                     .global_step = step.step_count(),
                     .train_loss = trained.loss,
                     .train_acc = trained.accuracy,
                     .val_loss = validated.loss,
                     .val_acc = validated.accuracy,
                     .val_top5 = validated.top5,
                     .val_f1_macro = validated.f1_macro,
                     .val_f1_weighted = validated.f1_weighted,
                     .lr = learning_rate(),
                     .epoch_seconds = seconds,
                     .samples_per_second = static_cast<double>(rows) / train_seconds,
                     .data_wait_pct = 100 * wait_seconds / train_seconds,
                     .skipped_samples = static_cast<std::int64_t>(loader.errors().size()),
                     .grad_norm = sums[0].item<double>() / sums[1].item<double>(),
                     .skipped_steps = std::llround(sums[2].item<double>())};
  if (options.epoch_scheduler) options.epoch_scheduler->step(validated.loss);
  record.best = result.best_epoch == 0 || record.val_acc > result.best_val_acc;
  epochs_since_best = record.best ? 0 : epochs_since_best + 1;
  if (record.best) {
    result.best_epoch = epoch;
    result.best_val_acc = record.val_acc;
    result.best_val_f1_weighted = record.val_f1_weighted;
  }
  result.history.push_back(record);
  batch = rows = 0;
  train_seconds = wait_seconds = 0;
  metrics.reset();
  step_sums.zero_();
}

void Trainer::Impl::save(const char* name) {
  if (options.run_dir.empty()) return;
  Checkpoint checkpoint;
  checkpoint.model = state_dict(module());
  if (const optim::Ema* ema = step.ema()) {
    append(checkpoint.optimizer, "weights/", checkpoint.model);
    checkpoint.model = ema->state_dict();
  }
  const TrainStep::State step_state = step.state_dict();
  append(checkpoint.optimizer, "optimizer/", step_state.optimizer);
  checkpoint.optimizer.insert("generator/cpu", at::globalContext().defaultGenerator(at::kCPU).get_state());
  if (options.device.is_cuda()) {
    checkpoint.optimizer.insert("generator/device", at::globalContext().defaultGenerator(options.device).get_state());
  }
  if (metrics) {
    const std::vector<torch::Tensor> running = metrics->state();
    checkpoint.optimizer.insert("metrics/counts", running[0]);
    checkpoint.optimizer.insert("metrics/sums", running[1]);
  }
  checkpoint.optimizer.insert("metrics/steps", step_sums);
  json history = json::array();
  for (const EpochRecord& record : result.history) history.push_back(to_json(record));
  checkpoint.state =
      json{{"format", kStateFormat},
           {"epoch", epoch},
           {"batch", batch},
           {"step", json::parse(step_state.values.dump())},
           {"epoch_scheduler",
            options.epoch_scheduler ? json::parse(options.epoch_scheduler->state_dict().dump()) : json(nullptr)},
           {"ema_updates", step.ema() ? step.ema()->updates() : 0},
           {"rows", rows},
           {"train_seconds", train_seconds},
           {"wait_seconds", wait_seconds},
           {"epochs_since_best", epochs_since_best},
           {"best_epoch", result.best_epoch},
           {"best_val_acc", result.best_val_acc},
           {"best_val_f1_weighted", result.best_val_f1_weighted},
           {"history", std::move(history)}}
          .dump(2) +
      "\n";
  save_checkpoint(options.run_dir / "checkpoints" / name, checkpoint);
}

void Trainer::Impl::load(const std::filesystem::path& directory) {
  const Checkpoint checkpoint = load_checkpoint(directory);
  TrainStep::State step_state{section(checkpoint.optimizer, "optimizer/"), {}};
  std::int64_t ema_updates = 0;
  json state;
  try {
    state = json::parse(checkpoint.state);
    if (state.at("format") != kStateFormat) {
      throw DataError(fmt::format("[Trainer] {} was written by another version of the library", directory.string()));
    }
    epoch = state.at("epoch");
    batch = state.at("batch");
    step_state.values = Config::parse(state.at("step").dump(), (directory / "state.json").string());
    ema_updates = state.at("ema_updates");
    if (options.epoch_scheduler) {
      options.epoch_scheduler->load_state_dict(
          Config::parse(state.at("epoch_scheduler").dump(), (directory / "state.json").string()));
    }
    rows = state.at("rows");
    train_seconds = state.at("train_seconds");
    wait_seconds = state.at("wait_seconds");
    epochs_since_best = state.at("epochs_since_best");
    result.best_epoch = state.at("best_epoch");
    result.best_val_acc = state.at("best_val_acc");
    result.best_val_f1_weighted = state.at("best_val_f1_weighted");
    result.history.clear();
    for (const json& record : state.at("history")) result.history.push_back(record_from(record));
  } catch (const json::exception& error) {
    throw DataError(fmt::format("[Trainer] {} is broken: {}", (directory / "state.json").string(), error.what()));
  }
  const StateDict weights = section(checkpoint.optimizer, "weights/");
  load_state_dict(module(), weights.is_empty() ? checkpoint.model : weights);
  step.load_state_dict(step_state);
  if (step.ema()) step.ema()->load_state_dict(checkpoint.model, ema_updates);
  const auto restore = [&](const char* name, torch::Device device) {
    if (const torch::Tensor* saved = checkpoint.optimizer.find(name)) {
      at::Generator generator = at::globalContext().defaultGenerator(device);
      generator.set_state(*saved);
    }
  };
  restore("generator/cpu", torch::kCPU);
  if (options.device.is_cuda()) restore("generator/device", options.device);
  step_sums.copy_(checkpoint.optimizer["metrics/steps"]);
  metrics.reset();
  if (const torch::Tensor* counts = checkpoint.optimizer.find("metrics/counts")) {
    // counts holds C x C entries of the confusion matrix and one more.
    metrics.emplace(std::llround(std::sqrt(static_cast<double>(counts->numel() - 1))), options.device);
    const std::vector<torch::Tensor> running = metrics->state();
    running[0].copy_(*counts);
    running[1].copy_(checkpoint.optimizer["metrics/sums"]);
  }
}

Trainer::Trainer(std::shared_ptr<Model> model, std::shared_ptr<torch::optim::Optimizer> optimizer, Loss loss,
                 TrainerOptions options, TrainStepOptions step) {
  validate(options);
  model->module().to(options.device);
  impl_ = std::make_unique<Impl>(std::move(model), std::move(optimizer), std::move(loss), std::move(options),
                                 std::move(step));
}

Trainer::~Trainer() = default;

void Trainer::add(std::shared_ptr<Callback> callback) { impl_->callbacks.push_back(std::move(callback)); }

void Trainer::resume(const std::filesystem::path& checkpoint) { impl_->load(checkpoint); }

FitResult Trainer::fit(DataLoader& train, DataLoader& val) {
  Impl& run = *impl_;
  const FitInfo info{.epochs = run.options.epochs,
                     .first_epoch = run.epoch + 1,
                     .history = run.result.history,
                     .run_dir = run.options.run_dir,
                     .class_names = train.dataset().class_names()};
  for (const auto& callback : run.callbacks) callback->on_fit_begin(info);

  run.result.signal = 0;
  run.result.stopped_early = false;
  const auto patience_over = [&] {
    return run.options.early_stopping_patience > 0 && run.epochs_since_best >= run.options.early_stopping_patience;
  };
  while (run.epoch < run.options.epochs && !patience_over()) {
    const Clock::time_point start = Clock::now();
    const double seconds_before = run.train_seconds;
    bool finished = run.train_epoch(train);
    MetricValues validated;
    if (finished) {
      std::optional<optim::EmaScope> averaged;
      if (run.step.ema()) averaged.emplace(*run.step.ema());
      validated = run.evaluate(val, run.options.limit_val_batches, "  validating");
      finished = StopSignals::received() == 0;
    }
    if (!finished) {
      run.result.signal = StopSignals::received();
      run.save("last");
      break;
    }
    run.close_epoch(train, run.metrics->compute(), validated, seconds_before + seconds_since(start));
    if (run.result.history.back().best) run.save("best");
    run.save("last");
    for (const auto& callback : run.callbacks) callback->on_epoch_end(run.result.history.back());
  }
  run.result.stopped_early = run.result.signal == 0 && run.epoch < run.options.epochs;
  if (run.result.stopped_early) {
    log::info(fmt::format("Early stopping: no better validation accuracy for {} epochs", run.epochs_since_best));
  }
  for (const auto& callback : run.callbacks) callback->on_fit_end(run.result);
  return run.result;
}

MetricValues Trainer::evaluate(DataLoader& loader, std::int64_t limit_batches) {
  return impl_->evaluate(loader, limit_batches, "evaluating");
}

MetricValues Trainer::test(DataLoader& loader) {
  const MetricValues values = evaluate(loader);
  for (const auto& callback : impl_->callbacks) callback->on_test_end(values);
  return values;
}

}  // namespace mmtrain
