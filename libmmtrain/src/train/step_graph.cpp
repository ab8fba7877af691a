#include "train/step_graph.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <vector>

#include "mmtrain/core/error.h"

namespace mmtrain::detail {
namespace {

constexpr int kWarmUps = 3;  // as many as PyTorch's documentation asks for

std::vector<torch::Tensor> tensors_of(const Batch& batch) {
  std::vector<torch::Tensor> tensors;
  for (const auto& input : batch.inputs) tensors.push_back(input.value());
  for (const torch::Tensor& tensor : {batch.target, batch.weights}) {
    if (tensor.defined()) tensors.push_back(tensor);
  }
  return tensors;
}

bool same_shapes(const Batch& a, const Batch& b) {
  const std::vector<torch::Tensor> left = tensors_of(a), right = tensors_of(b);
  if (left.size() != right.size()) return false;
  for (std::size_t i = 0; i < left.size(); ++i) {
    if (left[i].sizes() != right[i].sizes() || left[i].scalar_type() != right[i].scalar_type()) return false;
  }
  return true;
}

Batch copy_of(const Batch& batch) {
  Batch copy = batch;
  copy.inputs.clear();
  for (const auto& input : batch.inputs) copy.inputs.insert(input.key(), input.value().clone());
  for (torch::Tensor* tensor : {&copy.target, &copy.weights}) {
    if (tensor->defined()) *tensor = tensor->clone();
  }
  copy.ids.reset();
  return copy;
}

// What the side stream made is read on the caller's: its memory may not be used again before that.
void hand_over(const StepResult& result) {
  for (const torch::Tensor& tensor :
       {result.loss_sum, result.weight, result.output, result.grad_norm, result.skipped}) {
    if (!tensor.defined() || !tensor.is_cuda()) continue;
    tensor.record_stream(c10::impl::VirtualGuardImpl(tensor.device().type()).getStream(tensor.device()));
  }
}

}  // namespace

StepResult StepGraph::run(const Batch& batch, const Work& work) {
  if (recorded_) {
    if (!same_shapes(batch, batch_)) return work(batch);
    const std::vector<torch::Tensor> to = tensors_of(batch_), from = tensors_of(batch);
    for (std::size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i], /*non_blocking=*/true);
    recorder_->replay();
    return result_;
  }
  if (warm_ups_ == 0 || !same_shapes(batch, batch_)) {
    warm_ups_ = 0;
    batch_ = batch;
  }
  if (warm_ups_++ < kWarmUps) {
    StepResult result;
    recorder_->warm_up([&] { result = work(batch); });
    hand_over(result);
    return result;
  }
  batch_ = copy_of(batch);
  try {
    recorder_->capture([this, &work] { result_ = work(batch_); });
  } catch (const c10::Error& error) {
    throw Error(std::string("[TrainStep] this step cannot be captured as a CUDA graph; train without compile. ") +
                error.what_without_backtrace());
  }
  recorded_ = true;
  recorder_->replay();
  return result_;
}

}  // namespace mmtrain::detail
