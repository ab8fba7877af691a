#include "mmtrain/parallel/replica_set.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <string>

#include "mmtrain/core/error.h"
#include "mmtrain/device/device.h"
#include "mmtrain/device/thread_limit.h"
#include "mmtrain/nn/batch_norm.h"
#include "mmtrain/nn/random_context.h"
#include "parallel/caller_state.h"
#include "parallel/replica_link.h"
#include "parallel/worker_pool.h"

namespace mmtrain::parallel::detail {
namespace {

using nn::RandomContext;

std::vector<c10::Device> checked(std::vector<c10::Device> devices) {
  if (devices.empty()) throw ConfigError("[DataParallel] there must be at least one device, got none");
  for (c10::Device& device : devices) {
    if (device.type() != devices[0].type() || !(device.is_cpu() || device.is_cuda())) {
      throw ConfigError(fmt::format("[DataParallel] the devices must be CUDA devices, or the CPU several times, got {}",
                                    device.str()));
    }
    if (device.is_cpu()) device = c10::Device(c10::kCPU);
    if (device.is_cuda()) device = c10::Device(c10::kCUDA, std::max<c10::DeviceIndex>(device.index(), 0));
    describe(device);  // throws where there is none
  }
  return devices;
}

void check_joint_statistics(const torch::nn::Module& module) {
  for (const auto& part : module.modules()) {
    const auto* layer = dynamic_cast<const nn::JointStatisticsLayer*>(part.get());
    if (layer == nullptr || layer->joint_statistics() == nullptr) continue;
    throw ConfigError(
        "[DataParallel] each replica normalizes its own rows, but the module has batch norms with joint statistics: "
        "convert them back (convert_sync_batchnorm with null), or train with ranks");
  }
}

using TensorItem = torch::OrderedDict<std::string, torch::Tensor>::Item;

std::vector<TensorItem> all_tensors(const torch::nn::Module& module) {
  std::vector<TensorItem> tensors = module.named_parameters().items();
  const std::vector<TensorItem> buffers = module.named_buffers().items();
  tensors.insert(tensors.end(), buffers.begin(), buffers.end());
  return tensors;
}

void check_place(const std::vector<TensorItem>& tensors, c10::Device device) {
  for (const TensorItem& tensor : tensors) {
    if (tensor.value().device() == device) continue;
    throw ConfigError(
        fmt::format("[DataParallel] the module must be on the first device, {}, but '{}' is on {}: move it",
                    device.str(), tensor.key(), tensor.value().device().str()));
  }
}

// What the layers of this library draw by, for each replica as for its rows on one device.
class SharedRandom {
 public:
  SharedRandom(std::int64_t rows, bool training) : outer_(RandomContext::current()) {
    if (outer_ != nullptr) {
      whole_ = outer_->state();
      if (whole_->step.rows != 0 && whole_->step.rows != rows) {
        throw ConfigError(fmt::format(
            "[DataParallel] the thread's RandomContext counts {} rows, the inputs have {}: they must be equal",
            whole_->step.rows, rows));
      }
    } else if (training) {
      // Threads that drew from one generator themselves would do so in a random order.
      at::Generator generator = at::detail::getDefaultCPUGenerator();
      const std::lock_guard<std::mutex> lock(generator.mutex());
      whole_.emplace(nn::StepContext{.seed = at::check_generator<at::CPUGeneratorImpl>(generator)->random64()});
    }
  }

  std::optional<RandomContext::State> share(const RowRange& range) const {
    std::optional<RandomContext::State> state = whole_;
    if (!state) return state;
    nn::StepContext& step = state->step;
    step.first_sample += range.begin;
    if (step.rows != 0) step.rows = range.count;
    if (!step.samples.empty()) {
      const auto begin = step.samples.begin() + range.begin;
      step.samples = {begin, begin + range.count};
    }
    return state;
  }

  // The caller's layers go on where the replicas' ended: those draw equally often.
  void ended(const RandomContext& replica) const {
    if (outer_ == nullptr) return;
    for (const auto& [layer, calls] : replica.state().calls) {
      const auto known = outer_->state().calls.find(layer);
      for (std::uint32_t i = known == outer_->state().calls.end() ? 0 : known->second; i < calls; ++i) {
        outer_->next_call(layer);
      }
    }
  }

 private:
  RandomContext* outer_;
  std::optional<RandomContext::State> whole_;
};

[[noreturn]] void rethrow(const std::exception_ptr& error, std::size_t replica, c10::Device device) {
  const auto text = [&](const std::string& reason) {
    return fmt::format("[DataParallel] replica {} on {} failed: {}", replica, device.str(), reason);
  };
  try {
    std::rethrow_exception(error);
  } catch (const ConfigError& cause) {
    std::throw_with_nested(ConfigError(text(cause.what())));
  } catch (const DataError& cause) {
    std::throw_with_nested(DataError(text(cause.what())));
  } catch (const DeviceError& cause) {
    std::throw_with_nested(DeviceError(text(cause.what())));
  } catch (const c10::Error& cause) {
    std::throw_with_nested(DistributedError(text(cause.what_without_backtrace())));
  } catch (const std::exception& cause) {
    std::throw_with_nested(DistributedError(text(cause.what())));
  } catch (...) {
    std::throw_with_nested(DistributedError(text("what was thrown is no std::exception")));
  }
}

}  // namespace

struct ReplicaSet::Impl {
  Impl(std::shared_ptr<torch::nn::Module> its_module, std::vector<c10::Device> its_devices)
      : module(std::move(its_module)),
        devices(checked(std::move(its_devices))),
        tensors(all_tensors(*module)),
        pool(devices.size()) {
    check_joint_statistics(*module);
  }

  void run_together(const std::vector<RowRange>& ranges, const std::function<void(std::size_t)>& task);
  std::vector<c10::Stream> current_streams() const;

  std::shared_ptr<torch::nn::Module> module;
  std::vector<c10::Device> devices;
  std::vector<TensorItem> tensors;  // of the module
  std::vector<ReplicaLink> links;   // of replicas 1, 2, ...
  std::mutex mutex;
  WorkerPool pool;
};

ReplicaSet::ReplicaSet(std::shared_ptr<torch::nn::Module> module, std::vector<c10::Device> devices)
    : impl_(std::make_unique<Impl>(std::move(module), std::move(devices))) {}

ReplicaSet::~ReplicaSet() = default;

const std::vector<c10::Device>& ReplicaSet::devices() const { return impl_->devices; }

void ReplicaSet::add(std::shared_ptr<torch::nn::Module> replica) {
  impl_->links.emplace_back(*impl_->module, std::move(replica));
}

std::vector<RowRange> ReplicaSet::share_out(const std::vector<std::optional<std::int64_t>>& rows) const {
  std::optional<std::int64_t> common;
  for (const std::optional<std::int64_t>& count : rows) {
    if (!count) continue;
    if (common.value_or(*count) != *count) {
      throw ConfigError(
          fmt::format("[DataParallel] all inputs must have equally many rows, got {} and {}", *common, *count));
    }
    common = count;
  }
  if (!common) throw ConfigError("[DataParallel] among the inputs must be a tensor with rows to share out, got none");
  return split_rows(*common, static_cast<std::int64_t>(impl_->devices.size()));
}

void ReplicaSet::run(const std::vector<RowRange>& ranges, const std::function<void(std::size_t)>& task) {
  const std::lock_guard<std::mutex> one_at_a_time(impl_->mutex);
  check_place(impl_->tensors, impl_->devices[0]);
  if (ranges.size() > 1) return impl_->run_together(ranges, task);
  try {
    task(0);
  } catch (...) {
    rethrow(std::current_exception(), 0, impl_->devices[0]);
  }
}

void ReplicaSet::Impl::run_together(const std::vector<RowRange>& ranges, const std::function<void(std::size_t)>& task) {
  for (std::size_t i = 0; i + 1 < ranges.size(); ++i) links[i].refresh();
  const SharedRandom random(ranges.back().begin + ranges.back().count, module->is_training());
  const CallerState caller;
  const std::vector<c10::Stream> streams = current_streams();
  const int threads = std::max(1, at::get_num_threads() / static_cast<int>(ranges.size()));

  const auto errors = pool.run(ranges.size(), [&](std::size_t replica) {
    const ThreadLimit limit(threads);
    std::optional<c10::StreamGuard> stream;
    if (!streams.empty()) stream.emplace(streams[replica]);
    const CallerState::Scope state(caller);
    std::optional<RandomContext> context;
    if (auto share = random.share(ranges[replica])) context.emplace(std::move(*share));
    task(replica);
    // The caller waits, so that its context is this thread's for the moment.
    if (replica == 0 && context) random.ended(*context);
  });
  for (std::size_t replica = 0; replica < errors.size(); ++replica) {
    if (errors[replica]) rethrow(errors[replica], replica, devices[replica]);
  }
}

std::vector<c10::Stream> ReplicaSet::Impl::current_streams() const {
  std::vector<c10::Stream> streams;
  if (devices[0].is_cpu()) return streams;
  const c10::impl::VirtualGuardImpl guard(devices[0].type());
  for (const c10::Device& device : devices) streams.push_back(guard.getStream(device));
  return streams;
}

}  // namespace mmtrain::parallel::detail
