#pragma once

#include <torch/optim/rmsprop.h>

#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/optim/optimizer.h"

namespace mmtrain::optim {

using torch::optim::RMSpropOptions;

/// RMSprop (Tieleman and Hinton, 2012), also centered and with momentum: `torch.optim.RMSprop`. On foreach kernels:
/// LibTorch has no fused one.
class MMTRAIN_API RMSprop : public Optimizer {
 public:
  /// Throws `ConfigError` for settings out of range, of the defaults or of a group.
  explicit RMSprop(const std::vector<ParamGroup>& groups, const RMSpropOptions& defaults = {});
  explicit RMSprop(const std::vector<torch::optim::OptimizerParamGroup>& groups, const RMSpropOptions& defaults = {});
  explicit RMSprop(std::vector<torch::Tensor> params, const RMSpropOptions& defaults = {});

 protected:
  std::vector<std::string> state_names(const torch::optim::OptimizerOptions& options) const override;
  bool counts_steps() const override { return true; }
  bool can_fuse(const torch::optim::OptimizerOptions& options, torch::Device device,
                torch::ScalarType dtype) const override;
  void update(const torch::optim::OptimizerOptions& options, ParamBatch& batch) const override;
};

}  // namespace mmtrain::optim
