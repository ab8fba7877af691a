#include "mmtrain/optim/sgd.h"

#include <ATen/Functions.h>

#include <memory>
#include <utility>

#include "optim/group_options.h"

namespace mmtrain::optim {
namespace {

using detail::options_as;
using detail::require_setting;

void validate(const SGDOptions& options) {
  require_setting(options.lr() >= 0, "SGD", "lr must not be negative", options.lr());
  require_setting(options.momentum() >= 0, "SGD", "momentum must not be negative", options.momentum());
  require_setting(options.weight_decay() >= 0, "SGD", "weight_decay must not be negative", options.weight_decay());
  require_setting(!options.nesterov() || options.momentum() > 0, "SGD", "nesterov needs momentum", options.momentum());
  require_setting(!options.nesterov() || options.dampening() == 0, "SGD", "nesterov needs dampening 0",
                  options.dampening());
}

void update_fused(const SGDOptions& options, ParamBatch& batch) {
  const at::TensorList momentum_buffers = batch.state.empty() ? at::TensorList() : at::TensorList(batch.state[0]);
  const auto call = [&](const auto& lr) {
    // The kernel's own way of a first step does not initialize the buffer when that step is left out. Buffers that
    // begin with zeros give the same numbers.
    at::_fused_sgd_(batch.params, batch.grads, momentum_buffers, options.weight_decay(), options.momentum(), lr,
                    options.dampening(), options.nesterov(), /*maximize=*/false, /*is_first_step=*/false,
                    batch.scale.grad_scale.defined() ? std::optional(batch.scale.grad_scale) : std::nullopt,
                    batch.scale.found_inf.defined() ? std::optional(batch.scale.found_inf) : std::nullopt);
  };
  batch.lr.defined() ? call(batch.lr) : call(options.lr());
}

// Dampening does not apply to the first gradient of a parameter.
std::vector<at::Tensor> dampened(const std::vector<at::Tensor>& grads, const ParamBatch& batch, double dampening) {
  const at::Tensor later = at::stack(batch.steps).gt(1).to(at::kDouble);
  const at::Tensor weights = later.mul(-dampening).add(1).to(grads.front().scalar_type());
  return at::_foreach_mul(grads, weights.unbind());
}

void update_foreach(const SGDOptions& options, ParamBatch& batch) {
  std::vector<at::Tensor> grads = batch.grads;
  if (options.weight_decay() != 0) grads = at::_foreach_add(grads, batch.params, options.weight_decay());
  if (options.momentum() != 0) {
    const std::vector<at::Tensor>& buffers = batch.state[0];
    at::_foreach_mul_(buffers, options.momentum());
    at::_foreach_add_(buffers, options.dampening() == 0 ? grads : dampened(grads, batch, options.dampening()));
    grads = options.nesterov() ? at::_foreach_add(grads, buffers, options.momentum()) : buffers;
  }
  at::_foreach_add_(batch.params, grads, -options.lr());
}

}  // namespace

SGD::SGD(const std::vector<torch::optim::OptimizerParamGroup>& groups, const SGDOptions& defaults)
    : Optimizer(groups, std::make_unique<SGDOptions>(defaults)) {
  validate(defaults);
  for (const auto& group : param_groups()) validate(options_as<SGDOptions>(group.options()));
}

SGD::SGD(const std::vector<ParamGroup>& groups, const SGDOptions& defaults)
    : SGD(detail::to_param_groups(groups, defaults), defaults) {
  set_names(groups);
}

SGD::SGD(std::vector<torch::Tensor> params, const SGDOptions& defaults)
    : SGD({torch::optim::OptimizerParamGroup(std::move(params))}, defaults) {}

std::vector<std::string> SGD::state_names(const torch::optim::OptimizerOptions& options) const {
  if (options_as<SGDOptions>(options).momentum() == 0) return {};
  return {"momentum_buffer"};
}

bool SGD::can_fuse(const torch::optim::OptimizerOptions& options, torch::Device device, torch::ScalarType dtype) const {
  if (options_as<SGDOptions>(options).dampening() != 0) return false;
  return device.is_cuda() || dtype == torch::kFloat || dtype == torch::kDouble;
}

void SGD::update(const torch::optim::OptimizerOptions& options, ParamBatch& batch) const {
  const auto& own = options_as<SGDOptions>(options);
  batch.fused ? update_fused(own, batch) : update_foreach(own, batch);
}

}  // namespace mmtrain::optim
