#pragma once

#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

#include "mmtrain/core/export.h"
#include "mmtrain/io/state_dict.h"

namespace mmtrain {

/// The state of SGD, Adam, AdamW or RMSprop, LibTorch's or ours, by parameter name: `conv1.weight/exp_avg`,
/// `conv1.weight/step`
/// ... Names survive a changed order of parameters, indices do not. Throws `ConfigError` for other optimizers and for
/// parameters that are not the module's.
MMTRAIN_API StateDict optimizer_state(torch::optim::Optimizer& optimizer, const torch::nn::Module& module);

/// Puts a state back. Throws `DataError` naming the entry when one is missing, unexpected or misshaped.
MMTRAIN_API void load_optimizer_state(torch::optim::Optimizer& optimizer, const torch::nn::Module& module,
                                      const StateDict& state);

}  // namespace mmtrain
