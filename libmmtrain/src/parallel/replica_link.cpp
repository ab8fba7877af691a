#include "parallel/replica_link.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <limits>
#include <utility>

namespace mmtrain::parallel::detail {
namespace {

using torch::Tensor;
namespace autograd = torch::autograd;

// Takes the gradient of a replica's parameter to the module's, where those of all replicas are summed.
class ParameterGradient final : public autograd::Node {
 public:
  // The number lets it run as soon as the gradient is complete, as the accumulation into a leaf does.
  ParameterGradient(autograd::Edge original, c10::Device device)
      : Node(std::numeric_limits<std::uint64_t>::max(), {std::move(original)}), device_(device) {}

  autograd::variable_list apply(autograd::variable_list&& gradients) override {
    const Tensor& gradient = gradients[0];
    return {gradient.defined() ? gradient.to(device_) : gradient};
  }

 private:
  c10::Device device_;
};

bool same_layout(const Tensor& a, const Tensor& b) {
  return a.sizes() == b.sizes() && a.strides() == b.strides() && a.scalar_type() == b.scalar_type();
}

// The tensor keeps its identity, which the fields of its module know.
void share_memory(const Tensor& original, Tensor& replica) {
  if (replica.data_ptr() == original.data_ptr() && same_layout(replica, original)) return;
  replica.set_data(original.detach());
  // With one count of changes, autograd notices those of the module between forward and backward pass.
  autograd::impl::set_version_counter(replica, autograd::impl::version_counter(original));
}

// A tensor made in inference mode does not count its changes.
std::int64_t version_of(const Tensor& tensor) { return tensor.is_inference() ? -1 : tensor._version(); }

void refresh_edge(const Tensor& original, const Tensor& replica) {
  if (!original.requires_grad() || original.is_inference()) {
    if (replica.requires_grad()) autograd::impl::set_gradient_edge(replica, autograd::Edge());
    return;
  }
  const autograd::Edge edge = autograd::impl::gradient_edge(original);
  if (const auto& node = replica.grad_fn(); node != nullptr && node->next_edge(0) == edge) return;
  autograd::set_history(replica, std::make_shared<ParameterGradient>(edge, original.device()));
}

// No change as far as autograd is concerned: another pass may wait for its backward pass with the same values.
void refresh_buffer(const Tensor& original, Tensor replica) {
  if (!same_layout(original, replica)) {
    replica.set_data(original.detach().to(replica.device(), original.scalar_type(), false, /*copy=*/true));
    return;
  }
  const at::AutoDispatchBelowADInplaceOrView no_version_bump;
  replica.copy_(original, /*non_blocking=*/replica.is_cuda());
}

}  // namespace

ReplicaLink::ReplicaLink(torch::nn::Module& module, std::shared_ptr<torch::nn::Module> replica)
    : replica_(std::move(replica)), pair_(module, *replica_) {
  for (const NetPair::Tensors& tensors : pair_.parameters) {
    // It becomes a point of the graph on the way to the module's.
    tensors.replica.set_requires_grad(false);
    parameters_.push_back({tensors.original, tensors.replica});
  }
}

void ReplicaLink::refresh() {
  const c10::InferenceMode outside(false);
  const torch::NoGradGuard no_grad;
  for (Parameter& parameter : parameters_) {
    refresh_values(parameter);
    refresh_edge(parameter.original, parameter.replica);
  }
  for (const NetPair::Tensors& buffer : pair_.buffers) refresh_buffer(buffer.original, buffer.replica);
  pair_.copy_training_mode();
}

void ReplicaLink::refresh_values(Parameter& parameter) {
  const Tensor& original = parameter.original;
  Tensor& replica = parameter.replica;
  if (original.device() == replica.device() && !original.is_inference()) return share_memory(original, replica);
  const std::int64_t version = version_of(original);
  const bool known = version != -1 && version == parameter.version && original.data_ptr() == parameter.memory;
  if (known && same_layout(original, replica)) return;
  if (same_layout(original, replica)) {
    // Through an alias: the replica is a point of a graph now, which takes no change in place.
    replica.detach().copy_(original, /*non_blocking=*/replica.is_cuda());
  } else {
    replica.set_data(original.detach().to(replica.device(), original.scalar_type(), false, /*copy=*/true));
  }
  parameter.version = version;
  parameter.memory = original.data_ptr();
}

}  // namespace mmtrain::parallel::detail
