#include "param_bucket.h"

#include <ATen/Functions.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "mmtrain/core/error.h"

namespace mmtrain::optim::detail {

using at::Tensor;

namespace {

// Whether two dense tensors of the same shape have their elements in the same order. Strides of dimensions of size 1
// mean nothing.
bool same_layout(const Tensor& a, const Tensor& b) {
  const auto sizes = a.sizes(), strides_a = a.strides(), strides_b = b.strides();
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] != 1 && strides_a[i] != strides_b[i]) return false;
  }
  return true;
}

// Whether `values` can stand beside `param` in the lists of a kernel: fused ones walk through the memory of all lists
// in step, unchecked.
bool goes_with(const Tensor& param, const Tensor& values) {
  return values.device() == param.device() && values.scalar_type() == param.scalar_type() &&
         (!param.is_non_overlapping_and_dense() || same_layout(param, values));
}

Tensor usable_gradient(const Tensor& param, const Tensor& grad) {
  if (grad.is_sparse()) {
    throw ConfigError("[optim] sparse gradients need torch::optim::SGD or a dense embedding");
  }
  return goes_with(param, grad) ? grad : laid_out_like(param, grad);
}

}  // namespace

Tensor laid_out_like(const Tensor& param, const Tensor& values) { return at::empty_like(param).copy_(values); }

bool Bucket::gather(std::vector<std::string> wanted) {
  std::vector<std::size_t> with_gradient;
  batch.grads.clear();
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const Tensor& grad = slots[i].param.grad();
    if (!grad.defined()) continue;
    with_gradient.push_back(i);
    batch.grads.push_back(usable_gradient(slots[i].param, grad));
  }
  if (with_gradient.empty()) return false;
  if (!lists_fit(with_gradient, wanted)) make_lists(std::move(with_gradient), std::move(wanted));
  return true;
}

bool Bucket::dense() const {
  return std::all_of(batch.params.begin(), batch.params.end(),
                     [](const Tensor& param) { return param.is_non_overlapping_and_dense(); });
}

bool Bucket::lists_fit(const std::vector<std::size_t>& with_gradient, const std::vector<std::string>& wanted) const {
  if (with_gradient != active_ || wanted != names_) return false;
  if (batch.state.empty()) return true;
  const std::vector<Tensor>& state = batch.state.front();
  return std::equal(state.begin(), state.end(), batch.params.begin(),
                    [](const Tensor& values, const Tensor& param) { return goes_with(param, values); });
}

void Bucket::make_lists(std::vector<std::size_t> with_gradient, std::vector<std::string> wanted) {
  active_ = std::move(with_gradient);
  names_ = std::move(wanted);
  batch.params.clear();
  batch.steps.clear();
  batch.state.assign(names_.size(), {});
  std::vector<float> mask(slots.size(), 0.0F);
  for (const std::size_t index : active_) {
    Slot& slot = slots[index];
    mask[index] = 1.0F;
    batch.params.push_back(slot.param);
    batch.steps.push_back(slot.step);
    for (std::size_t i = 0; i < names_.size(); ++i) {
      Tensor& values = slot.state[names_[i]];
      if (!values.defined()) {
        values = at::zeros_like(slot.param);
      } else if (!goes_with(slot.param, values)) {
        values = laid_out_like(slot.param, values);
      }
      batch.state[i].push_back(values);
    }
  }
  increment_ = at::tensor(mask).to(device);
}

void Bucket::count_step(const Tensor& found_inf) {
  steps.add_(found_inf.defined() ? increment_ * (1 - found_inf) : increment_);
}

std::vector<Bucket> make_buckets(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                                 std::vector<Bucket>& old) {
  std::vector<Bucket> fresh;
  std::unordered_set<const void*> seen;
  for (std::size_t group = 0; group < groups.size(); ++group) {
    for (const Tensor& param : groups[group].params()) {
      if (!seen.insert(param.unsafeGetTensorImpl()).second) {
        throw ConfigError(
            fmt::format("[optim] a parameter of shape [{}] is in the groups twice", fmt::join(param.sizes(), ",")));
      }
      if (!param.is_floating_point()) {
        throw ConfigError(fmt::format("[optim] parameters must be real floating point numbers, got {}",
                                      c10::toString(param.scalar_type())));
      }
      auto bucket = std::find_if(fresh.begin(), fresh.end(), [&](const Bucket& candidate) {
        return candidate.group == group && candidate.holds(param);
      });
      if (bucket == fresh.end()) {
        bucket = fresh.emplace(fresh.end(), group, param);
      }
      bucket->slots.push_back({param, {}, {}});
    }
  }
  std::unordered_map<const void*, Slot> kept;
  for (Bucket& bucket : old) {
    for (Slot& slot : bucket.slots) kept.emplace(slot.param.unsafeGetTensorImpl(), std::move(slot));
  }
  for (Bucket& bucket : fresh) {
    bucket.steps = at::zeros({static_cast<std::int64_t>(bucket.slots.size())},
                             at::TensorOptions().dtype(at::kFloat).device(bucket.device));
    const std::vector<Tensor> steps = bucket.steps.unbind();
    for (std::size_t i = 0; i < bucket.slots.size(); ++i) {
      Slot& slot = bucket.slots[i];
      slot.step = steps[i];
      const auto known = kept.find(slot.param.unsafeGetTensorImpl());
      if (known == kept.end()) continue;
      slot.step.copy_(known->second.step);
      slot.state = std::move(known->second.state);
    }
  }
  return fresh;
}

}  // namespace mmtrain::optim::detail
