#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <string>
#include <vector>

namespace mmtrain::parallel::detail {

/// A net and a net built alike, part by part.
struct NetPair {
  struct Tensors {
    std::string name;  ///< dotted
    torch::Tensor original, replica;
  };
  struct Modules {
    torch::nn::Module* original;
    torch::nn::Module* replica;
  };

  /// Throws `ConfigError` naming the first part that the two do not have in common.
  NetPair(torch::nn::Module& original, torch::nn::Module& replica);

  /// Puts every part of the replica in the mode of its original.
  void copy_training_mode() const;

  std::vector<Tensors> parameters, buffers;
  std::vector<Modules> modules;  ///< parents before children

 private:
  void collect(const std::string& prefix, torch::nn::Module& original, torch::nn::Module& replica);
};

}  // namespace mmtrain::parallel::detail
