#include "mmtrain/optim/clip.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "amp/tensor_lists.h"
#include "mmtrain/core/error.h"

namespace mmtrain::optim {
namespace {

using GradientLists = std::vector<std::vector<at::Tensor>>;

GradientLists gradients_of(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters) {
    if (parameter.grad().defined()) gradients.push_back(parameter.grad());
  }
  return mmtrain::detail::by_device_and_dtype(gradients);
}

at::Tensor total_norm(const GradientLists& lists, double norm_type) {
  if (!(norm_type > 0)) {
    throw ConfigError(fmt::format("[clip_grad_norm] norm_type must be positive, got {}", norm_type));
  }
  if (lists.empty()) return at::zeros({});
  const at::Device device = lists.front().front().device();
  std::vector<at::Tensor> norms;
  for (const auto& gradients : lists) {
    for (const at::Tensor& norm : at::_foreach_norm(gradients, norm_type)) {
      norms.push_back(norm.to(device, /*non_blocking=*/true));
    }
  }
  return at::linalg_vector_norm(at::stack(norms), norm_type);
}

}  // namespace

at::Tensor clip_grad_norm(const std::vector<at::Tensor>& parameters, double max_norm, double norm_type,
                          bool error_if_nonfinite) {
  if (!(max_norm > 0)) throw ConfigError(fmt::format("[clip_grad_norm] max_norm must be positive, got {}", max_norm));
  const at::NoGradGuard no_grad;
  const GradientLists lists = gradients_of(parameters);
  const at::Tensor norm = total_norm(lists, norm_type);
  if (error_if_nonfinite && !at::isfinite(norm).item<bool>()) {
    throw Error(
        fmt::format("[clip_grad_norm] the norm of the gradients is {}; lower the learning rate or look for NaN "
                    "in the data",
                    norm.item<double>()));
  }
  // Multiplying by 1 costs less than waiting for the device to learn that nothing is to be done.
  const at::Tensor factor = (max_norm / (norm + 1e-6)).clamp_max(1.0);
  for (const auto& gradients : lists) {
    at::_foreach_mul_(gradients, factor.to(gradients.front().device(), /*non_blocking=*/true));
  }
  return norm;
}

at::Tensor grad_norm(const std::vector<at::Tensor>& parameters, double norm_type) {
  const at::NoGradGuard no_grad;
  return total_norm(gradients_of(parameters), norm_type);
}

void clip_grad_value(const std::vector<at::Tensor>& parameters, double limit) {
  if (!(limit >= 0)) throw ConfigError(fmt::format("[clip_grad_value] limit must not be negative, got {}", limit));
  const at::NoGradGuard no_grad;
  for (const auto& gradients : gradients_of(parameters)) {
    at::_foreach_clamp_min_(gradients, -limit);
    at::_foreach_clamp_max_(gradients, limit);
  }
}

}  // namespace mmtrain::optim
