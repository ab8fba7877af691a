#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>

#include "mmtrain/core/export.h"
#include "mmtrain/parallel/process_group.h"

namespace mmtrain::parallel {

/// What happens to buffers (running statistics of batch norm), which every rank's forward pass changes for itself.
enum class BufferPolicy {
  broadcast,  ///< all take rank 0's before each step
  none,       ///< each rank keeps its own; rank 0's are saved
  mean        ///< all take the mean before each step; those that are no floating-point numbers take rank 0's
};

struct ReducerOptions {
  BufferPolicy buffers = BufferPolicy::broadcast;
  /// Whether parameters may be left out of a step on some or all ranks; costs a walk through the graph each step.
  /// Otherwise a parameter without gradient is an error.
  bool find_unused_parameters = false;
  double bucket_mib = 25;  ///< gradients are reduced in parts of about this size while the backward pass goes on
};

/// Keeps the replicas of a net on all ranks alike: gives them rank 0's weights in the beginning, and adds up their
/// gradients during the backward pass, by `c10d::Reducer`. Parameters then stay equal to the last bit, as long as every
/// rank takes the same optimizer steps.
///
///     reducer.synchronize_buffers();
///     auto output = net->forward(input);
///     reducer.prepare(output);                       // not for micro-batches that only accumulate
///     (loss_sum / weight_of_all_ranks).backward();   // the gradients of all ranks add up
///     reducer.check();
///     optimizer.step();
///
/// Gradients are summed, not averaged: divide the loss by the weight of the joined batch, and whatever the ranks'
/// shares of it are, the result is that of one device. With a group of one nothing is done at all.
class MMTRAIN_API GradientReducer {
 public:
  /// All ranks call this at the same time. Throws `DistributedError` on all ranks where their nets differ, naming the
  /// first difference.
  GradientReducer(torch::nn::Module& module, ProcessGroup group, const ReducerOptions& options = {});
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Brings the buffers together as the policy says; before the first forward pass of a step.
  void synchronize_buffers();

  /// Makes the next backward pass add up gradients over all ranks, those accumulated before it included.
  void prepare(const torch::Tensor& output);

  /// Throws `DistributedError`, on all ranks, naming the parameters that got no gradient on this one. After each
  /// backward pass that was prepared.
  void check();

  /// Adds up over all ranks the gradients that are there, at once: for a step whose last backward pass was not
  /// prepared.
  void reduce_now();

  ProcessGroup& group() { return group_; }
  const ProcessGroup& group() const { return group_; }

 private:
  struct Impl;
  ProcessGroup group_;
  std::unique_ptr<Impl> impl_;  // null for a group of one
};

}  // namespace mmtrain::parallel
