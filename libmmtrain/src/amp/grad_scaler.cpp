#include "mmtrain/amp/grad_scaler.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <optional>
#include <utility>

#include "amp/tensor_lists.h"
#include "mmtrain/core/error.h"

namespace mmtrain::amp {
namespace {

GradScalerOptions checked(const GradScalerOptions& options) {
  if (!options.enabled) return options;
  if (!(options.init_scale > 0)) {
    throw ConfigError(fmt::format("[GradScaler] init_scale must be positive, got {}", options.init_scale));
  }
  if (!(options.growth_factor > 1)) {
    throw ConfigError(fmt::format("[GradScaler] growth_factor must be above 1, got {}", options.growth_factor));
  }
  if (!(options.backoff_factor < 1)) {
    throw ConfigError(fmt::format("[GradScaler] backoff_factor must be below 1, got {}", options.backoff_factor));
  }
  if (options.growth_interval <= 0) {
    throw ConfigError(fmt::format("[GradScaler] growth_interval must be positive, got {}", options.growth_interval));
  }
  return options;
}

at::TensorOptions float_on(const at::Device& device) { return at::TensorOptions().dtype(at::kFloat).device(device); }

// The dense numbers of a gradient. Those of a sparse one that may repeat indices are added up first where that can
// overflow: the sum is what has to be checked.
at::Tensor dense_values(at::Tensor& gradient) {
  if (!gradient.is_sparse()) return gradient;
  if (gradient.scalar_type() == at::kHalf) gradient = gradient.coalesce();
  return gradient._values();
}

std::vector<at::Tensor> gradients_of(torch::optim::Optimizer& optimizer, bool allow_half) {
  std::vector<at::Tensor> gradients;
  for (auto& group : optimizer.param_groups()) {
    for (at::Tensor& parameter : group.params()) {
      at::Tensor& gradient = parameter.mutable_grad();
      if (!gradient.defined()) continue;
      if (!allow_half && gradient.scalar_type() == at::kHalf) {
        throw ConfigError(
            "[GradScaler] gradients of float16 parameters cannot be unscaled in float16; keep the parameters in "
            "float32 "
            "and use Autocast");
      }
      gradients.push_back(dense_values(gradient));
    }
  }
  return gradients;
}

double required(const Config& state, const char* key) {
  const std::optional<double> value = state.get<double>(key);
  if (!value) throw DataError(fmt::format("[GradScaler] the state has no '{}': it is not of an enabled scaler", key));
  return *value;
}

}  // namespace

ScaledOptimizer::~ScaledOptimizer() = default;

GradScaler::GradScaler(const GradScalerOptions& options)
    : options_(checked(options)), initial_scale_(options.init_scale) {}

void GradScaler::require_scale(const char* caller) const {
  if (!scale_.defined()) {
    throw ConfigError(fmt::format("[GradScaler] {} needs a scale: call scale(loss) and backward first", caller));
  }
}

GradScaler::Progress& GradScaler::progress(const torch::optim::Optimizer& optimizer) { return current_[&optimizer]; }

at::Tensor GradScaler::scale(const at::Tensor& output) {
  if (!options_.enabled) return output;
  if (!scale_.defined()) {
    scale_ = at::full({}, initial_scale_, float_on(output.device()));
    growth_tracker_ = at::full({}, initial_growth_tracker_, float_on(output.device()).dtype(at::kInt));
  }
  return output * scale_.to(output.device(), /*non_blocking=*/true);
}

std::vector<at::Tensor> GradScaler::scale(const std::vector<at::Tensor>& outputs) {
  std::vector<at::Tensor> scaled;
  scaled.reserve(outputs.size());
  for (const at::Tensor& output : outputs) scaled.push_back(scale(output));
  return scaled;
}

at::Tensor GradScaler::unscale_gradients(torch::optim::Optimizer& optimizer, const at::Tensor& inv_scale,
                                         bool allow_half) const {
  const at::NoGradGuard no_grad;
  // One flag for each device that holds gradients; they meet on the device of the scale.
  std::unordered_map<at::Device, at::Tensor> flags;
  for (const auto& gradients : detail::by_device_and_dtype(gradients_of(optimizer, allow_half))) {
    const at::Device device = gradients.front().device();
    at::Tensor& flag = flags[device];
    if (!flag.defined()) flag = at::zeros({}, float_on(device));
    at::_amp_foreach_non_finite_check_and_unscale_(gradients, flag, inv_scale.to(device, /*non_blocking=*/true));
  }
  if (flags.empty()) {
    throw ConfigError("[GradScaler] no parameter of the optimizer has a gradient: call scale(loss).backward() first");
  }
  at::Tensor found;
  for (const auto& [device, flag] : flags) {
    const at::Tensor here = flag.to(scale_.device(), /*non_blocking=*/true);
    // Not their sum: kernels compare the flag with 1.
    found = found.defined() ? at::maximum(found, here) : here;
  }
  return found;
}

void GradScaler::unscale_(torch::optim::Optimizer& optimizer) {
  if (!options_.enabled) return;
  require_scale("unscale_");
  Progress& entry = progress(optimizer);
  if (entry.stage == Stage::unscaled) {
    throw ConfigError("[GradScaler] unscale_ was called twice for one optimizer since the last update()");
  }
  if (entry.stage == Stage::stepped) throw ConfigError("[GradScaler] unscale_ must come before step");
  // A float32 division is not exact on every device.
  const at::Tensor inv_scale = scale_.to(at::kDouble).reciprocal().to(at::kFloat);
  entry.found_inf = unscale_gradients(optimizer, inv_scale, /*allow_half=*/false);
  entry.stage = Stage::unscaled;
}

void GradScaler::step(torch::optim::Optimizer& optimizer) {
  if (!options_.enabled) {
    optimizer.step();
    return;
  }
  require_scale("step");
  Progress& entry = progress(optimizer);
  if (entry.stage == Stage::stepped) {
    throw ConfigError("[GradScaler] step was called twice for one optimizer since the last update()");
  }
  if (auto* scaled = dynamic_cast<ScaledOptimizer*>(&optimizer)) {
    StepScale scale;
    if (entry.stage == Stage::ready) {
      entry.found_inf = unscale_gradients(optimizer, at::ones({}, float_on(scale_.device())), /*allow_half=*/true);
      scale.grad_scale = scale_;
    }
    scale.found_inf = entry.found_inf;
    scaled->scaled_step(scale);
  } else {
    if (entry.stage == Stage::ready) unscale_(optimizer);
    if (entry.found_inf.item<float>() == 0) optimizer.step();
  }
  entry.stage = Stage::stepped;
}

void GradScaler::finish_iteration() {
  previous_ = std::move(current_);
  current_.clear();
}

void GradScaler::update() {
  if (!options_.enabled) return;
  require_scale("update");
  at::Tensor found;
  for (const auto& [optimizer, entry] : current_) {
    if (!entry.found_inf.defined()) continue;
    found = found.defined() ? at::maximum(found, entry.found_inf) : entry.found_inf;
  }
  if (!found.defined()) throw ConfigError("[GradScaler] update needs a step of an optimizer since the last update()");
  at::_amp_update_scale_(scale_, growth_tracker_, found, options_.growth_factor, options_.backoff_factor,
                         options_.growth_interval);
  last_found_inf_ = found;
  finish_iteration();
}

void GradScaler::update(double new_scale) {
  if (!options_.enabled) return;
  require_scale("update");
  scale_.fill_(new_scale);
  finish_iteration();
}

void GradScaler::update(const at::Tensor& new_scale) {
  if (!options_.enabled) return;
  require_scale("update");
  if (new_scale.numel() != 1 || new_scale.requires_grad()) {
    throw ConfigError("[GradScaler] update takes a scale of one element that requires no gradient");
  }
  scale_.copy_(new_scale.reshape({}), /*non_blocking=*/true);
  finish_iteration();
}

at::Tensor GradScaler::found_inf(const torch::optim::Optimizer& optimizer) const {
  for (const auto* iteration : {&current_, &previous_}) {
    const auto entry = iteration->find(&optimizer);
    if (entry != iteration->end()) return entry->second.found_inf;
  }
  return {};
}

bool GradScaler::last_step_skipped() const { return last_found_inf_.defined() && last_found_inf_.item<float>() != 0; }

double GradScaler::get_scale() const {
  if (!options_.enabled) return 1.0;
  return scale_.defined() ? scale_.item<float>() : initial_scale_;
}

Config GradScaler::state_dict() const {
  Config state;
  if (!options_.enabled) return state;
  state.set("scale", get_scale());
  state.set("growth_factor", options_.growth_factor);
  state.set("backoff_factor", options_.backoff_factor);
  state.set("growth_interval", options_.growth_interval);
  state.set("_growth_tracker",
            growth_tracker_.defined() ? std::int64_t{growth_tracker_.item<std::int32_t>()} : initial_growth_tracker_);
  return state;
}

void GradScaler::load_state_dict(const Config& state) {
  if (!options_.enabled) return;
  const double scale = required(state, "scale");
  GradScalerOptions options = options_;
  options.growth_factor = required(state, "growth_factor");
  options.backoff_factor = required(state, "backoff_factor");
  options.growth_interval = static_cast<std::int64_t>(required(state, "growth_interval"));
  const auto tracker = static_cast<std::int64_t>(required(state, "_growth_tracker"));
  options_ = checked(options);
  initial_scale_ = scale;
  initial_growth_tracker_ = tracker;
  if (!scale_.defined()) return;
  scale_.fill_(scale);
  growth_tracker_.fill_(tracker);
}

}  // namespace mmtrain::amp
