#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "mmtrain/batch/model.h"
#include "mmtrain/io/safetensors.h"
#include "mmtrain/io/state_dict.h"
#include "mmtrain/models/registry.h"

namespace mmtrain::parity {

/// One comparison with Python, as a folder: `inputs.safetensors` (tensors, and the settings as metadata) and
/// `weights.safetensors` (a state dict) written by Python, `result.safetensors` written here.
class Case {
 public:
  /// Throws `DataError` for a folder that is not a case.
  explicit Case(std::filesystem::path folder);

  /// The tensor `name` of the inputs.
  const torch::Tensor& input(const std::string& name) const;
  /// All of them but the target: what a model reads.
  NamedTensors inputs() const;
  /// The setting `name`; throws `DataError` if it is missing.
  const std::string& text(const std::string& name) const;
  double number(const std::string& name) const { return std::stod(text(name)); }
  bool has(const std::string& name) const { return settings_.contains(name); }

  /// The case's net, freshly initialized, for the size of the input `image` and the type of the inputs. Settings called
  /// like options of `ModelOptions` are taken.
  std::shared_ptr<Model> fresh_model(bool dropout) const;
  /// The case's net with the case's weights; every name must match.
  std::shared_ptr<Model> model(bool dropout) const;

  std::filesystem::path path(const std::string& file) const { return folder_ / file; }

 private:
  std::filesystem::path folder_;
  SafetensorsMetadata settings_;
  StateDict inputs_;
};

/// The main function of a driver: runs `work` on each folder of the command line with one thread, as Python
/// computes at the same time. Returns the exit
/// code: 0, or 1 after printing the first error.
int run_cases(int argc, char** argv, void (*work)(const Case&));

}  // namespace mmtrain::parity
