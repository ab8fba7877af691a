#pragma once

#include <torch/nn/module.h>

#include <optional>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/io/state_dict.h"

namespace mmtrain::optim {

/// Parameters that share settings, with names: what the optimizers of this module are made from. Their state is then
/// saved and loaded by these names.
struct ParamGroup {
  std::string name;                         ///< for logs, e.g. `visual_encoder`
  StateDict parameters;                     ///< name -> the module's own tensor
  std::optional<double> lr = {};            ///< without a value: the optimizer's
  std::optional<double> weight_decay = {};  ///< without a value: the optimizer's
};

/// Settings for the parameters whose names start with `prefix`.
struct PrefixRule {
  std::string prefix;  ///< e.g. `visual_encoder.`
  std::optional<double> lr = {};
  std::optional<double> weight_decay = {};
  std::string name = {};  ///< of the group; empty: the prefix without a dot at the end
};

/// The parameters of `module` by their dotted names, one group for each rule, and a last group `default` for those that
/// no rule names. A parameter goes to the first rule that fits. Frozen parameters are included: they have no gradient
/// and cost nothing until they are thawed. Throws `ConfigError` for a rule that names no parameter (a typing error, or
/// an earlier rule took them all).
MMTRAIN_API std::vector<ParamGroup> named_groups(const torch::nn::Module& module,
                                                 const std::vector<PrefixRule>& rules = {});

}  // namespace mmtrain::optim
