#include "mmtrain/optim/optimizer.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "mmtrain/core/error.h"
#include "optim/optimizer_impl.h"

namespace mmtrain::optim {

using at::Tensor;
using detail::Bucket;
using detail::Slot;

namespace {

// Tensors of one device and dtype in one piece of memory, as views of the shapes of `like`.
std::vector<Tensor> views_like(const Tensor& flat, const std::vector<Tensor>& like) {
  std::vector<Tensor> views;
  views.reserve(like.size());
  std::int64_t offset = 0;
  for (const Tensor& tensor : like) {
    const Tensor part = flat.narrow(0, offset, tensor.numel());
    views.push_back(tensor.is_non_overlapping_and_dense()
                        ? part.as_strided(tensor.sizes(), tensor.strides(), part.storage_offset())
                        : part.view(tensor.sizes()));
    offset += tensor.numel();
  }
  return views;
}

Tensor flat_copy(const std::vector<Tensor>& tensors) {
  std::int64_t size = 0;
  for (const Tensor& tensor : tensors) size += tensor.numel();
  Tensor flat = at::empty({size}, tensors.front().options());
  at::_foreach_copy_(views_like(flat, tensors), tensors);
  return flat;
}

// Everything that an update of `batch` writes to.
std::vector<Tensor> written_by(const ParamBatch& batch) {
  std::vector<Tensor> tensors = batch.params;
  for (const auto& list : batch.state) tensors.insert(tensors.end(), list.begin(), list.end());
  return tensors;
}

void unscale(const std::vector<Tensor>& grads, const Tensor& grad_scale) {
  const Tensor inv_scale = grad_scale.to(at::kDouble).reciprocal().to(at::kFloat);
  Tensor ignored = at::zeros_like(inv_scale);
  at::_amp_foreach_non_finite_check_and_unscale_(grads, ignored, inv_scale);
}

// For kernels that know of no scale. The device alone knows whether the step counts, so it is taken, and taken back
// where it does not: gradients that are no numbers leave no other way.
template <class Update>
void update_unless_inf(ParamBatch& batch, const amp::StepScale& scale, const Update& update) {
  if (scale.grad_scale.defined()) unscale(batch.grads, scale.grad_scale);
  if (!scale.found_inf.defined()) return update();
  const std::vector<Tensor> written = written_by(batch);
  const Tensor before = flat_copy(written);
  update();
  const Tensor result = at::where(scale.found_inf.to(at::kBool), before, flat_copy(written));
  at::_foreach_copy_(written, views_like(result, written));
}

amp::StepScale on_device(const amp::StepScale& scale, const at::Device& device) {
  const auto move = [&](const Tensor& value) {
    return value.defined() ? value.to(device, /*non_blocking=*/true) : value;
  };
  return {move(scale.grad_scale), move(scale.found_inf)};
}

bool has_fused_kernels(const at::Device& device, at::ScalarType dtype) {
  const bool known_type = dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16;
  return known_type && (device.is_cpu() || device.is_cuda());
}

}  // namespace

bool Optimizer::Impl::fits(const std::vector<torch::optim::OptimizerParamGroup>& groups) const {
  std::size_t count = 0;
  for (const auto& group : groups) {
    for (const Tensor& param : group.params()) {
      if (count == known.size() || !known[count].is_same(param)) return false;
      ++count;
    }
  }
  if (count != known.size()) return false;
  return std::all_of(buckets.begin(), buckets.end(), [](const Bucket& bucket) {
    return std::all_of(bucket.slots.begin(), bucket.slots.end(),
                       [&](const Slot& slot) { return bucket.holds(slot.param); });
  });
}

void Optimizer::Impl::fit(const std::vector<torch::optim::OptimizerParamGroup>& groups) {
  if (fits(groups)) return;
  buckets = detail::make_buckets(groups, buckets);
  known.clear();
  for (const auto& group : groups) known.insert(known.end(), group.params().begin(), group.params().end());
}

Optimizer::Optimizer(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                     std::unique_ptr<torch::optim::OptimizerOptions> defaults)
    : torch::optim::Optimizer(groups, std::move(defaults)), impl_(std::make_unique<Impl>()) {
  const at::NoGradGuard no_grad;
  impl_->fit(param_groups());
}

Optimizer::~Optimizer() = default;

void Optimizer::set_names(const std::vector<ParamGroup>& groups) {
  for (const ParamGroup& group : groups) {
    impl_->group_names.push_back(group.name);
    for (const auto& item : group.parameters) {
      if (impl_->names.contains(item.key())) {
        throw ConfigError(fmt::format("[optim] the name '{}' is in the groups twice", item.key()));
      }
      impl_->names.insert(item.key(), item.value());
    }
  }
}

std::vector<std::string> Optimizer::group_names() const {
  std::vector<std::string> names = impl_->group_names;
  names.resize(param_groups().size());
  return names;
}

torch::Tensor Optimizer::step(LossClosure closure) {
  Tensor loss;
  if (closure) {
    const at::AutoGradMode with_gradients(true);
    loss = closure();
  }
  run({});
  return loss;
}

void Optimizer::scaled_step(const amp::StepScale& scale) { run(scale); }

void Optimizer::run(const amp::StepScale& scale) {
  const at::NoGradGuard no_grad;
  impl_->fit(param_groups());
  for (Bucket& bucket : impl_->buckets) {
    const torch::optim::OptimizerOptions& options = param_groups()[bucket.group].options();
    if (!bucket.gather(state_names(options))) continue;
    const amp::StepScale here = on_device(scale, bucket.device);
    bucket.count_step(here.found_inf);
    ParamBatch& batch = bucket.batch;
    batch.fused = has_fused_kernels(bucket.device, bucket.dtype) && bucket.dense() &&
                  can_fuse(options, bucket.device, bucket.dtype);
    batch.lr = impl_->capturable && batch.fused ? bucket.lr : Tensor();
    batch.scale = batch.fused ? here : amp::StepScale();
    if (batch.fused) {
      update(options, batch);
    } else {
      update_unless_inf(batch, here, [&] { update(options, batch); });
    }
    batch.grads.clear();  // zero_grad frees them only if nobody else holds them
  }
}

void Optimizer::set_capturable(bool capturable) {
  impl_->capturable = capturable;
  if (capturable) refresh_lr();
}

bool Optimizer::is_capturable() {
  impl_->fit(param_groups());
  return std::all_of(impl_->buckets.begin(), impl_->buckets.end(), [this](const Bucket& bucket) {
    const Tensor& parameter = bucket.slots.front().param;
    return can_fuse(param_groups()[bucket.group].options(), bucket.device, parameter.scalar_type());
  });
}

void Optimizer::refresh_lr() {
  const at::NoGradGuard no_grad;
  impl_->fit(param_groups());
  for (Bucket& bucket : impl_->buckets) {
    const double lr = param_groups()[bucket.group].options().get_lr();
    if (bucket.lr.defined()) {
      bucket.lr.fill_(lr);
    } else {
      bucket.lr = at::full({}, lr, at::TensorOptions().dtype(at::kFloat).device(bucket.device));
    }
  }
}

}  // namespace mmtrain::optim
