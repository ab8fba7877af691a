#pragma once

#include <torch/optim/optimizer.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "mmtrain/core/config.h"
#include "mmtrain/core/export.h"
#include "mmtrain/optim/schedule.h"

namespace mmtrain::optim {

/// Sets the learning rates of all groups of an optimizer, of LibTorch's or ours, as training goes on. Call `step()`
/// after each optimizer step or after each epoch, as the schedule was meant; a step that a gradient scaler left out
/// counts too. The optimizer must outlive the scheduler. A group that is added later takes part with the learning rate
/// it then has.
class MMTRAIN_API LRScheduler {
 public:
  virtual ~LRScheduler() = default;
  LRScheduler(const LRScheduler&) = delete;
  LRScheduler& operator=(const LRScheduler&) = delete;

  /// Goes on to the next step. Throws `ConfigError` from a scheduler that needs a metric.
  void step() { advance(std::nullopt); }
  /// The same; `metric` is what a plateau is looked for in, other schedulers ignore it.
  void step(double metric) { advance(metric); }

  /// Whether it changes more than learning rates.
  virtual bool changes_momentum() const { return false; }

  /// How many steps were made.
  std::int64_t step_count() const { return step_count_; }
  /// Learning rate of each group now.
  std::vector<double> lrs() const;

  /// What has to be saved, in simple values; `Config::dump` makes JSON of it.
  virtual Config state_dict() const;
  /// Puts a state back and sets the learning rates. Throws `DataError` if it is incomplete or of an optimizer with
  /// another number of groups.
  virtual void load_state_dict(const Config& state);

 protected:
  explicit LRScheduler(torch::optim::Optimizer& optimizer);

  /// Makes one step: calls `next_step()` and sets the learning rates.
  virtual void advance(std::optional<double> metric) = 0;
  /// Counts, and returns the number of the step that begins.
  std::int64_t next_step() { return ++step_count_; }
  /// Learning rate of each group when the scheduler was made.
  const std::vector<double>& base_lrs();
  torch::optim::Optimizer& optimizer() const { return *optimizer_; }
  void set_lr(std::size_t group, double lr) { optimizer_->param_groups()[group].options().set_lr(lr); }

 private:
  torch::optim::Optimizer* optimizer_;
  std::vector<double> base_lrs_;
  std::int64_t step_count_ = 0;
};

/// Follows a `Schedule`; sets the values of step 0 when it is made.
class MMTRAIN_API ScheduledLR : public LRScheduler {
 public:
  /// Throws `ConfigError` if the schedule cycles the momentum and a group has none.
  ScheduledLR(torch::optim::Optimizer& optimizer, Schedule schedule);
  bool changes_momentum() const override { return schedule_.momentum != nullptr; }
  void load_state_dict(const Config& state) override;

 protected:
  void advance(std::optional<double> metric) override;

 private:
  void apply();

  Schedule schedule_;
};

/// Settings of `PlateauLR`; the defaults are Python's.
struct PlateauOptions {
  enum class Mode { min, max };
  enum class Threshold { relative, absolute };

  Mode mode = Mode::min;  ///< whether a lower or a higher metric is better
  double factor = 0.1;    ///< the learning rate is multiplied by it
  int patience = 10;      ///< steps without improvement that are let pass
  double threshold = 1e-4;
  Threshold threshold_mode = Threshold::relative;  ///< what counts as better: by a part of the best, or by an amount
  int cooldown = 0;                                ///< steps after a reduction in which nothing is counted
  double min_lr = 0.0;
  double eps = 1e-8;  ///< smaller reductions are not made
  /// Steps in which the learning rate rises in a line from `warmup_start_factor` times the base, and the metric is
  /// ignored.
  std::int64_t warmup_steps = 0;
  double warmup_start_factor = 1.0 / 3;
};

/// Lowers the learning rates when a metric has stopped getting better: `ReduceLROnPlateau`. A NaN is never better.
class MMTRAIN_API PlateauLR : public LRScheduler {
 public:
  /// Throws `ConfigError` for settings out of range.
  PlateauLR(torch::optim::Optimizer& optimizer, const PlateauOptions& options = {});

  Config state_dict() const override;
  void load_state_dict(const Config& state) override;
  /// The best metric so far; infinite before the first.
  double best() const { return best_; }

 protected:
  void advance(std::optional<double> metric) override;

 private:
  void warm_up(std::int64_t step);
  void watch(double metric);
  void reduce();
  bool is_better(double metric) const;

  PlateauOptions options_;
  double best_;
  std::int64_t bad_steps_ = 0, cooldown_left_ = 0;
};

}  // namespace mmtrain::optim
