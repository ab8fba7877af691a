#pragma once

#include <fmt/format.h>
#include <torch/optim/optimizer.h>

#include <memory>
#include <utility>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/optim/param_groups.h"

namespace mmtrain::optim::detail {

// The options of a group, which a caller may have made of another optimizer's type.
template <class Options>
const Options& options_as(const torch::optim::OptimizerOptions& options) {
  if (const auto* own = dynamic_cast<const Options*>(&options)) return *own;
  throw ConfigError("[optim] the options of a parameter group are those of another kind of optimizer");
}

// Named groups as LibTorch's, with the settings of each over `defaults`.
template <class Options>
std::vector<torch::optim::OptimizerParamGroup> to_param_groups(const std::vector<ParamGroup>& groups,
                                                               const Options& defaults) {
  std::vector<torch::optim::OptimizerParamGroup> result;
  for (const ParamGroup& group : groups) {
    auto options = std::make_unique<Options>(defaults);
    if (group.lr) options->lr(*group.lr);
    if (group.weight_decay) options->weight_decay(*group.weight_decay);
    result.emplace_back(group.parameters.values(), std::move(options));
  }
  return result;
}

inline void require_setting(bool valid, const char* optimizer, const char* rule, double value) {
  if (!valid) throw ConfigError(fmt::format("[{}] {}, got {}", optimizer, rule, value));
}

}  // namespace mmtrain::optim::detail
