#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "mmtrain/amp/scaled_optimizer.h"
#include "mmtrain/core/config.h"
#include "mmtrain/core/export.h"

namespace mmtrain::amp {

/// Defaults and meaning are those of `torch.amp.GradScaler`.
struct GradScalerOptions {
  double init_scale = 65536.0;
  double growth_factor = 2.0;   ///< the scale is multiplied by it after `growth_interval` steps without overflow
  double backoff_factor = 0.5;  ///< the scale is multiplied by it after a step with overflow
  std::int64_t growth_interval = 2000;
  bool enabled = true;  ///< false: everything passes through, so one training loop serves all precisions
};

/// Keeps the small gradients of float16 from vanishing: the loss is multiplied by a scale before backward, the
/// gradients are divided by it before the step, and a step whose gradients overflowed is left out and lowers the scale.
/// The same as `torch.amp.GradScaler`, number for number:
///
///     scaler.scale(loss).backward();
///     scaler.unscale_(optimizer);   // only if the gradients are looked at or clipped before the step
///     scaler.step(optimizer);
///     scaler.update();
///
/// With a `ScaledOptimizer` none of this waits for the device. Several optimizers may share a scaler: each has its own
/// `step` and `found_inf`, one `update` at the end serves all. Calls out of order throw `ConfigError`. One thread.
class MMTRAIN_API GradScaler {
 public:
  explicit GradScaler(const GradScalerOptions& options = {});

  /// `output` times the scale, on its device. The first call fixes the device on which the scale lives.
  at::Tensor scale(const at::Tensor& output);
  std::vector<at::Tensor> scale(const std::vector<at::Tensor>& outputs);

  /// Divides the gradients of the optimizer's parameters by the scale and notes whether one of them is infinite or NaN.
  /// Once an optimizer and step. Throws `ConfigError` for float16 gradients: such parameters need no autocast.
  void unscale_(torch::optim::Optimizer& optimizer);

  /// Unscales unless that has been done, and steps unless a gradient is infinite or NaN. Waits for the device if
  /// `optimizer` is no `ScaledOptimizer`.
  void step(torch::optim::Optimizer& optimizer);

  /// Adjusts the scale after the steps of all optimizers, or sets it.
  void update();
  void update(double new_scale);
  void update(const at::Tensor& new_scale);

  /// Float32 scalar on the device of the scale: 1 if `optimizer`'s latest gradients overflowed and its step was left
  /// out, else 0. Known from `unscale_` or `step` until the optimizer's next one. Undefined before, and if disabled.
  at::Tensor found_inf(const torch::optim::Optimizer& optimizer) const;
  /// Whether a step before the latest `update()` was left out. Waits for the device, so ask when a log line is due.
  bool last_step_skipped() const;

  /// The scale; 1 if disabled. Waits for the device.
  double get_scale() const;
  /// The scale as float32 scalar on its device; undefined before the first `scale` and if disabled.
  const at::Tensor& scale_tensor() const { return scale_; }
  bool is_enabled() const { return options_.enabled; }
  double growth_factor() const { return options_.growth_factor; }
  double backoff_factor() const { return options_.backoff_factor; }
  std::int64_t growth_interval() const { return options_.growth_interval; }

  /// Python's keys: scale, growth_factor, backoff_factor, growth_interval, _growth_tracker. Empty if disabled. Waits
  /// for the device; ask between `update` and the next `scale`.
  Config state_dict() const;
  /// Takes over a state of this class or of Python's. Does nothing if disabled. Throws `DataError` naming a missing
  /// key.
  void load_state_dict(const Config& state);

 private:
  enum class Stage { ready, unscaled, stepped };
  struct Progress {
    Stage stage = Stage::ready;
    at::Tensor found_inf;
  };

  void require_scale(const char* caller) const;
  Progress& progress(const torch::optim::Optimizer& optimizer);
  at::Tensor unscale_gradients(torch::optim::Optimizer& optimizer, const at::Tensor& inv_scale, bool allow_half) const;
  void finish_iteration();

  GradScalerOptions options_;
  double initial_scale_;
  std::int64_t initial_growth_tracker_ = 0;
  at::Tensor scale_, growth_tracker_;  // made on the first scale(), when the device is known
  // Of this iteration, and what the one before left for found_inf().
  std::unordered_map<const torch::optim::Optimizer*, Progress> current_, previous_;
  at::Tensor last_found_inf_;
};

}  // namespace mmtrain::amp
