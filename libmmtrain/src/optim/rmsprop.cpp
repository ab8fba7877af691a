#include "mmtrain/optim/rmsprop.h"

#include <ATen/Functions.h>

#include <memory>
#include <utility>

#include "optim/group_options.h"

namespace mmtrain::optim {
namespace {

using detail::options_as;
using detail::require_setting;

void validate(const RMSpropOptions& options) {
  require_setting(options.lr() >= 0, "RMSprop", "lr must not be negative", options.lr());
  require_setting(options.eps() >= 0, "RMSprop", "eps must not be negative", options.eps());
  require_setting(options.alpha() >= 0, "RMSprop", "alpha must not be negative", options.alpha());
  require_setting(options.momentum() >= 0, "RMSprop", "momentum must not be negative", options.momentum());
  require_setting(options.weight_decay() >= 0, "RMSprop", "weight_decay must not be negative", options.weight_decay());
}

// Where a state is found in the batch, if the options ask for it.
struct Places {
  explicit Places(const RMSpropOptions& options) : momentum_buffer(1), grad_avg(options.momentum() > 0 ? 2 : 1) {}
  std::size_t square_avg = 0, momentum_buffer, grad_avg;
};

}  // namespace

RMSprop::RMSprop(const std::vector<torch::optim::OptimizerParamGroup>& groups, const RMSpropOptions& defaults)
    : Optimizer(groups, std::make_unique<RMSpropOptions>(defaults)) {
  validate(defaults);
  for (const auto& group : param_groups()) validate(options_as<RMSpropOptions>(group.options()));
}

RMSprop::RMSprop(const std::vector<ParamGroup>& groups, const RMSpropOptions& defaults)
    : RMSprop(detail::to_param_groups(groups, defaults), defaults) {
  set_names(groups);
}

RMSprop::RMSprop(std::vector<torch::Tensor> params, const RMSpropOptions& defaults)
    : RMSprop({torch::optim::OptimizerParamGroup(std::move(params))}, defaults) {}

std::vector<std::string> RMSprop::state_names(const torch::optim::OptimizerOptions& options) const {
  const auto& own = options_as<RMSpropOptions>(options);
  std::vector<std::string> names{"square_avg"};
  if (own.momentum() > 0) names.emplace_back("momentum_buffer");
  if (own.centered()) names.emplace_back("grad_avg");
  return names;
}

bool RMSprop::can_fuse(const torch::optim::OptimizerOptions&, torch::Device, torch::ScalarType) const { return false; }

void RMSprop::update(const torch::optim::OptimizerOptions& options, ParamBatch& batch) const {
  const auto& own = options_as<RMSpropOptions>(options);
  const Places places(own);
  std::vector<at::Tensor> grads = batch.grads;
  if (own.weight_decay() != 0) grads = at::_foreach_add(grads, batch.params, own.weight_decay());

  const std::vector<at::Tensor>& square_avgs = batch.state[places.square_avg];
  at::_foreach_mul_(square_avgs, own.alpha());
  at::_foreach_addcmul_(square_avgs, grads, grads, 1 - own.alpha());
  std::vector<at::Tensor> averages;
  if (own.centered()) {
    const std::vector<at::Tensor>& grad_avgs = batch.state[places.grad_avg];
    at::_foreach_lerp_(grad_avgs, grads, 1 - own.alpha());
    averages = at::_foreach_addcmul(square_avgs, grad_avgs, grad_avgs, -1);
    at::_foreach_sqrt_(averages);
  } else {
    averages = at::_foreach_sqrt(square_avgs);
  }
  at::_foreach_add_(averages, own.eps());

  if (own.momentum() > 0) {
    const std::vector<at::Tensor>& buffers = batch.state[places.momentum_buffer];
    at::_foreach_mul_(buffers, own.momentum());
    at::_foreach_addcdiv_(buffers, grads, averages);
    at::_foreach_add_(batch.params, buffers, -own.lr());
  } else {
    at::_foreach_addcdiv_(batch.params, grads, averages, -own.lr());
  }
}

}  // namespace mmtrain::optim
