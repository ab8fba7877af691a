#pragma once

#include <torch/optim/optimizer.h>

#include <memory>
#include <string>
#include <vector>

#include "mmtrain/amp/scaled_optimizer.h"
#include "mmtrain/core/export.h"
#include "mmtrain/io/state_dict.h"
#include "mmtrain/optim/param_groups.h"

namespace mmtrain::optim {

/// Parameters of one group that share device and dtype and have a gradient, as the lists that kernels take. Element i
/// of every list belongs to `params[i]`.
struct ParamBatch {
  std::vector<torch::Tensor> params;
  std::vector<torch::Tensor> grads;               ///< laid out in memory like `params`
  std::vector<std::vector<torch::Tensor>> state;  ///< one list for each of `state_names()`; zeros in the beginning
  std::vector<torch::Tensor> steps;  ///< float32 scalars: how often the parameter was stepped, this step included
  bool fused = false;                ///< whether `update` may call a fused kernel, see `Optimizer::can_fuse`
  amp::StepScale scale;              ///< for the fused kernel, on the device of `params`; else undefined
  torch::Tensor lr;                  ///< with `set_capturable`: float32 scalar for a fused kernel to read
};

/// Base of the optimizers of this module: an ordinary `torch::optim::Optimizer` (groups, options, schedulers and
/// `zero_grad` work as ever) that updates all parameters of a group in one fused or foreach operator.
///
/// The lists of tensors are kept from step to step and made anew only when parameters were added, moved to another
/// device or layout, or when other ones than before have gradients. Parameters without gradient are left out: neither
/// changed nor decayed, and no memory is spent on them. `state()` stays empty; ask `state_dict`.
///
/// To write one of your own, implement `state_names` and `update`.
class MMTRAIN_API Optimizer : public torch::optim::Optimizer, public amp::ScaledOptimizer {
 public:
  ~Optimizer() override;

  /// One step; with `closure`, evaluates it first with gradients enabled and returns its loss. Throws `ConfigError` for
  /// sparse gradients and for parameters that are not real floating point numbers.
  torch::Tensor step(LossClosure closure = nullptr) override;
  void scaled_step(const amp::StepScale& scale) override;

  /// Names of the groups, empty for those made without one.
  std::vector<std::string> group_names() const;

  /// The state by parameter name: `conv1.weight/exp_avg`, `conv1.weight/step` ..., with Python's names and dtypes.
  /// The tensors share memory with the optimizer. `parameters` gives the names (`module.named_parameters()`); without
  /// it those of the named groups count. Parameters never stepped have no entries. Throws `ConfigError` for a
  /// parameter without name.
  StateDict state_dict(const StateDict& parameters) const;
  StateDict state_dict() const;

  /// Puts a state back: copies, so any device and dtype serve. Parameters without entries begin anew. Throws
  /// `DataError` for entries that are missing, unexpected or misshaped, and changes nothing then.
  void load_state_dict(const StateDict& state, const StateDict& parameters);
  void load_state_dict(const StateDict& state);

  /// For CUDA graphs: fused kernels read the learning rate from device memory, which `refresh_lr` fills, so that a
  /// captured step follows a schedule. Other settings are fixed at the capture. Off by default.
  void set_capturable(bool capturable);
  /// Whether every group has a kernel that reads the learning rate from the device; for others, a captured step keeps
  /// the one of its capture.
  bool is_capturable();
  /// Brings the groups' learning rates to the device; with `set_capturable`, call it before each step or replay.
  void refresh_lr();

  /// For `torch::save` and `torch::load`: state and options, by position.
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;

 protected:
  /// `groups` take the options of `defaults` where they have none.
  Optimizer(const std::vector<torch::optim::OptimizerParamGroup>& groups,
            std::unique_ptr<torch::optim::OptimizerOptions> defaults);
  /// Remembers the names of groups and parameters from which the base was constructed.
  void set_names(const std::vector<ParamGroup>& groups);

  /// Python's names of the tensors kept for each parameter under these options, without `step`.
  virtual std::vector<std::string> state_names(const torch::optim::OptimizerOptions& options) const = 0;
  /// Whether Python keeps a count of steps for this optimizer; the state has `step` then.
  virtual bool counts_steps() const = 0;
  /// Whether `update` can use a kernel that honors `ParamBatch::scale` and `lr` on this device. Otherwise the base
  /// unscales the gradients and takes back what `update` did where the step is to be left out.
  virtual bool can_fuse(const torch::optim::OptimizerOptions& options, torch::Device device,
                        torch::ScalarType dtype) const = 0;
  /// Updates parameters and state; gradients are not recorded.
  virtual void update(const torch::optim::OptimizerOptions& options, ParamBatch& batch) const = 0;

 private:
  struct Impl;
  void run(const amp::StepScale& scale);

  std::unique_ptr<Impl> impl_;
};

}  // namespace mmtrain::optim
