#pragma once

#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>

#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/optim/optimizer.h"

namespace mmtrain::optim {

using torch::optim::AdamOptions;
using torch::optim::AdamWOptions;

/// Adam (Kingma and Ba, arXiv:1412.6980), with AMSGrad (arXiv:1904.09237) as an option; weight decay is L2, added to
/// the gradient: `torch.optim.Adam`. Fused on CPU and CUDA.
class MMTRAIN_API Adam : public Optimizer {
 public:
  /// Throws `ConfigError` for settings out of range, of the defaults or of a group.
  explicit Adam(const std::vector<ParamGroup>& groups, const AdamOptions& defaults = {});
  explicit Adam(const std::vector<torch::optim::OptimizerParamGroup>& groups, const AdamOptions& defaults = {});
  explicit Adam(std::vector<torch::Tensor> params, const AdamOptions& defaults = {});

 protected:
  std::vector<std::string> state_names(const torch::optim::OptimizerOptions& options) const override;
  bool counts_steps() const override { return true; }
  bool can_fuse(const torch::optim::OptimizerOptions& options, torch::Device device,
                torch::ScalarType dtype) const override;
  void update(const torch::optim::OptimizerOptions& options, ParamBatch& batch) const override;
};

/// Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101): `torch.optim.AdamW`. Fused on CPU and
/// CUDA.
class MMTRAIN_API AdamW : public Optimizer {
 public:
  /// Throws `ConfigError` for settings out of range, of the defaults or of a group.
  explicit AdamW(const std::vector<ParamGroup>& groups, const AdamWOptions& defaults = {});
  explicit AdamW(const std::vector<torch::optim::OptimizerParamGroup>& groups, const AdamWOptions& defaults = {});
  explicit AdamW(std::vector<torch::Tensor> params, const AdamWOptions& defaults = {});

 protected:
  std::vector<std::string> state_names(const torch::optim::OptimizerOptions& options) const override;
  bool counts_steps() const override { return true; }
  bool can_fuse(const torch::optim::OptimizerOptions& options, torch::Device device,
                torch::ScalarType dtype) const override;
  void update(const torch::optim::OptimizerOptions& options, ParamBatch& batch) const override;
};

}  // namespace mmtrain::optim
