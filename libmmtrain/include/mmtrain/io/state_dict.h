#pragma once

#include <torch/nn/module.h>
#include <torch/ordered_dict.h>

#include <functional>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// Tensors by name: what Python calls a state dict.
using StateDict = torch::OrderedDict<std::string, torch::Tensor>;

/// Parameters and buffers of `module` by their dotted names, as Python's `state_dict()` names them. The tensors
/// share the module's memory.
MMTRAIN_API StateDict state_dict(const torch::nn::Module& module);

/// How `load_state_dict` treats a dict that does not match the module exactly.
struct LoadOptions {
  /// True: a missing, unexpected or misshaped name is an error and nothing is loaded. False: missing and unexpected
  /// names are only reported.
  bool strict = true;
  /// With `strict` false: misshaped tensors are reported and left alone too, instead of being an error.
  bool partial = false;
  /// Maps a name of the dict to the module's name, e.g. to strip "module."; an empty result drops the entry.
  std::function<std::string(const std::string&)> rename = {};
};

/// What `load_state_dict` did, by name.
struct MMTRAIN_API LoadReport {
  std::vector<std::string> loaded;
  std::vector<std::string> missing;     ///< in the module, not in the dict: kept as they were
  std::vector<std::string> unexpected;  ///< in the dict, not in the module: ignored
  std::vector<std::string> misshaped;   ///< `name: module [64,3,3,3], file [64,1,3,3]`: kept as they were

  /// Whether every name of both sides was loaded.
  bool complete() const { return missing.empty() && unexpected.empty() && misshaped.empty(); }
  /// One line a kind, the first names of each.
  std::string summary() const;
};

/// Copies the values of `dict` into the module's own tensors (device and dtype of the module are kept). Throws
/// `DataError` as `LoadOptions` says, before anything is changed.
MMTRAIN_API LoadReport load_state_dict(torch::nn::Module& module, const StateDict& dict,
                                       const LoadOptions& options = {});

}  // namespace mmtrain
