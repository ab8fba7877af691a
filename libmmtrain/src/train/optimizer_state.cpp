#include "mmtrain/train/optimizer_state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/optim/optimizer.h"

namespace mmtrain {
namespace {

using torch::optim::OptimizerParamState;

// A state of one parameter as entries that can be read and written by name. `step` counts as an int64 scalar.
struct Fields {
  std::vector<std::pair<std::string, torch::Tensor*>> tensors;
  std::function<std::int64_t()> step;
  std::function<void(std::int64_t)> set_step;
};

template <class State>
Fields with_step(State& state, std::vector<std::pair<std::string, torch::Tensor*>> tensors) {
  return {std::move(tensors), [&state] { return state.step(); }, [&state](std::int64_t value) { state.step(value); }};
}

Fields fields_of(OptimizerParamState& state) {
  if (auto* adam = dynamic_cast<torch::optim::AdamParamState*>(&state)) {
    return with_step(*adam, {{"exp_avg", &adam->exp_avg()},
                             {"exp_avg_sq", &adam->exp_avg_sq()},
                             {"max_exp_avg_sq", &adam->max_exp_avg_sq()}});
  }
  if (auto* adamw = dynamic_cast<torch::optim::AdamWParamState*>(&state)) {
    return with_step(*adamw, {{"exp_avg", &adamw->exp_avg()},
                              {"exp_avg_sq", &adamw->exp_avg_sq()},
                              {"max_exp_avg_sq", &adamw->max_exp_avg_sq()}});
  }
  if (auto* rmsprop = dynamic_cast<torch::optim::RMSpropParamState*>(&state)) {
    return with_step(*rmsprop, {{"square_avg", &rmsprop->square_avg()},
                                {"momentum_buffer", &rmsprop->momentum_buffer()},
                                {"grad_avg", &rmsprop->grad_avg()}});
  }
  if (auto* sgd = dynamic_cast<torch::optim::SGDParamState*>(&state)) {
    return {{{"momentum_buffer", &sgd->momentum_buffer()}}, {}, {}};
  }
  throw ConfigError("[optimizer_state] only SGD, Adam, AdamW and RMSprop can be saved");
}

std::unique_ptr<OptimizerParamState> new_state(const torch::optim::Optimizer& optimizer) {
  if (dynamic_cast<const torch::optim::Adam*>(&optimizer)) return std::make_unique<torch::optim::AdamParamState>();
  if (dynamic_cast<const torch::optim::AdamW*>(&optimizer)) return std::make_unique<torch::optim::AdamWParamState>();
  if (dynamic_cast<const torch::optim::RMSprop*>(&optimizer)) {
    return std::make_unique<torch::optim::RMSpropParamState>();
  }
  if (dynamic_cast<const torch::optim::SGD*>(&optimizer)) return std::make_unique<torch::optim::SGDParamState>();
  throw ConfigError("[load_optimizer_state] only SGD, Adam, AdamW and RMSprop can be loaded");
}

// The optimizer's parameters with the module's names, in the optimizer's order.
std::vector<std::pair<std::string, torch::Tensor>> named_parameters(torch::optim::Optimizer& optimizer,
                                                                    const torch::nn::Module& module) {
  std::unordered_map<const void*, std::string> names;
  for (const auto& item : module.named_parameters()) names.emplace(item.value().unsafeGetTensorImpl(), item.key());
  std::vector<std::pair<std::string, torch::Tensor>> result;
  for (const auto& group : optimizer.param_groups()) {
    for (const torch::Tensor& parameter : group.params()) {
      const auto name = names.find(parameter.unsafeGetTensorImpl());
      if (name == names.end()) {
        throw ConfigError(fmt::format("[optimizer_state] a parameter of shape {} does not belong to the module",
                                      fmt::join(parameter.sizes(), "x")));
      }
      result.emplace_back(name->second, parameter);
    }
  }
  return result;
}

}  // namespace

StateDict optimizer_state(torch::optim::Optimizer& optimizer, const torch::nn::Module& module) {
  if (const auto* ours = dynamic_cast<optim::Optimizer*>(&optimizer))
    return ours->state_dict(module.named_parameters());
  StateDict result;
  for (const auto& [name, parameter] : named_parameters(optimizer, module)) {
    const auto found = optimizer.state().find(parameter.unsafeGetTensorImpl());
    if (found == optimizer.state().end()) continue;  // no gradient has reached it yet
    const Fields fields = fields_of(*found->second);
    for (const auto& [field, tensor] : fields.tensors) {
      if (tensor->defined()) result.insert(name + "/" + field, *tensor);
    }
    if (fields.step) result.insert(name + "/step", torch::tensor(fields.step(), torch::kInt64));
  }
  return result;
}

void load_optimizer_state(torch::optim::Optimizer& optimizer, const torch::nn::Module& module, const StateDict& state) {
  if (auto* ours = dynamic_cast<optim::Optimizer*>(&optimizer)) {
    ours->load_state_dict(state, module.named_parameters());
    return;
  }
  torch::NoGradGuard no_grad;
  std::size_t used = 0;
  ska::flat_hash_map<void*, std::unique_ptr<OptimizerParamState>> loaded;
  for (const auto& [name, parameter] : named_parameters(optimizer, module)) {
    std::unique_ptr<OptimizerParamState> entry = new_state(optimizer);
    const Fields fields = fields_of(*entry);
    const std::size_t before = used;
    for (const auto& [field, tensor] : fields.tensors) {
      const torch::Tensor* saved = state.find(name + "/" + field);
      if (saved == nullptr) continue;
      if (saved->sizes() != parameter.sizes()) {
        throw DataError(fmt::format("[load_optimizer_state] {}/{} has shape [{}], the parameter has [{}]", name, field,
                                    fmt::join(saved->sizes(), ","), fmt::join(parameter.sizes(), ",")));
      }
      // Same memory layout as the parameter: mixed layouts would be slow, not wrong.
      *tensor = torch::empty_like(parameter, saved->scalar_type()).copy_(*saved);
      ++used;
    }
    if (fields.step) {
      if (const torch::Tensor* step = state.find(name + "/step")) {
        fields.set_step(step->item<std::int64_t>());
        ++used;
      } else if (used != before) {
        throw DataError(fmt::format("[load_optimizer_state] {}/step is missing", name));
      }
    }
    if (used != before) loaded[parameter.unsafeGetTensorImpl()] = std::move(entry);
  }
  if (used != state.size()) {
    throw DataError(
        fmt::format("[load_optimizer_state] {} of {} entries belong to no parameter of this optimizer: the checkpoint "
                    "is of another "
                    "model or optimizer",
                    state.size() - used, state.size()));
  }
  optimizer.state() = std::move(loaded);
}

}  // namespace mmtrain
