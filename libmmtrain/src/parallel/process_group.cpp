#include "mmtrain/parallel/process_group.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <utility>

#include "mmtrain/core/error.h"
#include "parallel/nccl_backend.h"
#include "parallel/process_group_impl.h"

namespace mmtrain::parallel {
namespace {

using Works = std::vector<c10::intrusive_ptr<c10d::Work>>;

void wait_for(const Works& works) {
  for (const auto& work : works) work->wait();
}

// `device`: of this rank, if it has one beside the CPU.
void check(const at::Tensor& tensor, const std::optional<c10::Device>& device) {
  if (!tensor.defined() || tensor.layout() != at::kStrided ||
      !(tensor.device().is_cpu() || tensor.device() == device)) {
    throw ConfigError(fmt::format(
        "[ProcessGroup] collectives take dense tensors on the CPU{}, got {}: move it there first",
        device ? " or on " + device->str() : "",
        tensor.defined() ? fmt::format("{} on {}", tensor.toString(), tensor.device().str()) : "an undefined tensor"));
  }
  switch (tensor.scalar_type()) {
    case at::kDouble:
    case at::kFloat:
    case at::kHalf:
    case at::kBFloat16:
    case at::kLong:
    case at::kInt:
    case at::kChar:
    case at::kByte:
    case at::kBool:
      return;
    default:
      throw ConfigError(fmt::format("[ProcessGroup] collectives do not take tensors of {}: convert to float32 or int64",
                                    c10::toString(tensor.scalar_type())));
  }
}

// The memory of `tensor` apart from autograd and its version; bools as bytes, which all back ends can reduce.
at::Tensor raw(const at::Tensor& tensor, const std::optional<c10::Device>& device) {
  check(tensor, device);
  at::Tensor data = tensor.variable_data();
  return data.scalar_type() == at::kBool ? data.view(at::kByte) : data;
}

// A tensor as a collective takes it, and the way back into tensors of other strides.
class Buffer {
 public:
  Buffer(const at::Tensor& tensor, const std::optional<c10::Device>& device)
      : tensor_(raw(tensor, device)), contiguous_(tensor_.contiguous()), is_bool_(tensor.scalar_type() == at::kBool) {}

  const at::Tensor& tensor() const { return contiguous_; }
  std::vector<at::Tensor> list() const { return {contiguous_}; }
  bool is_bool() const { return is_bool_; }
  void store() const {
    if (!contiguous_.is_same(tensor_)) tensor_.copy_(contiguous_);
  }

 private:
  at::Tensor tensor_, contiguous_;
  bool is_bool_;
};

// Tensors without elements take no part: all ranks have the same shapes.
std::vector<Buffer> buffers_of(const std::vector<at::Tensor>& tensors, const std::optional<c10::Device>& device) {
  std::vector<Buffer> buffers;
  buffers.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    Buffer buffer(tensor, device);
    if (tensor.numel() > 0) buffers.push_back(std::move(buffer));
  }
  return buffers;
}

// Starts a collective on every tensor before it waits for the first.
template <class Start>
void run_in_place(const std::vector<at::Tensor>& tensors, const std::optional<c10::Device>& device, Start start) {
  const at::NoGradGuard no_grad;
  const std::vector<Buffer> buffers = buffers_of(tensors, device);
  Works works;
  for (const Buffer& buffer : buffers) works.push_back(start(buffer));
  wait_for(works);
  for (const Buffer& buffer : buffers) buffer.store();
}

c10d::ReduceOp::RedOpType c10d_op(ReduceOp op, bool of_bools) {
  switch (op) {
    case ReduceOp::min:
      return c10d::ReduceOp::MIN;
    case ReduceOp::max:
      return c10d::ReduceOp::MAX;
    case ReduceOp::sum:
      break;
  }
  return of_bools ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
}

}  // namespace

ProcessGroup::Impl::Impl(c10::intrusive_ptr<RankBackend> rank_backend, const c10::intrusive_ptr<c10d::Store>& store,
                         int local_rank_of_host, std::chrono::milliseconds timeout_of_all)
    : backend(std::move(rank_backend)),
      group(c10::make_intrusive<c10d::ProcessGroup>(store, backend->getRank(), backend->getSize())),
      local_rank(local_rank_of_host),
      timeout(timeout_of_all) {
  group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::CUSTOM, c10::intrusive_ptr<c10d::Backend>(backend));
  group->setDefaultBackend(c10d::ProcessGroup::CUSTOM);
}

// Its works can no longer be waited for.
ProcessGroup::Impl::~Impl() {
  if (on_gpu_) on_gpu_->abort();
}

void ProcessGroup::Impl::use_device(c10::Device device, const c10::intrusive_ptr<c10d::Backend>& on_gpu) {
  group->setBackend(device.type(), c10d::ProcessGroup::NCCL, on_gpu);
  device_ = device;
  on_gpu_ = on_gpu;
  backend->on_failure([on_gpu] { on_gpu->abort(); });
}

c10d::Backend& ProcessGroup::Impl::backend_for(const at::Tensor& tensor) const {
  return tensor.device().is_cpu() ? *backend : *on_gpu_;
}

void ProcessGroup::Impl::close() {
  if (on_gpu_ && backend->first_error().empty()) {
    backend->barrier()->wait();  // nobody is in a collective of theirs any more
    on_gpu_->shutdown();
    on_gpu_.reset();
  }
  backend->close();
}

void validate(const GroupOptions& options) {
  if (options.timeout.count() <= 0) {
    throw ConfigError(fmt::format("[ProcessGroup] timeout must be positive, got {} ms", options.timeout.count()));
  }
}

ProcessGroup::ProcessGroup() = default;
ProcessGroup::ProcessGroup(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

int ProcessGroup::rank() const { return impl_ ? impl_->backend->getRank() : 0; }
int ProcessGroup::world_size() const { return impl_ ? impl_->backend->getSize() : 1; }
int ProcessGroup::local_rank() const { return impl_ ? impl_->local_rank : 0; }
std::chrono::milliseconds ProcessGroup::timeout() const { return impl_ ? impl_->timeout : GroupOptions{}.timeout; }

void ProcessGroup::all_reduce(const at::Tensor& tensor, ReduceOp op) {
  if (impl_) all_reduce(std::vector<at::Tensor>{tensor}, op);
}

void ProcessGroup::all_reduce(const std::vector<at::Tensor>& tensors, ReduceOp op) {
  if (!impl_) return;
  run_in_place(tensors, impl_->device(), [&](const Buffer& buffer) {
    c10d::AllreduceOptions options;
    options.reduceOp = c10d_op(op, buffer.is_bool());
    std::vector<at::Tensor> list = buffer.list();
    return impl_->backend_for(buffer.tensor()).allreduce(list, options);
  });
}

void ProcessGroup::broadcast(const std::vector<at::Tensor>& tensors, int root) {
  if (root < 0 || root >= world_size()) {
    throw ConfigError(
        fmt::format("[ProcessGroup] broadcast needs a root from 0 to {}, got {}", world_size() - 1, root));
  }
  if (!impl_) return;
  c10d::BroadcastOptions options;
  options.rootRank = root;
  run_in_place(tensors, impl_->device(), [&](const Buffer& buffer) {
    std::vector<at::Tensor> list = buffer.list();
    return impl_->backend_for(buffer.tensor()).broadcast(list, options);
  });
}

std::vector<at::Tensor> ProcessGroup::all_gather(const at::Tensor& tensor) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> results;
  for (int rank = 0; rank < world_size(); ++rank) results.push_back(at::empty(tensor.sizes(), tensor.options()));
  if (!impl_) {
    results[0].copy_(tensor);
  } else if (std::vector<at::Tensor> inputs = {raw(tensor, impl_->device()).contiguous()}; tensor.numel() > 0) {
    std::vector<std::vector<at::Tensor>> outputs(1);
    for (const at::Tensor& result : results) outputs[0].push_back(raw(result, impl_->device()));
    impl_->backend_for(tensor).allgather(outputs, inputs)->wait();
  }
  return results;
}

void ProcessGroup::barrier() {
  if (impl_) impl_->backend->barrier()->wait();
}

void ProcessGroup::shutdown() {
  if (impl_) impl_->close();
}

void ProcessGroup::use_device(c10::Device device) {
  if (!impl_ || device.is_cpu() || impl_->device() == device) return;
  if (impl_->device()) {
    throw ConfigError(fmt::format("[ProcessGroup] rank {} uses {} already and cannot take {} too", rank(),
                                  impl_->device()->str(), device.str()));
  }
  // A connection of its own: threads that share one would wait for each other in it.
  impl_->use_device(device,
                    make_nccl_backend(impl_->group->getStore()->clone(), rank(), world_size(), device, impl_->timeout));
}

void ProcessGroup::abort(std::string_view error, std::optional<c10::Device> device) noexcept {
  if (!impl_) return;
  const std::string place =
      device ? fmt::format("[rank {}, {}]", rank(), device->str()) : fmt::format("[rank {}]", rank());
  impl_->backend->fail(fmt::format("{} {}", place, error));
}

std::string ProcessGroup::first_error() const { return impl_ ? impl_->backend->first_error() : std::string(); }

std::string broadcast_text(ProcessGroup& group, const std::string& text, int root) {
  if (group.world_size() == 1) return text;
  const at::Tensor length = at::full({}, static_cast<std::int64_t>(text.size()), at::kLong);
  group.broadcast({length}, root);
  const at::Tensor bytes = at::zeros({length.item<std::int64_t>()}, at::kByte);
  char* data = reinterpret_cast<char*>(bytes.mutable_data_ptr<std::uint8_t>());
  if (group.rank() == root) std::copy(text.begin(), text.end(), data);
  group.broadcast({bytes}, root);
  return {data, data + bytes.numel()};
}

}  // namespace mmtrain::parallel
