#include "mmtrain/optim/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <numbers>
#include <utility>

#include "mmtrain/core/error.h"

namespace mmtrain::optim {
namespace {

void require(bool valid, const char* rule, double value) {
  if (!valid) throw ConfigError(fmt::format("[schedule] {}, got {}", rule, value));
}

double half_cosine(double from, double to, double part) {
  return to + (from - to) * (1 + std::cos(std::numbers::pi * part)) / 2;
}

double line(double from, double to, double part) { return from + (to - from) * part; }

// The stretches of a one-cycle policy. Learning rates are factors of the peak.
struct Phase {
  double end_step;
  double lr_from, lr_to;
  double momentum_from, momentum_to;
};

class OneCycle {
 public:
  explicit OneCycle(const OneCycleOptions& options) : cosine_(options.cosine) {
    const auto total = static_cast<double>(options.total_steps);
    const double low = options.base_momentum, high = options.max_momentum;
    const double initial = 1 / options.div_factor, final = initial / options.final_div_factor;
    phases_.push_back({options.pct_start * total - 1, initial, 1, high, low});
    if (options.three_phase) {
      phases_.push_back({2 * options.pct_start * total - 2, 1, initial, low, high});
      phases_.push_back({total - 1, initial, final, high, high});
    } else {
      phases_.push_back({total - 1, 1, final, low, high});
    }
  }

  double lr(double peak, std::int64_t step) const {
    return at(step, [&](const Phase& phase) { return std::pair(peak * phase.lr_from, peak * phase.lr_to); });
  }
  double momentum(std::int64_t step) const {
    return at(step, [](const Phase& phase) { return std::pair(phase.momentum_from, phase.momentum_to); });
  }

 private:
  template <class Ends>
  double at(std::int64_t step, const Ends& ends) const {
    const double last = phases_.back().end_step;
    const double now = std::min(static_cast<double>(step), last);
    const auto phase = std::find_if(phases_.begin(), phases_.end() - 1,
                                    [&](const Phase& candidate) { return now <= candidate.end_step; });
    const double start = phase == phases_.begin() ? 0 : (phase - 1)->end_step;
    const double length = phase->end_step - start;
    const double part = length > 0 ? (now - start) / length : 1;
    const auto [from, to] = ends(*phase);
    return cosine_ ? half_cosine(from, to, part) : line(from, to, part);
  }

  bool cosine_;
  std::vector<Phase> phases_;
};

class Sequence {
 public:
  Sequence(std::vector<Schedule> schedules, std::vector<std::int64_t> milestones)
      : schedules_(std::move(schedules)), milestones_(std::move(milestones)) {}

  double lr(double base_lr, std::int64_t step) const {
    const std::size_t part = part_at(step);
    return schedules_[part].lr(base_lr, step - start_of(part));
  }

  // The latest part that has a say; before the first one that has, its beginning.
  double momentum(std::int64_t step) const {
    for (std::size_t part = part_at(step) + 1; part-- > 0;) {
      if (!schedules_[part].momentum) continue;
      const std::int64_t end = part < milestones_.size() ? milestones_[part] - 1 : step;
      return schedules_[part].momentum(std::min(step, end) - start_of(part));
    }
    const auto first = std::find_if(schedules_.begin(), schedules_.end(),
                                    [](const Schedule& schedule) { return bool(schedule.momentum); });
    return first->momentum(0);
  }

  bool cycles_momentum() const {
    return std::any_of(schedules_.begin(), schedules_.end(),
                       [](const Schedule& schedule) { return bool(schedule.momentum); });
  }

 private:
  std::size_t part_at(std::int64_t step) const {
    return static_cast<std::size_t>(std::upper_bound(milestones_.begin(), milestones_.end(), step) -
                                    milestones_.begin());
  }
  std::int64_t start_of(std::size_t part) const { return part == 0 ? 0 : milestones_[part - 1]; }

  std::vector<Schedule> schedules_;
  std::vector<std::int64_t> milestones_;
};

}  // namespace

Schedule constant_lr(double factor) {
  return {[=](double base_lr, std::int64_t) { return base_lr * factor; }};
}

Schedule step_lr(std::int64_t step_size, double gamma) {
  require(step_size > 0, "step_lr: step_size must be positive", static_cast<double>(step_size));
  return {[=](double base_lr, std::int64_t step) {
    return base_lr * std::pow(gamma, static_cast<double>(step / step_size));
  }};
}

Schedule multistep_lr(std::vector<std::int64_t> milestones, double gamma) {
  std::sort(milestones.begin(), milestones.end());
  return {[=, milestones = std::move(milestones)](double base_lr, std::int64_t step) {
    const auto passed = std::upper_bound(milestones.begin(), milestones.end(), step) - milestones.begin();
    return base_lr * std::pow(gamma, static_cast<double>(passed));
  }};
}

Schedule exponential_lr(double gamma) {
  return {[=](double base_lr, std::int64_t step) { return base_lr * std::pow(gamma, static_cast<double>(step)); }};
}

Schedule cosine_lr(std::int64_t t_max, double eta_min) {
  require(t_max > 0, "cosine_lr: t_max must be positive", static_cast<double>(t_max));
  return {[=](double base_lr, std::int64_t step) {
    return half_cosine(base_lr, eta_min, static_cast<double>(step) / static_cast<double>(t_max));
  }};
}

Schedule cosine_restarts_lr(std::int64_t t_0, std::int64_t t_mult, double eta_min) {
  require(t_0 > 0, "cosine_restarts_lr: t_0 must be positive", static_cast<double>(t_0));
  require(t_mult > 0, "cosine_restarts_lr: t_mult must be positive", static_cast<double>(t_mult));
  return {[=](double base_lr, std::int64_t step) {
    std::int64_t since = step, span = t_0;
    if (t_mult == 1) since %= t_0;
    while (since >= span) {
      since -= span;
      span *= t_mult;
    }
    return half_cosine(base_lr, eta_min, static_cast<double>(since) / static_cast<double>(span));
  }};
}

Schedule linear_lr(std::int64_t total, double start_factor, double end_factor) {
  require(total > 0, "linear_lr: total must be positive", static_cast<double>(total));
  require(start_factor > 0 && start_factor <= 1, "linear_lr: start_factor must lie in (0, 1]", start_factor);
  require(end_factor >= 0 && end_factor <= 1, "linear_lr: end_factor must lie in [0, 1]", end_factor);
  return {[=](double base_lr, std::int64_t step) {
    return base_lr *
           line(start_factor, end_factor, static_cast<double>(std::min(step, total)) / static_cast<double>(total));
  }};
}

Schedule polynomial_lr(std::int64_t total, double power) {
  require(total > 0, "polynomial_lr: total must be positive", static_cast<double>(total));
  return {[=](double base_lr, std::int64_t step) {
    return base_lr * std::pow(1 - static_cast<double>(std::min(step, total)) / static_cast<double>(total), power);
  }};
}

Schedule one_cycle_lr(const OneCycleOptions& options) {
  require(options.total_steps > 0, "one_cycle_lr: total_steps must be positive",
          static_cast<double>(options.total_steps));
  const double rising = options.three_phase ? 0.5 : 1.0;
  require(options.pct_start >= 0 && options.pct_start <= rising,
          "one_cycle_lr: pct_start must lie in [0, 1], with three phases in [0, 0.5]", options.pct_start);
  require(options.div_factor > 0, "one_cycle_lr: div_factor must be positive", options.div_factor);
  require(options.final_div_factor > 0, "one_cycle_lr: final_div_factor must be positive", options.final_div_factor);
  const auto cycle = std::make_shared<const OneCycle>(options);
  Schedule schedule{[=](double base_lr, std::int64_t step) { return cycle->lr(base_lr, step); }};
  if (options.cycle_momentum) schedule.momentum = [=](std::int64_t step) { return cycle->momentum(step); };
  return schedule;
}

Schedule sequential_lr(std::vector<Schedule> schedules, std::vector<std::int64_t> milestones) {
  if (schedules.size() != milestones.size() + 1) {
    throw ConfigError(fmt::format("[schedule] sequential_lr: {} schedules need {} milestones, got {}", schedules.size(),
                                  std::max<std::size_t>(schedules.size(), 1) - 1, milestones.size()));
  }
  if (!std::is_sorted(milestones.begin(), milestones.end())) {
    throw ConfigError("[schedule] sequential_lr: milestones must rise");
  }
  const auto sequence = std::make_shared<const Sequence>(std::move(schedules), std::move(milestones));
  Schedule schedule{[=](double base_lr, std::int64_t step) { return sequence->lr(base_lr, step); }};
  if (sequence->cycles_momentum()) {
    schedule.momentum = [=](std::int64_t step) { return sequence->momentum(step); };
  }
  return schedule;
}

Schedule warmup_lr(std::int64_t steps, Schedule after, double start_factor) {
  return sequential_lr({linear_lr(steps, start_factor), std::move(after)}, {steps});
}

}  // namespace mmtrain::optim
