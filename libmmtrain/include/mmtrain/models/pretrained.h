#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/io/state_dict.h"

/// Starting from weights that were trained before.
namespace mmtrain {

/// Copies into `module` whatever of `weights` fits by name and shape, and reports the rest. Names are taken as they
/// are, without a leading `module.` (which Python's parallel wrappers add), or with one of `prefixes` before them, so
/// that torchvision's `resnet18` finds its place under `visual_encoder.backbone.`: the way by which the most fit, the
/// first of those that are equally good. Throws `DataError` if nothing fits.
MMTRAIN_API LoadReport load_pretrained(torch::nn::Module& module, const StateDict& weights,
                                       const std::vector<std::string>& prefixes = {});

/// Excludes from training all parameters whose dotted names begin with one of `prefixes` (`visual_encoder`,
/// `visual_encoder.backbone.layer1`, ...), whole parts of names at a time. Returns the number of elements they have.
/// Make the optimizer afterwards. Statistics of batch norm go on moving in training mode. Throws `ConfigError` for a
/// prefix that no parameter has, with the names there are at its level.
MMTRAIN_API std::int64_t freeze(torch::nn::Module& module, const std::vector<std::string>& prefixes);

}  // namespace mmtrain
