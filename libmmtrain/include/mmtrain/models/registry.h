#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mmtrain/batch/model.h"
#include "mmtrain/core/export.h"
#include "mmtrain/models/options.h"

namespace mmtrain {

/// Names that `make_model` knows: the five nets of the TinyImageNet study in the order of its table (`baseline`,
/// `residual`, `deeper_wider`, `se_attention`, `best`), then `linear`, which shows what a task is worth without a net.
MMTRAIN_API std::vector<std::string> model_names();

/// A freshly initialized net (LibTorch's default initialization, drawn from its default generator) that reads a batch
/// with one input, images float `[B,3,S,S]`, and answers logits `[B,num_classes]`. An unknown name throws `ConfigError`
/// with the nearest known one; so do options out of range.
MMTRAIN_API std::shared_ptr<Model> make_model(std::string_view name, const ModelOptions& options = {});

/// Number of trainable elements of `module`, submodules included; a parameter that is shared counts once.
MMTRAIN_API std::int64_t count_parameters(const torch::nn::Module& module);

}  // namespace mmtrain
