#pragma once

#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <ostream>
#include <utility>

#include "mmtrain/core/export.h"

/// Batch normalization (Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing internal
/// covariate shift", ICML 2015) that can normalize with the statistics of a batch spread over many ranks. Otherwise
/// LibTorch's own layers: same options, names of parameters and buffers, numbers and speed.
namespace mmtrain::nn {

/// Adds up numbers over all ranks that train together.
class MMTRAIN_API JointStatistics {
 public:
  virtual ~JointStatistics() = default;

  /// The sum over all ranks of their `packed`, float64 `[n]` on the device of the data; the same bits on every rank.
  /// Waits for the other ranks: all call in the same order, with the same n. Also called in backward passes.
  virtual torch::Tensor sum(const torch::Tensor& packed) = 0;
};

/// A layer that can take the statistics of its batch from all ranks. A clone shares the hook of its original: give the
/// replica of each rank its own.
class MMTRAIN_API JointStatisticsLayer {
 public:
  virtual ~JointStatisticsLayer() = default;
  /// Joins the statistics in training mode; with null they are those of the layer's own batch.
  void set_joint_statistics(std::shared_ptr<JointStatistics> joint) { joint_ = std::move(joint); }
  const std::shared_ptr<JointStatistics>& joint_statistics() const { return joint_; }

 private:
  std::shared_ptr<JointStatistics> joint_;
};

/// What a batch normalization owns; each may be undefined.
struct BatchNormTensors {
  torch::Tensor weight, bias;               ///< `[C]`
  torch::Tensor running_mean, running_var;  ///< `[C]`, updated in place
};

/// Normalizes `input` `[B,C,...]` with mean and biased variance over the rows of all ranks, however many each has (at
/// least one). Running statistics move by `momentum` towards the mean and the unbiased variance of the joined batch.
///
/// Gradients are those of the sum over all ranks of what each derives from its output; of weight and bias every rank
/// gets its own part of the sum. There is no second derivative. The sums over ranks are float64, so that for float32
/// data they are as exact as those of one device. Throws `ConfigError` if there is one value a channel on all ranks
/// together.
MMTRAIN_API torch::Tensor joint_batch_norm(const torch::Tensor& input, const BatchNormTensors& tensors, double momentum,
                                           double eps, std::shared_ptr<JointStatistics> joint);

namespace detail {

MMTRAIN_API void print_batch_norm(std::ostream& stream, std::size_t dimensions,
                                  const torch::nn::BatchNormOptions& options);
MMTRAIN_API void check_batch_norm_input(const torch::Tensor& input, std::size_t dimensions);
/// `[B,C,L]` with strides of `[B,L,C]`, C and L above 1.
MMTRAIN_API bool channels_lie_last(const torch::Tensor& input);
MMTRAIN_API torch::Tensor sequence_batch_norm(const torch::Tensor& input, const BatchNormTensors& tensors,
                                              bool training, double momentum, double eps);

/// What the three layers share.
template <std::size_t D, class Derived>
class BatchNormBase : public torch::nn::BatchNormImplBase<D, Derived>, public JointStatisticsLayer {
  using Stock = torch::nn::BatchNormImplBase<D, Derived>;

 public:
  using Stock::Stock;

  torch::Tensor forward(const torch::Tensor& input) {
    const bool joint = joint_statistics() != nullptr && this->is_training();
    if (!joint && !(D == 1 && channels_lie_last(input))) return Stock::forward(input);
    _check_input_dim(input);
    const BatchNormTensors tensors{this->weight, this->bias, this->running_mean, this->running_var};
    const bool counts = this->is_training() && (joint || this->options.track_running_stats());
    const double momentum = counts ? next_momentum() : 0;
    if (joint) return joint_batch_norm(input, tensors, momentum, this->options.eps(), joint_statistics());
    return sequence_batch_norm(input, tensors, this->is_training() || !this->options.track_running_stats(), momentum,
                               this->options.eps());
  }

  void pretty_print(std::ostream& stream) const override { print_batch_norm(stream, D, this->options); }

 protected:
  void _check_input_dim(const torch::Tensor& input) override { check_batch_norm_input(input, D); }

 private:
  // Counts a batch; without a momentum, the running statistics are plain means over all batches.
  double next_momentum() {
    if (this->num_batches_tracked.defined()) this->num_batches_tracked += 1;
    if (const std::optional<double> momentum = this->options.momentum()) return *momentum;
    return this->num_batches_tracked.defined() ? 1 / this->num_batches_tracked.template item<double>() : 0;
  }
};

}  // namespace detail

/// `[B,C] -> [B,C]` or `[B,C,L] -> [B,C,L]`. Takes the place of `torch::nn::BatchNorm1d`.
class MMTRAIN_API BatchNorm1dImpl : public detail::BatchNormBase<1, BatchNorm1dImpl> {
 public:
  using detail::BatchNormBase<1, BatchNorm1dImpl>::BatchNormBase;
};
TORCH_MODULE(BatchNorm1d);

/// `[B,C,H,W] -> [B,C,H,W]`. Takes the place of `torch::nn::BatchNorm2d`.
class MMTRAIN_API BatchNorm2dImpl : public detail::BatchNormBase<2, BatchNorm2dImpl> {
 public:
  using detail::BatchNormBase<2, BatchNorm2dImpl>::BatchNormBase;
};
TORCH_MODULE(BatchNorm2d);

/// `[B,C,T,H,W] -> [B,C,T,H,W]`. Takes the place of `torch::nn::BatchNorm3d`.
class MMTRAIN_API BatchNorm3dImpl : public detail::BatchNormBase<3, BatchNorm3dImpl> {
 public:
  using detail::BatchNormBase<3, BatchNorm3dImpl>::BatchNormBase;
};
TORCH_MODULE(BatchNorm3d);

}  // namespace mmtrain::nn
