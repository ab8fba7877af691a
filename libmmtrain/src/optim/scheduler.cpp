#include "mmtrain/optim/scheduler.h"

#include <fmt/format.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>

#include "mmtrain/core/error.h"

namespace mmtrain::optim {
namespace {

template <ConfigType T>
T required(const Config& state, const char* key) {
  std::optional<T> value = state.get<T>(key);
  if (!value) throw DataError(fmt::format("[LRScheduler] the state has no '{}'", key));
  return *std::move(value);
}

template <class Options>
bool set_first_beta(torch::optim::OptimizerOptions& options, double value) {
  auto* own = dynamic_cast<Options*>(&options);
  if (own != nullptr) own->betas({value, std::get<1>(own->betas())});
  return own != nullptr;
}

template <class Options>
bool set_own_momentum(torch::optim::OptimizerOptions& options, double value) {
  auto* own = dynamic_cast<Options*>(&options);
  if (own != nullptr) own->momentum(value);
  return own != nullptr;
}

void set_momentum(torch::optim::OptimizerOptions& options, double value) {
  using namespace torch::optim;
  const bool done = set_own_momentum<SGDOptions>(options, value) || set_own_momentum<RMSpropOptions>(options, value) ||
                    set_first_beta<AdamOptions>(options, value) || set_first_beta<AdamWOptions>(options, value);
  if (!done) {
    throw ConfigError(
        "[ScheduledLR] the schedule cycles the momentum, which the optimizer does not have; set cycle_momentum to "
        "false");
  }
}

PlateauOptions checked(const PlateauOptions& options) {
  if (!(options.factor < 1)) {
    throw ConfigError(fmt::format("[PlateauLR] factor must be below 1, got {}", options.factor));
  }
  if (options.patience < 0) {
    throw ConfigError(fmt::format("[PlateauLR] patience must not be negative, got {}", options.patience));
  }
  if (options.cooldown < 0) {
    throw ConfigError(fmt::format("[PlateauLR] cooldown must not be negative, got {}", options.cooldown));
  }
  return options;
}

double worst(PlateauOptions::Mode mode) {
  const double infinity = std::numeric_limits<double>::infinity();
  return mode == PlateauOptions::Mode::min ? infinity : -infinity;
}

}  // namespace

LRScheduler::LRScheduler(torch::optim::Optimizer& optimizer) : optimizer_(&optimizer), base_lrs_(lrs()) {}

std::vector<double> LRScheduler::lrs() const {
  std::vector<double> result;
  for (const auto& group : std::as_const(*optimizer_).param_groups()) result.push_back(group.options().get_lr());
  return result;
}

const std::vector<double>& LRScheduler::base_lrs() {
  const auto& groups = optimizer_->param_groups();
  for (std::size_t i = base_lrs_.size(); i < groups.size(); ++i) base_lrs_.push_back(groups[i].options().get_lr());
  return base_lrs_;
}

Config LRScheduler::state_dict() const {
  Config state;
  state.set("step_count", step_count_);
  state.set("base_lrs", base_lrs_);
  state.set("lrs", lrs());
  return state;
}

void LRScheduler::load_state_dict(const Config& state) {
  const auto step_count = required<std::int64_t>(state, "step_count");
  auto base_lrs = required<std::vector<double>>(state, "base_lrs");
  const auto lrs = required<std::vector<double>>(state, "lrs");
  const std::size_t groups = optimizer_->param_groups().size();
  if (lrs.size() != groups || base_lrs.size() > groups) {
    throw DataError(
        fmt::format("[LRScheduler] the state is of {} parameter groups, the optimizer has {}", lrs.size(), groups));
  }
  step_count_ = step_count;
  base_lrs_ = std::move(base_lrs);
  for (std::size_t i = 0; i < groups; ++i) set_lr(i, lrs[i]);
}

ScheduledLR::ScheduledLR(torch::optim::Optimizer& optimizer, Schedule schedule)
    : LRScheduler(optimizer), schedule_(std::move(schedule)) {
  apply();
}

void ScheduledLR::advance(std::optional<double>) {
  next_step();
  apply();
}

void ScheduledLR::apply() {
  const std::vector<double>& bases = base_lrs();
  for (std::size_t i = 0; i < bases.size(); ++i) {
    set_lr(i, schedule_.lr(bases[i], step_count()));
    if (schedule_.momentum) {
      set_momentum(optimizer().param_groups()[i].options(), schedule_.momentum(step_count()));
    }
  }
}

void ScheduledLR::load_state_dict(const Config& state) {
  LRScheduler::load_state_dict(state);
  apply();
}

PlateauLR::PlateauLR(torch::optim::Optimizer& optimizer, const PlateauOptions& options)
    : LRScheduler(optimizer), options_(checked(options)), best_(worst(options.mode)) {
  if (options_.warmup_steps > 0) warm_up(0);
}

void PlateauLR::warm_up(std::int64_t step) {
  const Schedule rise = linear_lr(options_.warmup_steps, options_.warmup_start_factor);
  const std::vector<double>& bases = base_lrs();
  for (std::size_t i = 0; i < bases.size(); ++i) set_lr(i, rise.lr(bases[i], step));
}

void PlateauLR::advance(std::optional<double> metric) {
  if (!metric) throw ConfigError("[PlateauLR] step needs the metric to watch: call step(metric)");
  const std::int64_t step = next_step();
  if (step <= options_.warmup_steps) {
    warm_up(step);
  } else {
    watch(*metric);
  }
}

void PlateauLR::watch(double metric) {
  if (is_better(metric)) {
    best_ = metric;
    bad_steps_ = 0;
  } else {
    ++bad_steps_;
  }
  if (cooldown_left_ > 0) {
    --cooldown_left_;
    bad_steps_ = 0;
  }
  if (bad_steps_ > options_.patience) {
    reduce();
    cooldown_left_ = options_.cooldown;
    bad_steps_ = 0;
  }
}

void PlateauLR::reduce() {
  const std::vector<double> now = lrs();
  for (std::size_t i = 0; i < now.size(); ++i) {
    const double lower = std::max(now[i] * options_.factor, options_.min_lr);
    if (now[i] - lower > options_.eps) set_lr(i, lower);
  }
}

bool PlateauLR::is_better(double metric) const {
  const bool relative = options_.threshold_mode == PlateauOptions::Threshold::relative;
  if (options_.mode == PlateauOptions::Mode::min) {
    return metric < (relative ? best_ * (1 - options_.threshold) : best_ - options_.threshold);
  }
  return metric > (relative ? best_ * (1 + options_.threshold) : best_ + options_.threshold);
}

Config PlateauLR::state_dict() const {
  Config state = LRScheduler::state_dict();
  if (std::isfinite(best_)) state.set("best", best_);
  state.set("bad_steps", bad_steps_);
  state.set("cooldown_left", cooldown_left_);
  return state;
}

void PlateauLR::load_state_dict(const Config& state) {
  const auto bad_steps = required<std::int64_t>(state, "bad_steps");
  const auto cooldown_left = required<std::int64_t>(state, "cooldown_left");
  LRScheduler::load_state_dict(state);
  best_ = state.get<double>("best").value_or(worst(options_.mode));
  bad_steps_ = bad_steps;
  cooldown_left_ = cooldown_left;
}

}  // namespace mmtrain::optim
