#include "mmtrain/optim/ema.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "amp/tensor_lists.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"

namespace mmtrain::optim {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;

EmaOptions checked(const EmaOptions& options) {
  if (!(options.decay >= 0 && options.decay <= 1)) {
    throw ConfigError(fmt::format("[Ema] decay must lie in [0, 1], got {}", options.decay));
  }
  if (!(options.min_decay >= 0 && options.min_decay <= options.decay)) {
    throw ConfigError(fmt::format("[Ema] min_decay must lie in [0, decay], got {}", options.min_decay));
  }
  if (!(options.warmup_gamma > 0)) {
    throw ConfigError(fmt::format("[Ema] warmup_gamma must be positive, got {}", options.warmup_gamma));
  }
  return options;
}

// Calls `work` with the parts of two lists that share device and dtype, the terms of foreach kernels.
template <class Work>
void by_kind(const Tensors& to, const Tensors& from, const Work& work) {
  const auto lists_to = mmtrain::detail::by_device_and_dtype(to),
             lists_from = mmtrain::detail::by_device_and_dtype(from);
  for (std::size_t i = 0; i < lists_to.size(); ++i) work(lists_to[i], lists_from[i]);
}

void copy_values(const Tensors& to, const Tensors& from) {
  by_kind(to, from, [](const Tensors& a, const Tensors& b) { at::_foreach_copy_(a, b); });
}

// The same as a lerp whose weight only the device knows.
void move_towards(const Tensors& average, const Tensors& weights, const Tensor& weight) {
  Tensors difference = at::_foreach_sub(weights, average);
  at::_foreach_mul_(difference, weight.to(average.front().options()));
  at::_foreach_add_(average, difference);
}

}  // namespace

Ema::Ema(const torch::nn::Module& module, const EmaOptions& options)
    : options_(checked(options)), module_(mmtrain::state_dict(module)) {
  const at::NoGradGuard no_grad;
  std::unordered_set<const void*> parameters;
  for (const Tensor& parameter : module.parameters()) parameters.insert(parameter.unsafeGetTensorImpl());
  // A tensor that the module has under several names has one average.
  std::unordered_map<const void*, Tensor> averages;
  for (const auto& item : module_) {
    Tensor& average = averages[item.value().unsafeGetTensorImpl()];
    if (!average.defined()) {
      average = item.value().detach().clone();
      const bool parameter = parameters.contains(item.value().unsafeGetTensorImpl());
      (parameter ? module_parameters_ : module_buffers_).push_back(item.value());
      (parameter ? average_parameters_ : average_buffers_).push_back(average);
    }
    average_.insert(item.key(), average);
  }
}

double Ema::decay_at(std::int64_t update) const {
  const std::int64_t step = std::max<std::int64_t>(0, update - options_.update_after_step - 1);
  if (step == 0) return 0;
  if (!options_.warmup) return options_.decay;
  const double rising = 1 - std::pow(1 + static_cast<double>(step) / options_.warmup_gamma, -options_.warmup_power);
  return std::max(std::min(rising, options_.decay), options_.min_decay);
}

void Ema::update(const torch::Tensor& skipped) {
  const at::NoGradGuard no_grad;
  const double decay = decay_at(++updates_);
  copy_values(average_buffers_, module_buffers_);
  if (decay == 0) {  // a step that was left out has not changed the weights
    copy_values(average_parameters_, module_parameters_);
  } else if (skipped.defined()) {
    const Tensor weight = (1 - decay) * (1 - skipped.to(at::kDouble));
    by_kind(average_parameters_, module_parameters_,
            [&](const Tensors& average, const Tensors& weights) { move_towards(average, weights, weight); });
  } else {
    by_kind(average_parameters_, module_parameters_,
            [&](const Tensors& average, const Tensors& weights) { at::_foreach_lerp_(average, weights, 1 - decay); });
  }
}

void Ema::load_state_dict(const StateDict& state, std::int64_t updates) {
  for (const auto& item : average_) {
    const Tensor* saved = state.find(item.key());
    if (saved == nullptr) throw DataError(fmt::format("[Ema] '{}' is missing in the saved average", item.key()));
    if (saved->sizes() != item.value().sizes()) {
      throw DataError(fmt::format("[Ema] '{}' has shape [{}] in the saved average, [{}] in the module", item.key(),
                                  fmt::join(saved->sizes(), ","), fmt::join(item.value().sizes(), ",")));
    }
  }
  for (const auto& item : state) {
    if (!average_.contains(item.key())) {
      throw DataError(fmt::format("[Ema] '{}' of the saved average is unknown to the module", item.key()));
    }
  }
  const at::NoGradGuard no_grad;
  for (auto& item : average_) item.value().copy_(state[item.key()]);
  updates_ = updates;
}

EmaScope::EmaScope(Ema& ema) : module_(ema.module_.values()) {
  const at::NoGradGuard no_grad;
  for (const Tensor& tensor : module_) weights_.push_back(tensor.detach().clone());
  copy_values(module_, ema.average_.values());
}

EmaScope::~EmaScope() {
  try {
    const at::NoGradGuard no_grad;
    copy_values(module_, weights_);
  } catch (const std::exception& error) {
    // The device has failed, most likely while an exception of its own unwinds: that one has to reach the program.
    log::error(fmt::format("[EmaScope] the weights could not be put back: {}", error.what()));
  }
}

}  // namespace mmtrain::optim
