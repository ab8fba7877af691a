#include "mmtrain/parallel/gradient_reducer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <utility>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/io/state_dict.h"
#include "parallel/process_group_impl.h"

namespace mmtrain::parallel {
namespace {

constexpr std::int64_t kFirstBucketBytes = 1 << 20;  // small, so that the first reduction starts early

// Sums a bucket. The stock way divides by the number of ranks, which unequal shares of a batch would have to undo.
class SumHook final : public c10d::CppCommHookInterface<c10::intrusive_ptr<c10d::ProcessGroup>> {
 public:
  using CppCommHookInterface::CppCommHookInterface;

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    std::vector<at::Tensor> buffer{bucket.getBufferRef()};
    return state_->allreduce(buffer)->getFuture();
  }
};

// One line for each tensor: what must be equal on all ranks.
std::string signature(const torch::nn::Module& module) {
  std::string text;
  const auto add = [&](const char* kind, const std::string& name, const torch::Tensor& tensor) {
    text += fmt::format("{} {} [{}] {}{}\n", kind, name, fmt::join(tensor.sizes(), ","),
                        c10::toString(tensor.scalar_type()), tensor.requires_grad() ? "" : " frozen");
  };
  for (const auto& item : module.named_parameters()) add("parameter", item.key(), item.value());
  for (const auto& item : module.named_buffers()) add("buffer", item.key(), item.value());
  return text;
}

std::string first_difference(const std::string& ours, const std::string& theirs) {
  std::size_t begin = 0;
  const auto line = [&begin](const std::string& text) {
    if (begin >= text.size()) return std::string("nothing more");
    return text.substr(begin, text.find('\n', begin) - begin);
  };
  while (begin < ours.size() && line(ours) == line(theirs)) begin = ours.find('\n', begin) + 1;
  return fmt::format("here '{}', on rank 0 '{}'", line(ours), line(theirs));
}

// Every rank throws if one differs from rank 0: it breaks the group, and the others meet that in the barrier.
void require_same_net(const torch::nn::Module& module, ProcessGroup& group) {
  const std::string ours = signature(module);
  const std::string theirs = broadcast_text(group, ours);
  if (ours != theirs) {
    const std::string error =
        "[GradientReducer] the ranks were given different nets: " + first_difference(ours, theirs);
    group.abort(error);
    throw DistributedError(error);
  }
  group.barrier();
}

}  // namespace

struct GradientReducer::Impl {
  torch::nn::Module& module;
  ReducerOptions options;
  std::vector<std::string> names;         // of the parameters that are trained
  std::vector<torch::Tensor> parameters;  // these
  std::unique_ptr<c10d::Reducer> reducer;

  Impl(torch::nn::Module& net, const ReducerOptions& settings) : module(net), options(settings) {
    for (const auto& item : module.named_parameters()) {
      if (!item.value().requires_grad()) continue;
      names.push_back(item.key());
      parameters.push_back(item.value());
    }
  }

  void make_reducer(const ProcessGroup& group) {
    const auto bucket_bytes = static_cast<std::int64_t>(options.bucket_mib * (1 << 20));
    const std::vector<bool> sparse(parameters.size(), false);
    const auto& [buckets, limits] = c10d::compute_bucket_assignment_by_size(
        parameters, {static_cast<std::size_t>(kFirstBucketBytes), static_cast<std::size_t>(bucket_bytes)}, sparse);
    std::unordered_map<std::size_t, std::string> named;
    for (std::size_t i = 0; i < names.size(); ++i) named.emplace(i, names[i]);
    // Gradients come in the reverse order of the forward pass.
    std::vector<std::vector<std::size_t>> reversed(buckets.rbegin(), buckets.rend());
    reducer = std::make_unique<c10d::Reducer>(
        parameters, std::move(reversed), c10d_group(group), sparse, bucket_bytes, options.find_unused_parameters,
        /*gradient_as_bucket_view=*/true, std::move(named), kFirstBucketBytes,
        /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<std::int64_t>{});
    reducer->register_comm_hook(std::make_unique<SumHook>(c10d_group(group)));
  }

  std::vector<torch::Tensor> buffers() const { return module.buffers(); }
};

GradientReducer::GradientReducer(torch::nn::Module& module, ProcessGroup group, const ReducerOptions& options)
    : group_(std::move(group)) {
  if (!(options.bucket_mib > 0)) {
    throw ConfigError(fmt::format("[GradientReducer] bucket_mib must be positive, got {}", options.bucket_mib));
  }
  if (group_.world_size() == 1) return;
  const torch::NoGradGuard no_grad;
  require_same_net(module, group_);
  std::vector<torch::Tensor> values;
  for (const auto& item : state_dict(module)) values.push_back(item.value().detach());
  group_.broadcast(values);
  impl_ = std::make_unique<Impl>(module, options);
  if (!impl_->parameters.empty()) impl_->make_reducer(group_);
}

GradientReducer::~GradientReducer() {
  // Hooks stay in the graph's leaves; without a reducer to call they must go first.
  if (impl_ && impl_->reducer) impl_->reducer->remove_autograd_hooks();
}

void GradientReducer::synchronize_buffers() {
  if (!impl_ || impl_->options.buffers == BufferPolicy::none) return;
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> shared, averaged;
  // Collected anew each time: a net may have replaced a buffer by another tensor.
  for (const torch::Tensor& buffer : impl_->buffers()) {
    const bool mean = impl_->options.buffers == BufferPolicy::mean && buffer.is_floating_point();
    (mean ? averaged : shared).push_back(buffer);
  }
  if (!shared.empty()) group_.broadcast(shared);
  if (averaged.empty()) return;
  group_.all_reduce(averaged);
  for (torch::Tensor& buffer : averaged) buffer.div_(group_.world_size());
}

void GradientReducer::prepare(const torch::Tensor& output) {
  if (!impl_ || !impl_->reducer) return;
  if (impl_->reducer->should_rebuild_buckets()) impl_->reducer->rebuild_buckets();
  impl_->reducer->prepare_for_backward(impl_->options.find_unused_parameters ? std::vector<torch::Tensor>{output}
                                                                             : std::vector<torch::Tensor>{});
}

void GradientReducer::reduce_now() {
  if (!impl_) return;
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> gradients;
  for (torch::Tensor& parameter : impl_->parameters) {
    // All ranks reduce the same list; what has no gradient on any of them gets one of zeros.
    if (!parameter.grad().defined()) parameter.mutable_grad() = torch::zeros_like(parameter);
    gradients.push_back(parameter.grad());
  }
  group_.all_reduce(gradients);
}

void GradientReducer::check() {
  if (!impl_ || impl_->options.find_unused_parameters) return;
  std::vector<std::string> missing;
  for (std::size_t i = 0; i < impl_->parameters.size(); ++i) {
    if (!impl_->parameters[i].grad().defined()) missing.push_back(impl_->names[i]);
  }
  if (missing.empty()) return;
  // The other ranks may be waiting for these gradients in their backward pass: breaking the group frees them.
  const std::string error =
      fmt::format("[GradientReducer] no gradient reached {}: freeze what is not trained, or set find_unused_parameters",
                  fmt::join(missing, ", "));
  group_.abort(error);
  throw DistributedError(error);
}

}  // namespace mmtrain::parallel
