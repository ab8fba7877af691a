#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/io/state_dict.h"

namespace mmtrain::optim {

/// Settings of `Ema`; names and rule are those of timm's `ModelEmaV3`.
struct EmaOptions {
  double decay = 0.9999;
  double min_decay = 0.0;              ///< with `warmup`: the decay is never lower
  std::int64_t update_after_step = 0;  ///< updates in which the average is just the weights
  bool warmup = false;                 ///< the decay rises: 1 - (1 + update / warmup_gamma) ^ -warmup_power
  double warmup_gamma = 1.0;
  double warmup_power = 2.0 / 3;  ///< 2/3 suits a million updates and more, 3/4 fewer
};

/// Exponential moving average of a module's weights, which often generalizes better than the weights themselves:
/// `average = decay * average + (1 - decay) * weights` after each optimizer step. Parameters are averaged, buffers
/// (statistics of batch norm) copied.
///
/// Keeps handles of the module's own tensors, so the module may move to another memory layout but must not get
/// parameters registered anew.
class MMTRAIN_API Ema {
 public:
  /// Begins with a copy of the weights. Throws `ConfigError` for settings out of range.
  explicit Ema(const torch::nn::Module& module, const EmaOptions& options = {});

  /// Takes the weights after a step in. `skipped`: float32 scalar on any device, 1 if a gradient scaler left the step
  /// out (`GradScaler::found_inf`): the average then stays, and nothing waits for the device.
  void update(const torch::Tensor& skipped = {});

  /// The decay of update number `update`, counted from 1.
  double decay_at(std::int64_t update) const;
  /// Updates so far, skipped ones included.
  std::int64_t updates() const { return updates_; }

  /// The average under the names of the module's `state_dict`, to be saved or loaded into a module. Shares memory.
  const StateDict& state_dict() const { return average_; }
  /// Puts an average back. Throws `DataError` for missing, unexpected and misshaped names and changes nothing then.
  void load_state_dict(const StateDict& state, std::int64_t updates);

 private:
  friend class EmaScope;

  EmaOptions options_;
  StateDict module_, average_;  // same names in same order
  std::vector<torch::Tensor> module_parameters_, average_parameters_, module_buffers_, average_buffers_;
  std::int64_t updates_ = 0;
};

/// Gives the module the averaged weights as long as it lives, for evaluation:
///
///     { EmaScope scope(ema); evaluate(module); }
///
/// Values are exchanged, not tensors, so optimizers, replicas and captured graphs notice. The module must not be
/// trained meanwhile. Costs a copy of the weights while it lives.
class MMTRAIN_API EmaScope {
 public:
  explicit EmaScope(Ema& ema);
  ~EmaScope();
  EmaScope(const EmaScope&) = delete;
  EmaScope& operator=(const EmaScope&) = delete;

 private:
  std::vector<torch::Tensor> module_, weights_;
};

}  // namespace mmtrain::optim
