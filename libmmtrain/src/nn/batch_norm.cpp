#include "mmtrain/nn/batch_norm.h"

#include <ATen/OpMathType.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/autograd.h>
#include <torch/custom_class.h>

#include "mmtrain/core/error.h"

namespace mmtrain::nn {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Of the joined batch.
struct Moments {
  Tensor mean, var;  // [C], in the precision that the kernels calculate with
  Tensor count;      // float64 [1], values a channel
};

// One sum over the ranks brings everything: each gives the sums of its values and of their squares, which it takes from
// a mean and a variance calculated in two passes. In float64, what the subtraction of the squares loses is far below
// the rounding of float32 data.
Moments joint_moments(const Tensor& input, JointStatistics& joint) {
  const std::int64_t channels = input.size(1), values = input.numel() / channels;
  const at::ScalarType precise = at::toOpMathType(input.scalar_type());
  // Running statistics decide in which type the CPU's kernel answers.
  const Tensor unused = at::zeros({2, channels}, input.options().dtype(precise));
  auto [own_mean, own_var] = at::batch_norm_update_stats(input, unused[0], unused[1], /*momentum=*/0);
  own_mean = own_mean.to(at::kDouble);
  own_var = own_var.to(at::kDouble);

  const auto n = static_cast<double>(values);
  const Tensor total =
      joint.sum(at::cat({own_mean * n, (own_var + own_mean.square()) * n, at::full({1}, n, own_mean.options())}));
  const Tensor count = total.narrow(0, 2 * channels, 1);
  // Who has several values himself knows without looking (on CUDA: waiting) that there are enough.
  if (values == 1 && count.item<double>() < 2) {
    throw ConfigError(
        fmt::format("[BatchNorm] training needs more than one value per channel on all ranks together, got input [{}]",
                    fmt::join(input.sizes(), ",")));
  }
  const Tensor mean = total.narrow(0, 0, channels) / count;
  const Tensor var = (total.narrow(0, channels, channels) / count - mean.square()).clamp_min_(0);
  return {mean.to(precise), var.to(precise), count};
}

void update_running(const BatchNormTensors& tensors, const Moments& moments, double momentum) {
  if (!tensors.running_mean.defined()) return;
  const Tensor unbiased = moments.var * (moments.count / (moments.count - 1)).to(moments.var.scalar_type());
  // As in LibTorch's kernels, no change as far as autograd is concerned: a pass in evaluation mode may wait for its
  // backward pass, which does not read them again.
  const at::AutoDispatchBelowADInplaceOrView no_version_bump;
  tensors.running_mean.lerp_(moments.mean.to(tensors.running_mean.scalar_type()), momentum);
  tensors.running_var.lerp_(unbiased.to(tensors.running_var.scalar_type()), momentum);
}

// (input - mean) / sqrt(var + eps) * weight + bias, by the kernel of evaluation mode.
Tensor normalize(const Tensor& input, const Tensor& weight, const Tensor& bias, const Tensor& mean, const Tensor& var,
                 double eps) {
  return std::get<0>(at::native_batch_norm(input, weight, bias, mean, var, /*training=*/false, /*momentum=*/0, eps));
}

Tensor in_type_of(const Tensor& other, const Tensor& tensor) {
  return tensor.defined() ? tensor.to(other.scalar_type()) : tensor;
}

struct Joint : torch::CustomClassHolder {
  explicit Joint(std::shared_ptr<JointStatistics> its) : statistics(std::move(its)) {}
  std::shared_ptr<JointStatistics> statistics;
};

struct JointBatchNorm : torch::autograd::Function<JointBatchNorm> {
  // Undefined tensors cannot be passed, empty options can.
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const std::optional<Tensor>& given_weight,
                        const std::optional<Tensor>& given_bias, const Tensor& mean, const Tensor& var,
                        const Tensor& count, double eps, const c10::intrusive_ptr<Joint>& joint) {
    const Tensor weight = given_weight.value_or(Tensor()), bias = given_bias.value_or(Tensor());
    ctx->save_for_backward({input, weight, mean, var, count});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["joint"] = c10::IValue::make_capsule(joint);
    return normalize(input, in_type_of(mean, weight), in_type_of(mean, bias), mean, var, eps);
  }

  static variable_list backward(AutogradContext* ctx, variable_list output_gradients) {
    if (torch::GradMode::is_enabled()) {
      throw ConfigError("[BatchNorm] joint statistics have no second derivative: call backward without create_graph");
    }
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &input = saved[0], &weight = saved[1], &mean = saved[2], &var = saved[3], &count = saved[4];
    const Tensor& gradient = output_gradients[0];
    const Tensor scale = in_type_of(mean, weight);
    const double eps = ctx->saved_data["eps"].toDouble();

    // With y = x^ * weight + bias, the sums over this rank's rows of dy * x^ and of dy.
    const auto [no_gradient, sum_scaled, sum] =
        at::native_batch_norm_backward(gradient, input, scale, mean, var, /*save_mean=*/{}, /*save_invstd=*/{},
                                       /*train=*/false, eps, /*output_mask=*/{false, true, true});
    Tensor input_gradient;
    if (ctx->needs_input_grad(0)) {
      JointStatistics& joint =
          *c10::static_intrusive_pointer_cast<Joint>(ctx->saved_data["joint"].toCapsule())->statistics;
      const std::vector<Tensor> means =
          (joint.sum(at::cat({sum_scaled, sum}).to(at::kDouble)) / count).to(mean.scalar_type()).chunk(2);
      // dx = weight / sqrt(var + eps) * (dy - mean(dy) - x^ * mean(dy * x^)), means over the rows of all ranks.
      Tensor factor = (var + eps).rsqrt();
      if (scale.defined()) factor = factor * scale;
      input_gradient = normalize(input, -factor * means[0], -factor * means[1], mean, var, eps);
      std::vector<std::int64_t> by_channel(static_cast<std::size_t>(input.dim()), 1);
      by_channel[1] = -1;
      input_gradient.addcmul_(gradient, factor.view(by_channel));
    }
    if (!weight.defined()) return {input_gradient, {}, {}, {}, {}, {}, {}, {}};
    return {input_gradient, in_type_of(weight, sum_scaled), in_type_of(weight, sum), {}, {}, {}, {}, {}};
  }
};

}  // namespace

Tensor joint_batch_norm(const Tensor& input, const BatchNormTensors& tensors, double momentum, double eps,
                        std::shared_ptr<JointStatistics> joint) {
  Moments moments;
  {
    const torch::NoGradGuard no_grad;
    moments = joint_moments(input, *joint);
    update_running(tensors, moments, momentum);
  }
  const auto given = [](const Tensor& tensor) {
    return tensor.defined() ? std::optional<Tensor>(tensor) : std::nullopt;
  };
  return JointBatchNorm::apply(input, given(tensors.weight), given(tensors.bias), moments.mean, moments.var,
                               moments.count, eps, c10::make_intrusive<Joint>(std::move(joint)));
}

namespace detail {

void print_batch_norm(std::ostream& stream, std::size_t dimensions, const torch::nn::BatchNormOptions& options) {
  stream << fmt::format("mmtrain::nn::BatchNorm{}d({}, eps={}, momentum={}, affine={}, track_running_stats={})",
                        dimensions, options.num_features(), options.eps(),
                        options.momentum() ? fmt::format("{}", *options.momentum()) : "none", options.affine(),
                        options.track_running_stats());
}

void check_batch_norm_input(const Tensor& input, std::size_t dimensions) {
  const auto wanted = static_cast<std::int64_t>(dimensions) + 2;
  if (input.dim() == wanted || (dimensions == 1 && input.dim() == 2)) return;
  throw ConfigError(fmt::format("[BatchNorm{}d] the input must have {} dimensions, got [{}]", dimensions,
                                dimensions == 1 ? "2 or 3" : std::to_string(wanted), fmt::join(input.sizes(), ",")));
}

bool channels_lie_last(const Tensor& input) {
  return input.dim() == 3 && input.size(1) > 1 && input.size(2) > 1 && input.stride(1) == 1 &&
         input.stride(2) == input.size(1);
}

// As a map of height 1, for which the kernels know that order.
Tensor sequence_batch_norm(const Tensor& input, const BatchNormTensors& tensors, bool training, double momentum,
                           double eps) {
  return torch::batch_norm(input.unsqueeze(2), tensors.weight, tensors.bias, tensors.running_mean, tensors.running_var,
                           training, momentum, eps, at::globalContext().userEnabledCuDNN())
      .squeeze(2);
}

}  // namespace detail
}  // namespace mmtrain::nn
