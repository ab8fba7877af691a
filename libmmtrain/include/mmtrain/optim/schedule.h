#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "mmtrain/core/export.h"

/// Learning rates as pure functions of the step: what a step is (an optimizer step, an epoch) is the caller's choice.
/// The values are those of the classes of `torch.optim.lr_scheduler` named below. `ScheduledLR` applies them.
namespace mmtrain::optim {

/// What a group's settings are at a step; steps count from 0.
struct Schedule {
  /// Learning rate, from the one that the group had in the beginning.
  std::function<double(double base_lr, std::int64_t step)> lr;
  /// Momentum (the first beta of Adam); empty where the schedule leaves it alone.
  std::function<double(std::int64_t step)> momentum = {};
};

/// The learning rate times `factor`, always.
MMTRAIN_API Schedule constant_lr(double factor = 1.0);

/// Times `gamma` after every `step_size` steps: `StepLR`.
MMTRAIN_API Schedule step_lr(std::int64_t step_size, double gamma = 0.1);

/// Times `gamma` at each of `milestones`, in any order; one that is given twice counts twice: `MultiStepLR`.
MMTRAIN_API Schedule multistep_lr(std::vector<std::int64_t> milestones, double gamma = 0.1);

/// Times `gamma` after every step: `ExponentialLR`.
MMTRAIN_API Schedule exponential_lr(double gamma);

/// Half a cosine from the base learning rate to `eta_min` in `t_max` steps, and back if it goes on:
/// `CosineAnnealingLR` (SGDR without restarts, arXiv:1608.03983).
MMTRAIN_API Schedule cosine_lr(std::int64_t t_max, double eta_min = 0.0);

/// The same, beginning anew after `t_0` steps and then after spans each `t_mult` times as long:
/// `CosineAnnealingWarmRestarts`.
MMTRAIN_API Schedule cosine_restarts_lr(std::int64_t t_0, std::int64_t t_mult = 1, double eta_min = 0.0);

/// A straight line from `start_factor` to `end_factor` times the base in `total` steps, level from then on:
/// `LinearLR`, the usual warm-up.
MMTRAIN_API Schedule linear_lr(std::int64_t total, double start_factor = 1.0 / 3, double end_factor = 1.0);

/// The base times `(1 - step / total) ^ power`, 0 from `total` on: `PolynomialLR`.
MMTRAIN_API Schedule polynomial_lr(std::int64_t total, double power = 1.0);

/// Settings of `one_cycle_lr`; the defaults are Python's.
struct OneCycleOptions {
  std::int64_t total_steps = 0;
  double pct_start = 0.3;      ///< part of the steps in which the learning rate rises
  bool cosine = true;          ///< cosine between the turning points; false: straight lines
  bool cycle_momentum = true;  ///< momentum falls from `max_momentum` to `base_momentum` while the rate rises, and back
  double base_momentum = 0.85;
  double max_momentum = 0.95;
  double div_factor = 25.0;       ///< the rate begins at its peak over this
  double final_div_factor = 1e4;  ///< and ends at its beginning over this
  bool three_phase = false;       ///< falls to the beginning as it rose, and to the end in a phase of its own
};

/// `OneCycleLR` (arXiv:1708.07120) whose peak is each group's base learning rate, Python's `max_lr`. After the last
/// step (`total_steps - 1`) the final values stay, where Python's class throws.
MMTRAIN_API Schedule one_cycle_lr(const OneCycleOptions& options);

/// One schedule after the other: `milestones[i]` is the step at which `schedules[i + 1]` begins with its own step 0:
/// `SequentialLR`. Where a part cycles the momentum and the next does not, it keeps its last value.
MMTRAIN_API Schedule sequential_lr(std::vector<Schedule> schedules, std::vector<std::int64_t> milestones);

/// `linear_lr(steps, start_factor)`, then `after` from its step 0.
MMTRAIN_API Schedule warmup_lr(std::int64_t steps, Schedule after, double start_factor = 1.0 / 3);

}  // namespace mmtrain::optim
