#pragma once

#include <filesystem>
#include <string>

#include "mmtrain/core/export.h"
#include "mmtrain/io/state_dict.h"

namespace mmtrain {

/// A saved point of training: a directory with `model.safetensors` (the weights that are evaluated, by name, readable
/// anywhere), `optimizer.safetensors` (optimizer state by parameter name, generator, running metrics, and where the
/// model's are an average, the weights in training) and `state.json`.
struct Checkpoint {
  StateDict model;
  StateDict optimizer;
  std::string state;  ///< JSON
};

/// Writes `checkpoint` beside `directory` and exchanges the two: killed at any moment, either the old or the new
/// checkpoint stands complete. Throws `Error` (full disk ...) and leaves the old one.
MMTRAIN_API void save_checkpoint(const std::filesystem::path& directory, const Checkpoint& checkpoint);

/// Reads a checkpoint. Throws `DataError` naming the file that is missing or broken.
MMTRAIN_API Checkpoint load_checkpoint(const std::filesystem::path& directory);

/// Weights alone, from a checkpoint directory, a safetensors file, or a file of `torch.save` (`io/pth_file.h`).
MMTRAIN_API StateDict load_weights(const std::filesystem::path& path);

}  // namespace mmtrain
