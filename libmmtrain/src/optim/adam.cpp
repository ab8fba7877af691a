#include "mmtrain/optim/adam.h"

#include <ATen/Functions.h>

#include <memory>
#include <optional>
#include <utility>

#include "optim/group_options.h"

namespace mmtrain::optim {
namespace {

using detail::options_as;
using detail::require_setting;

// Adam and AdamW share everything but the place of weight decay; their options are twins of different type.
template <class Options>
constexpr bool kDecoupled = std::is_same_v<Options, AdamWOptions>;
template <class Options>
constexpr const char* kName = kDecoupled<Options> ? "AdamW" : "Adam";

template <class Options>
void validate(const Options& options) {
  const char* name = kName<Options>;
  const auto [beta1, beta2] = options.betas();
  require_setting(options.lr() >= 0, name, "lr must not be negative", options.lr());
  require_setting(options.eps() >= 0, name, "eps must not be negative", options.eps());
  require_setting(beta1 >= 0 && beta1 < 1, name, "the first beta must lie in [0, 1)", beta1);
  require_setting(beta2 >= 0 && beta2 < 1, name, "the second beta must lie in [0, 1)", beta2);
  require_setting(options.weight_decay() >= 0, name, "weight_decay must not be negative", options.weight_decay());
}

template <class Options>
void validate_all(const torch::optim::Optimizer& optimizer) {
  validate(options_as<Options>(optimizer.defaults()));
  for (const auto& group : optimizer.param_groups()) validate(options_as<Options>(group.options()));
}

template <class Options>
std::vector<std::string> names_of(const Options& options) {
  std::vector<std::string> names{"exp_avg", "exp_avg_sq"};
  if (options.amsgrad()) names.emplace_back("max_exp_avg_sq");
  return names;
}

std::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

template <class Options>
void update_fused(const Options& options, ParamBatch& batch) {
  const auto [beta1, beta2] = options.betas();
  const at::TensorList maxima = options.amsgrad() ? at::TensorList(batch.state[2]) : at::TensorList();
  const auto call = [&, beta1 = beta1, beta2 = beta2](const auto& lr) {
    const auto kernel = [](auto&&... arguments) {
      if constexpr (kDecoupled<Options>) {
        at::_fused_adamw_(arguments...);
      } else {
        at::_fused_adam_(arguments...);
      }
    };
    kernel(batch.params, batch.grads, batch.state[0], batch.state[1], maxima, batch.steps, lr, beta1, beta2,
           options.weight_decay(), options.eps(), options.amsgrad(), /*maximize=*/false,
           optional(batch.scale.grad_scale), optional(batch.scale.found_inf));
  };
  batch.lr.defined() ? call(batch.lr) : call(options.lr());
}

template <class Options>
void update_foreach(const Options& options, ParamBatch& batch) {
  const auto [beta1, beta2] = options.betas();
  std::vector<at::Tensor> grads = batch.grads;
  if (options.weight_decay() != 0) {
    if constexpr (kDecoupled<Options>) {
      at::_foreach_mul_(batch.params, 1 - options.lr() * options.weight_decay());
    } else {
      grads = at::_foreach_add(grads, batch.params, options.weight_decay());
    }
  }
  at::_foreach_lerp_(batch.state[0], grads, 1 - beta1);
  at::_foreach_mul_(batch.state[1], beta2);
  at::_foreach_addcmul_(batch.state[1], grads, grads, 1 - beta2);
  if (options.amsgrad()) at::_foreach_maximum_(batch.state[2], batch.state[1]);

  // The counts of steps live on the device; so do the bias corrections, lest it be waited for.
  const at::Tensor steps = at::stack(batch.steps).to(at::kDouble);
  const at::ScalarType dtype = batch.params.front().scalar_type();
  const at::Tensor correction1 = 1 - at::pow(beta1, steps);
  const at::Tensor correction2 = (1 - at::pow(beta2, steps)).sqrt();
  std::vector<at::Tensor> denominators = at::_foreach_sqrt(batch.state[options.amsgrad() ? 2 : 1]);
  at::_foreach_div_(denominators, correction2.to(dtype).unbind());
  at::_foreach_add_(denominators, options.eps());
  const std::vector<at::Tensor> steps_taken = at::_foreach_div(batch.state[0], denominators);
  const std::vector<at::Tensor> sizes = (-options.lr() / correction1).to(dtype).unbind();
  at::_foreach_addcmul_(batch.params, steps_taken, sizes);
}

template <class Options>
void update_with(const Options& options, ParamBatch& batch) {
  batch.fused ? update_fused(options, batch) : update_foreach(options, batch);
}

}  // namespace

Adam::Adam(const std::vector<torch::optim::OptimizerParamGroup>& groups, const AdamOptions& defaults)
    : Optimizer(groups, std::make_unique<AdamOptions>(defaults)) {
  validate_all<AdamOptions>(*this);
}

Adam::Adam(const std::vector<ParamGroup>& groups, const AdamOptions& defaults)
    : Adam(detail::to_param_groups(groups, defaults), defaults) {
  set_names(groups);
}

Adam::Adam(std::vector<torch::Tensor> params, const AdamOptions& defaults)
    : Adam({torch::optim::OptimizerParamGroup(std::move(params))}, defaults) {}

std::vector<std::string> Adam::state_names(const torch::optim::OptimizerOptions& options) const {
  return names_of(options_as<AdamOptions>(options));
}

bool Adam::can_fuse(const torch::optim::OptimizerOptions&, torch::Device, torch::ScalarType) const { return true; }

void Adam::update(const torch::optim::OptimizerOptions& options, ParamBatch& batch) const {
  update_with(options_as<AdamOptions>(options), batch);
}

AdamW::AdamW(const std::vector<torch::optim::OptimizerParamGroup>& groups, const AdamWOptions& defaults)
    : Optimizer(groups, std::make_unique<AdamWOptions>(defaults)) {
  validate_all<AdamWOptions>(*this);
}

AdamW::AdamW(const std::vector<ParamGroup>& groups, const AdamWOptions& defaults)
    : AdamW(detail::to_param_groups(groups, defaults), defaults) {
  set_names(groups);
}

AdamW::AdamW(std::vector<torch::Tensor> params, const AdamWOptions& defaults)
    : AdamW({torch::optim::OptimizerParamGroup(std::move(params))}, defaults) {}

std::vector<std::string> AdamW::state_names(const torch::optim::OptimizerOptions& options) const {
  return names_of(options_as<AdamWOptions>(options));
}

bool AdamW::can_fuse(const torch::optim::OptimizerOptions&, torch::Device, torch::ScalarType) const { return true; }

void AdamW::update(const torch::optim::OptimizerOptions& options, ParamBatch& batch) const {
  update_with(options_as<AdamWOptions>(options), batch);
}

}  // namespace mmtrain::optim
