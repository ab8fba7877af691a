#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/net_pair.h"

namespace mmtrain::parallel::detail {

/// Ties a replica to the module that it stands for: values flow from the module before each forward pass, gradients
/// back to it in the backward pass.
class ReplicaLink {
 public:
  ReplicaLink(torch::nn::Module& module, std::shared_ptr<torch::nn::Module> replica);

  /// Brings values, `requires_grad` and training mode up to date. No forward pass may be running.
  void refresh();

 private:
  struct Parameter {
    torch::Tensor original, replica;
    // What `replica` holds a copy of, where it cannot share the memory.
    std::int64_t version = -1;
    const void* memory = nullptr;
  };

  static void refresh_values(Parameter& parameter);

  std::shared_ptr<torch::nn::Module> replica_;
  NetPair pair_;
  std::vector<Parameter> parameters_;
};

}  // namespace mmtrain::parallel::detail
