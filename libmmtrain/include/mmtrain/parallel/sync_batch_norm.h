#pragma once

#include <torch/nn/module.h>

#include <cstddef>
#include <memory>
#include <utility>

#include "mmtrain/core/export.h"
#include "mmtrain/nn/batch_norm.h"
#include "mmtrain/parallel/process_group.h"

/// Batch normalization with the statistics of the joined batch of all ranks.
namespace mmtrain::parallel {

/// Statistics of the joined batch of the ranks of a group.
class MMTRAIN_API GroupStatistics final : public nn::JointStatistics {
 public:
  explicit GroupStatistics(ProcessGroup group) : group_(std::move(group)) {}
  torch::Tensor sum(const torch::Tensor& packed) override;

 private:
  ProcessGroup group_;
};

/// Makes every `mmtrain::nn::BatchNorm1d/2d/3d` in `module` (itself included) normalize with `joint` statistics in
/// training mode, or with its own again if `joint` is null. Returns how many there are. Convert the replica of each
/// rank, with the statistics of that rank.
///
/// LibTorch's own batch normalizations cannot be joined: if there is one, throws `ConfigError` naming it, and nothing
/// is changed.
MMTRAIN_API std::size_t convert_sync_batchnorm(torch::nn::Module& module, std::shared_ptr<nn::JointStatistics> joint);

}  // namespace mmtrain::parallel
