#pragma once

#include <torch/optim/sgd.h>

#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/optim/optimizer.h"

namespace mmtrain::optim {

using torch::optim::SGDOptions;

/// Stochastic gradient descent with momentum, dampening, Nesterov's momentum and L2 weight decay: `torch.optim.SGD`.
/// Fused on CUDA, and on the CPU for float32 and float64 (LibTorch 2.11's kernel for half precision there does not
/// write its result); with dampening and otherwise on foreach kernels.
class MMTRAIN_API SGD : public Optimizer {
 public:
  /// Throws `ConfigError` for settings out of range, of the defaults or of a group.
  SGD(const std::vector<ParamGroup>& groups, const SGDOptions& defaults);
  SGD(const std::vector<torch::optim::OptimizerParamGroup>& groups, const SGDOptions& defaults);
  SGD(std::vector<torch::Tensor> params, const SGDOptions& defaults);

 protected:
  std::vector<std::string> state_names(const torch::optim::OptimizerOptions& options) const override;
  bool counts_steps() const override { return false; }
  bool can_fuse(const torch::optim::OptimizerOptions& options, torch::Device device,
                torch::ScalarType dtype) const override;
  void update(const torch::optim::OptimizerOptions& options, ParamBatch& batch) const override;
};

}  // namespace mmtrain::optim
