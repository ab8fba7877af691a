#include "mmtrain/train/trainer.h"

#include <ATen/Context.h>
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/core/progress.h"
#include "mmtrain/device/memory.h"
#include "mmtrain/optim/optimizer.h"
#include "mmtrain/train/checkpoint.h"
#include "mmtrain/train/signals.h"
#include "train/rank_trainer.h"

namespace mmtrain {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

constexpr int kStateFormat = 2;

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
  require(options.val_interval >= 1, "val_interval", "be positive", options.val_interval);
  require(options.log_interval >= 1, "log_interval", "be positive", options.log_interval);
  require(options.save_interval >= 0, "save_interval", "not be negative", options.save_interval);
  require(options.accumulation_steps >= 1, "accumulation_steps", "be positive", options.accumulation_steps);
  require(options.max_broken_losses >= 0, "max_broken_losses", "not be negative", options.max_broken_losses);
  require(options.early_stopping_patience >= 0, "early_stopping_patience", "not be negative",
          options.early_stopping_patience);
}

constexpr const char* kRemedy = "a lower learning rate, --grad_clip, or --amp off may help";

// Numbers that say that training has gone wrong are said once an epoch.
void warn_of_trouble(const EpochRecord& record, std::int64_t broken_norms) {
  if (!std::isfinite(record.train_loss)) {
    log::warning(fmt::format("epoch {}: the training loss is {}; {}", record.epoch, record.train_loss, kRemedy));
  }
  if (broken_norms > record.skipped_steps) {
    log::warning(fmt::format("epoch {}: the gradient norm of {} steps was infinite or no number; {}", record.epoch,
                             broken_norms, kRemedy));
  }
}

}  // namespace

struct Trainer::Impl {
  TrainerOptions options;
  std::shared_ptr<parallel::Strategy> strategy;
  std::vector<std::unique_ptr<detail::RankTrainer>> ranks;  // of this process
  std::uint64_t seed = 0;
  std::vector<std::shared_ptr<Callback>> callbacks;

  // Where training stands: everything `resume` must restore beside the tensors.
  std::int64_t epoch = 0;    ///< epochs finished
  std::int64_t batch = 0;    ///< batches of the next epoch already trained on
  std::int64_t rows = 0;     ///< rows trained on in the open epoch, by this process
  double train_seconds = 0;  ///< of the open epoch, before a resume
  double wait_seconds = 0;
  std::int64_t validations_since_best = 0;
  double last_val_loss = std::nan("");  ///< of the last epoch that was validated
  std::vector<std::string> class_names;
  FitResult result;

  Impl(std::shared_ptr<parallel::Strategy> how, const RankFactory& make_rank, Loss loss,
       TrainerOptions trainer_options);

  detail::RankTrainer& main_rank() { return *ranks.front(); }
  bool limit_reached(std::int64_t done, std::int64_t limit) const { return limit > 0 && done >= limit; }
  bool is_validated(std::int64_t number) const {
    return number % options.val_interval == 0 || number >= options.epochs;
  }
  std::vector<EpochRecord::GroupRate> group_rates();
  std::vector<EpochRecord::DeviceMemory> device_memory();
  double learning_rate() { return main_rank().step().optimizer().param_groups().at(0).options().get_lr(); }
  bool is_main() const { return strategy->is_main(); }

  // The batch that the ranks of this process share: rows of each, and where they lie.
  struct Share {
    Batch batch;
    RowPlace place;
  };
  std::vector<Share> shares_of(const Batch& loaded) const;
  Batch on_device(const detail::RankTrainer& rank, const Batch& loaded) const;

  static Batch without_padding(Batch loaded, const DataLoader& loader);
  StepStatus train_batch(Batch loaded, std::int64_t batches, StepStatus status);
  // Trains the open epoch to its end; false if a signal ended it before.
  bool train_epoch(DataLoader& loader);
  FitResult fit(DataLoader& train, DataLoader& val);
  void require_finite_losses(const DataLoader& loader, std::int64_t batches);
  MetricValues evaluate(DataLoader& loader, std::int64_t limit, const std::string& label, bool averaged);
  void close_epoch(DataLoader& loader, const MetricValues& trained, const std::optional<MetricValues>& validated,
                   double seconds);
  void save(const char* name);
  void write(const char* name, const std::optional<ClassificationMetrics>& metrics);
  void load(const std::filesystem::path& directory);
  void report_skipped(const DataLoader& loader);
  std::map<const DataLoader*, std::size_t> reported;  ///< how many bad samples of each were named already
  std::int64_t micro_batches = 0;                     ///< of the step that is open
  bool first_batch_shown = false;

  // What several ranks counted, as one; empty if none has counted anything.
  using Counted = std::optional<ClassificationMetrics>& (detail::RankTrainer::*)();
  std::optional<ClassificationMetrics> of_this_process(Counted counted);
  std::optional<ClassificationMetrics> of_all(Counted counted);
  // Whether it is true in one of the processes.
  bool in_any(bool here);
  // Does what may fail between the steps too, loading say: other processes must not wait then.
  template <class Function>
  auto together(Function function);
};

Trainer::Impl::Impl(std::shared_ptr<parallel::Strategy> how, const RankFactory& make_rank, Loss loss,
                    TrainerOptions trainer_options)
    : options(std::move(trainer_options)), strategy(std::move(how)), ranks(strategy->ranks().size()) {
  // One after the other, since they draw from one generator; what all but the first draw is overwritten.
  std::vector<RankParts> parts;
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  torch::Tensor drawn_by_first;
  for (const parallel::Rank& rank : strategy->ranks()) {
    parts.push_back(make_rank(rank.device));
    parts.back().step.group = rank.group;
    if (!drawn_by_first.defined()) drawn_by_first = generator.get_state();
  }
  if (parts.size() > 1) generator.set_state(drawn_by_first);
  seed = parts.front().step.seed;
  strategy->run([&](std::size_t i) {
    ranks[i] = std::make_unique<detail::RankTrainer>(std::move(parts[i]), loss, strategy->ranks()[i].device);
  });
}

std::vector<Trainer::Impl::Share> Trainer::Impl::shares_of(const Batch& loaded) const {
  if (ranks.size() == 1) return {{loaded, {}}};
  std::vector<Share> shares;
  const std::int64_t processes = strategy->processes().world_size(), process = strategy->processes().rank();
  std::int64_t first = 0;
  for (Batch& part : loaded.split(static_cast<std::int64_t>(ranks.size()))) {
    const std::int64_t rows_of_part = part.size();
    if (rows_of_part == 0) {  // every rank makes the same step: one row that counts nowhere
      part = loaded.narrow(0, 1);
      part.weights = torch::zeros({1}, torch::TensorOptions().device(part.target.device()));
    }
    // The rows of processes follow one another by turns.
    shares.push_back(
        {std::move(part), {.first = first * processes + process, .stride = processes, .rows = rows_of_part}});
    first += rows_of_part;
  }
  return shares;
}

Batch Trainer::Impl::on_device(const detail::RankTrainer& rank, const Batch& loaded) const {
  return loaded.to(rank.device(), /*non_blocking=*/true);
}

// The row with which a rank's share of the samples was filled up counts nowhere.
Batch Trainer::Impl::without_padding(Batch loaded, const DataLoader& loader) {
  const auto* share = dynamic_cast<const DistributedSampler*>(&loader.sampler());
  if (share == nullptr || share->padded() == 0 || loader.next_batch() < loader.size()) return loaded;
  const std::int64_t last = loaded.size() - 1;
  const std::int64_t rows_before = (loader.size() - 1) * loader.options().batch_size;
  if (rows_before + last < share->real_size()) return loaded;  // it could not be read
  const torch::Tensor weights =
      loaded.weights.defined() ? loaded.weights.clone() : torch::ones({loaded.size()}, torch::kFloat);
  weights[last] = 0;
  loaded.weights = weights;
  return loaded;
}

StepStatus Trainer::Impl::train_batch(Batch loaded, std::int64_t batches, StepStatus status) {
  const bool completes = ++micro_batches >= options.accumulation_steps || batch == batches;
  if (completes) micro_batches = 0;
  rows += loaded.size();
  if (options.mix) {
    // Rows are mixed with one another: before they part, and where they train if they do not.
    if (ranks.size() == 1) loaded = on_device(main_rank(), loaded);
    loaded = mix(loaded, *options.mix, seed, epoch, batch - 1);
  }
  if (main_rank().step().has_joint_statistics() && loaded.size() < static_cast<std::int64_t>(ranks.size())) {
    throw ConfigError(
        fmt::format("[Trainer] joint batch normalization needs a row on each rank, got {} rows for {} "
                    "replicas: drop the last batch of an epoch, or take larger ones",
                    loaded.size(), ranks.size()));
  }
  const std::vector<Share> shares = shares_of(loaded);
  StepStatus joint;
  strategy->run([&](std::size_t i) {
    const Batch moved = on_device(*ranks[i], shares[i].batch);
    if (i == 0 && !first_batch_shown) {
      if (is_main()) {
        for (const auto& callback : callbacks) callback->on_first_batch(moved);
      }
      first_batch_shown = true;
    }
    const StepStatus told = ranks[i]->train(moved, epoch * batches + batch - 1, shares[i].place, completes, status);
    if (i == 0) joint = told;
  });
  return joint;
}

bool Trainer::Impl::train_epoch(DataLoader& loader) {
  for (const auto& rank : ranks) rank->module().train();
  const std::int64_t batches =
      options.limit_train_batches > 0 ? std::min(options.limit_train_batches, loader.size()) : loader.size();
  std::optional<ProgressLine> progress;
  if (options.progress && is_main()) progress.emplace(fmt::format("Epoch {}/{}", epoch + 1, options.epochs), batches);
  const Clock::time_point start = Clock::now();
  const double seconds_before = train_seconds, wait_before = wait_seconds;

  bool finished = true, others_ended = false;
  if (!limit_reached(batch, options.limit_train_batches)) {
    for (Batch& loaded : loader.epoch(epoch, batch)) {
      batch = loader.next_batch();
      const StepStatus status =
          train_batch(without_padding(loaded, loader), batches, {.stop = StopSignals::received() != 0});
      if (status.no_batch) {
        others_ended = true;
        break;
      }
      train_seconds = seconds_before + seconds_since(start);
      wait_seconds = wait_before + loader.wait_seconds();
      if (progress && (batch % options.log_interval == 0 || batch == batches)) {
        const MetricValues so_far = of_this_process(&detail::RankTrainer::trained)->compute();
        progress->update(batch, fmt::format("loss {:.4f}  acc {:.2f}%  {:.0f} samples/s  wait {:.1f}%  {}", so_far.loss,
                                            100 * so_far.accuracy, static_cast<double>(rows) / train_seconds,
                                            100 * wait_seconds / train_seconds,
                                            format_bytes(memory_stats(main_rank().device()).allocated)));
      }
      if (main_rank().device().is_cpu() || batch % options.log_interval == 0) require_finite_losses(loader, batches);
      if (main_rank().step().is_accumulating()) continue;  // a signal waits for the step to be complete
      // Processes stop together, after the step before which one of them had its signal.
      if (strategy->has_processes() ? status.stop : StopSignals::received() != 0) {
        finished = false;
        break;
      }
      if (limit_reached(batch, options.limit_train_batches)) break;
    }
  }
  // The batch that should have come last had no good sample.
  if (finished && !others_ended && batch < batches && strategy->has_processes()) {
    strategy->run([&](std::size_t i) { ranks[i]->step().pass(); });
  }
  if (main_rank().step().is_accumulating()) strategy->run([&](std::size_t i) { ranks[i]->finish_step(); });
  micro_batches = 0;
  if (progress) progress->finish();
  report_skipped(loader);
  if (finished && rows == 0)
    throw DataError("[Trainer] the training split gave no batch: has it fewer samples than drop_last needs?");
  return finished;
}

// A loss that stays infinite or no number will not come back: what is trained on says where to look.
void Trainer::Impl::require_finite_losses(const DataLoader& loader, std::int64_t batches) {
  if (options.max_broken_losses == 0) return;
  for (const auto& rank : ranks) {
    const torch::Tensor broken = rank->broken_losses().cpu();
    const auto in_a_row = std::llround(broken[0].item<double>());
    // An epoch of fewer batches is enough: nothing in it taught the net anything.
    if (in_a_row < std::min(options.max_broken_losses, batches)) continue;
    const std::int64_t of_run = std::llround(broken[1].item<double>()), began = of_run / batches;
    const std::int64_t number = of_run % batches;
    const std::vector<std::int64_t> order = loader.sampler().indices(began);
    constexpr std::int64_t kNamed = 4;
    const auto rows_of_epoch = static_cast<std::int64_t>(order.size());
    const std::int64_t first = number * loader.options().batch_size;
    const std::int64_t last = std::min(first + loader.options().batch_size, rows_of_epoch);
    std::string names;
    for (std::int64_t i = first; i < std::min(last, first + kNamed); ++i) {
      names += (i > first ? ", " : "") + loader.dataset().sample_name(order[static_cast<std::size_t>(i)]);
    }
    throw Error(
        fmt::format("[Trainer] the loss of {} batches in a row was infinite or no number, from batch {} of epoch "
                    "{} on ({}{}): {}",
                    in_a_row, number + 1, began + 1, names, last - first > kNamed ? ", ..." : "", kRemedy));
  }
}

MetricValues Trainer::Impl::evaluate(DataLoader& loader, std::int64_t limit, const std::string& label, bool averaged) {
  std::optional<ProgressLine> progress;
  if (options.progress && is_main()) {
    progress.emplace(label, limit > 0 ? std::min(limit, loader.size()) : loader.size());
  }
  for (const auto& rank : ranks) rank->begin_evaluation(averaged);
  std::int64_t done = 0;
  for (Batch& loaded : loader.epoch(0)) {
    const std::vector<Share> shares = shares_of(loaded);
    strategy->run([&](std::size_t i) { ranks[i]->evaluate(on_device(*ranks[i], shares[i].batch)); });
    if (progress) progress->update(++done, "");
    if (limit_reached(done, limit)) break;
  }
  for (const auto& rank : ranks) rank->end_evaluation();
  if (progress) progress->finish();
  report_skipped(loader);
  const std::optional<ClassificationMetrics> seen = of_all(&detail::RankTrainer::evaluated);
  if (!seen) throw DataError("[Trainer] the evaluated split gave no batch: has it fewer samples than drop_last needs?");
  return seen->compute();
}

std::optional<ClassificationMetrics> Trainer::Impl::of_this_process(Counted counted) {
  std::optional<ClassificationMetrics> sum;
  for (const auto& rank : ranks) {
    const std::optional<ClassificationMetrics>& one = ((*rank).*counted)();
    if (!one) continue;
    if (!sum) sum.emplace(one->classes());
    const std::vector<torch::Tensor> to = sum->state(), from = one->state();
    for (std::size_t k = 0; k < to.size(); ++k) to[k].add_(from[k].cpu());
  }
  return sum;
}

std::optional<ClassificationMetrics> Trainer::Impl::of_all(Counted counted) {
  std::optional<ClassificationMetrics> sum = of_this_process(counted);
  if (!strategy->has_processes()) return sum;
  parallel::ProcessGroup group = strategy->processes();
  const torch::Tensor classes = torch::tensor(sum ? sum->classes() : 0, torch::kInt64);
  group.all_reduce(classes, parallel::ReduceOp::max);
  if (classes.item<std::int64_t>() == 0) return {};
  if (!sum) sum.emplace(classes.item<std::int64_t>());
  group.all_reduce(sum->state());
  return sum;
}

bool Trainer::Impl::in_any(bool here) {
  if (!strategy->has_processes()) return here;
  parallel::ProcessGroup group = strategy->processes();
  const torch::Tensor word = torch::tensor(here ? 1 : 0, torch::kInt32);
  group.all_reduce(word, parallel::ReduceOp::max);
  return word.item<std::int32_t>() != 0;
}

template <class Function>
auto Trainer::Impl::together(Function function) {
  try {
    return function();
  } catch (...) {
    if (strategy->has_processes()) strategy->abort(std::current_exception());
    throw;
  }
}

// Every bad sample is named once.
void Trainer::Impl::report_skipped(const DataLoader& loader) {
  const std::vector<SampleError> errors = loader.errors();
  for (std::size_t& named = reported[&loader]; named < errors.size(); ++named) {
    log::warning(fmt::format("skipped {}: {}", errors[named].path, errors[named].reason));
  }
}

std::vector<EpochRecord::GroupRate> Trainer::Impl::group_rates() {
  torch::optim::Optimizer& optimizer = main_rank().step().optimizer();
  const auto* ours = dynamic_cast<const optim::Optimizer*>(&optimizer);
  const std::vector<std::string> names = ours != nullptr ? ours->group_names() : std::vector<std::string>();
  std::vector<EpochRecord::GroupRate> rates;
  for (torch::optim::OptimizerParamGroup& group : optimizer.param_groups()) {
    const std::string name = rates.size() < names.size() ? names[rates.size()] : "";
    rates.push_back({name.empty() ? std::to_string(rates.size()) : name, group.options().get_lr()});
  }
  return rates;
}

std::vector<EpochRecord::DeviceMemory> Trainer::Impl::device_memory() {
  std::vector<EpochRecord::DeviceMemory> memory;
  for (const auto& rank : ranks) {
    const std::string device = rank->device().str();
    if (!memory.empty() && memory.back().device == device) continue;  // replicas on the CPU
    memory.push_back({device, memory_stats(rank->device())});
  }
  return memory;
}

void Trainer::Impl::close_epoch(DataLoader& loader, const MetricValues& trained,
                                const std::optional<MetricValues>& validated, double seconds) {
  ++epoch;
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  if (validated) last_val_loss = validated->loss;
  const torch::Tensor sums = main_rank().step_sums().cpu();
  EpochRecord record{.epoch = epoch,
                     .global_step = main_rank().step().step_count(),
                     .train_loss = trained.loss,
                     .train_acc = trained.accuracy,
                     .val_loss = validated ? validated->loss : kNone,
                     .val_acc = validated ? validated->accuracy : kNone,
                     .val_top5 = validated ? validated->top5 : kNone,
                     .val_f1_macro = validated ? validated->f1_macro : kNone,
                     .val_f1_weighted = validated ? validated->f1_weighted : kNone,
                     .lr = learning_rate(),
                     .epoch_seconds = seconds,
                     .samples_per_second = static_cast<double>(trained.rows) / train_seconds,
                     .data_wait_pct = 100 * wait_seconds / train_seconds,
                     .skipped_samples = static_cast<std::int64_t>(loader.errors().size()),
                     .grad_norm = sums[0].item<double>() / sums[1].item<double>(),
                     .skipped_steps = std::llround(sums[2].item<double>()),
                     .group_rates = group_rates(),
                     .memory = device_memory()};
  // A resumed run meets the bad samples of before anew.
  if (!result.history.empty())
    record.skipped_samples = std::max(record.skipped_samples, result.history.back().skipped_samples);
  warn_of_trouble(record, std::llround(sums[3].item<double>()));
  record.best =
      validated && std::isfinite(record.val_loss) && (result.best_epoch == 0 || record.val_acc > result.best_val_acc);
  if (validated) validations_since_best = record.best ? 0 : validations_since_best + 1;
  if (record.best) {
    result.best_epoch = epoch;
    result.best_val_acc = record.val_acc;
    result.best_val_f1_weighted = record.val_f1_weighted;
  }
  result.history.push_back(record);
  batch = rows = 0;
  train_seconds = wait_seconds = 0;
  for (const auto& rank : ranks) {
    rank->step().end_epoch(last_val_loss);
    rank->trained().reset();
    rank->step_sums().zero_();
  }
}

void Trainer::Impl::save(const char* name) {
  if (options.run_dir.empty()) return;
  const std::optional<ClassificationMetrics> metrics = of_all(&detail::RankTrainer::trained);
  if (is_main()) write(name, metrics);
  in_any(false);  // the others wait: whoever is ended now would leave an older checkpoint than they believe
}

void Trainer::Impl::write(const char* name, const std::optional<ClassificationMetrics>& metrics) {
  TrainStep& step = main_rank().step();
  const torch::Device device = main_rank().device();
  Checkpoint checkpoint;
  checkpoint.model = state_dict(main_rank().module());
  if (const optim::Ema* ema = step.ema()) {
    append(checkpoint.optimizer, "weights/", checkpoint.model);
    checkpoint.model = ema->state_dict();
  }
  const TrainStep::State step_state = step.state_dict();
  append(checkpoint.optimizer, "optimizer/", step_state.optimizer);
  checkpoint.optimizer.insert("generator/cpu", at::globalContext().defaultGenerator(at::kCPU).get_state());
  if (device.is_cuda()) {
    checkpoint.optimizer.insert("generator/device", at::globalContext().defaultGenerator(device).get_state());
  }
  if (metrics) {
    const std::vector<torch::Tensor> running = metrics->state();
    checkpoint.optimizer.insert("metrics/counts", running[0]);
    checkpoint.optimizer.insert("metrics/sums", running[1]);
  }
  checkpoint.optimizer.insert("metrics/steps", main_rank().step_sums());
  json history = json::array();
  for (const EpochRecord& record : result.history) history.push_back(to_json(record));
  checkpoint.state = json{{"format", kStateFormat},
                          {"epoch", epoch},
                          {"batch", batch},
                          {"world_size", strategy->world_size()},
                          {"step", json::parse(step_state.values.dump())},
                          {"ema_updates", step.ema() ? step.ema()->updates() : 0},
                          {"rows", rows},
                          {"train_seconds", train_seconds},
                          {"wait_seconds", wait_seconds},
                          {"validations_since_best", validations_since_best},
                          {"last_val_loss", number(last_val_loss)},
                          {"class_names", class_names},
                          {"about", json::parse(options.about.dump())},
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
    // With another number of ranks a batch of all of them has another size; what was read of an epoch is its beginning.
    const std::int64_t ranks_then = state.at("world_size"), ranks_now = strategy->world_size();
    batch = (state.at("batch").get<std::int64_t>() * ranks_then + ranks_now - 1) / ranks_now;
    step_state.values = Config::parse(state.at("step").dump(), (directory / "state.json").string());
    ema_updates = state.at("ema_updates");
    rows = state.at("rows");
    train_seconds = state.at("train_seconds");
    wait_seconds = state.at("wait_seconds");
    validations_since_best = state.at("validations_since_best");
    last_val_loss = number(state.value("last_val_loss", json(nullptr)));
    result.best_epoch = state.at("best_epoch");
    result.best_val_acc = state.at("best_val_acc");
    result.best_val_f1_weighted = state.at("best_val_f1_weighted");
    result.history.clear();
    for (const json& record : state.at("history")) result.history.push_back(record_from(record));
  } catch (const json::exception& error) {
    throw DataError(fmt::format("[Trainer] {} is broken: {}", (directory / "state.json").string(), error.what()));
  }
  const StateDict weights = section(checkpoint.optimizer, "weights/");
  strategy->run([&](std::size_t i) {
    TrainStep& step = ranks[i]->step();
    load_state_dict(ranks[i]->module(), weights.is_empty() ? checkpoint.model : weights);
    step.load_state_dict(step_state);
    if (step.ema()) step.ema()->load_state_dict(checkpoint.model, ema_updates);
    ranks[i]->trained().reset();
  });
  const auto restore = [&](const char* name, torch::Device device) {
    if (const torch::Tensor* saved = checkpoint.optimizer.find(name)) {
      at::Generator generator = at::globalContext().defaultGenerator(device);
      generator.set_state(*saved);
    }
  };
  restore("generator/cpu", torch::kCPU);
  if (main_rank().device().is_cuda()) restore("generator/device", main_rank().device());
  const torch::Tensor* sums = checkpoint.optimizer.find("metrics/steps");
  if (sums == nullptr || sums->sizes() != main_rank().step_sums().sizes()) {
    throw DataError(fmt::format("[Trainer] {} is not of this trainer: it has no metrics/steps",
                                (directory / "optimizer.safetensors").string()));
  }
  main_rank().step_sums().copy_(*sums);
  const torch::Tensor* counts = checkpoint.optimizer.find("metrics/counts");
  if (counts == nullptr || !is_main()) return;  // what all ranks had counted goes on with the first
  // counts holds C x C entries of the confusion matrix and one more.
  std::optional<ClassificationMetrics>& metrics = main_rank().trained();
  metrics.emplace(std::llround(std::sqrt(static_cast<double>(counts->numel() - 1))), main_rank().device());
  metrics->state()[0].copy_(*counts);
  metrics->state()[1].copy_(checkpoint.optimizer["metrics/sums"]);
}

Trainer::Trainer(std::shared_ptr<Model> model, std::shared_ptr<torch::optim::Optimizer> optimizer, Loss loss,
                 TrainerOptions options, TrainStepOptions step) {
  validate(options);
  model->module().to(options.device);
  const auto strategy = std::make_shared<parallel::SingleDevice>(options.device);
  const RankFactory parts = [&](torch::Device) { return RankParts{model, optimizer, step}; };
  impl_ = std::make_unique<Impl>(strategy, parts, std::move(loss), std::move(options));
}

Trainer::Trainer(std::shared_ptr<parallel::Strategy> strategy, const RankFactory& make_rank, Loss loss,
                 TrainerOptions options) {
  validate(options);
  impl_ = std::make_unique<Impl>(std::move(strategy), make_rank, std::move(loss), std::move(options));
}

Trainer::~Trainer() = default;

void Trainer::add(std::shared_ptr<Callback> callback) { impl_->callbacks.push_back(std::move(callback)); }

void Trainer::load_weights(const StateDict& weights) {
  impl_->strategy->run([&](std::size_t i) { load_state_dict(impl_->ranks[i]->module(), weights); });
}

void Trainer::resume(const std::filesystem::path& checkpoint) {
  impl_->together([&] { impl_->load(checkpoint); });
}

FitResult Trainer::fit(DataLoader& train, DataLoader& val) {
  return impl_->together([&] { return impl_->fit(train, val); });
}

FitResult Trainer::Impl::fit(DataLoader& train, DataLoader& val) {
  const auto tell = [this](const auto& what) {
    if (!is_main()) return;
    for (const auto& callback : callbacks) what(*callback);
  };
  const FitInfo info{.epochs = options.epochs,
                     .first_epoch = epoch + 1,
                     .history = result.history,
                     .run_dir = options.run_dir,
                     .class_names = train.dataset().class_names()};
  class_names = info.class_names;
  tell([&](Callback& callback) { callback.on_fit_begin(info); });

  result.signal = 0;
  result.stopped_early = false;
  const auto patience_over = [&] {
    return options.early_stopping_patience > 0 && validations_since_best >= options.early_stopping_patience;
  };
  while (epoch < options.epochs && !patience_over()) {
    const Clock::time_point start = Clock::now();
    const double seconds_before = train_seconds;
    bool finished = train_epoch(train);
    std::optional<MetricValues> validated;
    if (finished && is_validated(epoch + 1)) {
      validated = evaluate(val, options.limit_val_batches, "  validating", /*averaged=*/true);
      finished = !in_any(StopSignals::received() != 0);
    }
    if (!finished) {
      const int signal = StopSignals::received();
      result.signal = signal != 0 ? signal : SIGTERM;  // another process had it
      save("last");
      break;
    }
    const MetricValues trained = of_all(&detail::RankTrainer::trained)->compute();
    close_epoch(train, trained, validated, seconds_before + seconds_since(start));
    if (result.history.back().best) save("best");
    if (options.save_interval > 0 && epoch % options.save_interval == 0) {
      save(fmt::format("epoch_{:03}", epoch).c_str());
    }
    save("last");
    tell([&](Callback& callback) { callback.on_epoch_end(result.history.back()); });
  }
  result.stopped_early = result.signal == 0 && epoch < options.epochs;
  if (result.stopped_early) {
    log::info(fmt::format("Early stopping: no better accuracy in {} validations", validations_since_best));
  }
  tell([&](Callback& callback) { callback.on_fit_end(result); });
  return result;
}

MetricValues Trainer::evaluate(DataLoader& loader, std::int64_t limit_batches) {
  return impl_->together([&] { return impl_->evaluate(loader, limit_batches, "evaluating", /*averaged=*/false); });
}

MetricValues Trainer::test(DataLoader& loader) {
  const MetricValues values = evaluate(loader, impl_->options.limit_val_batches);
  if (impl_->is_main()) {
    for (const auto& callback : impl_->callbacks) callback->on_test_end(values);
  }
  return values;
}

}  // namespace mmtrain
