#include "mmtrain/parallel/scatter_gather.h"

#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>

#include "mmtrain/core/error.h"
#include "mmtrain/nn/batch_norm.h"
#include "mmtrain/nn/random_context.h"
#include "parallel/net_pair.h"

namespace mmtrain::parallel {
namespace {

using torch::Tensor;

// Asynchronous where that is safe: a copy to the CPU that has not arrived yet would be read nevertheless.
bool may_return_early(c10::Device device) { return device.is_cuda(); }

Tensor to_device(const Tensor& tensor, c10::Device device) { return tensor.to(device, may_return_early(device)); }

NamedTensors to_device(const NamedTensors& tensors, c10::Device device) {
  NamedTensors moved;
  for (const auto& item : tensors) moved.insert(item.key(), to_device(item.value(), device));
  return moved;
}

Batch to_device(const Batch& batch, c10::Device device) { return batch.to(device, may_return_early(device)); }

template <class T>
std::vector<T> scatter_to(const T& whole, const std::vector<c10::Device>& devices) {
  std::vector<T> pieces = scatter(whole, static_cast<std::int64_t>(devices.size()));
  for (std::size_t i = 0; i < pieces.size(); ++i) pieces[i] = to_device(pieces[i], devices[i]);
  return pieces;
}

// Puts the random generators back where they were.
class KeepGenerators {
 public:
  explicit KeepGenerators(c10::Device device) {
    keep(at::globalContext().defaultGenerator(c10::kCPU));
    if (!device.is_cpu()) keep(at::globalContext().defaultGenerator(device));
  }
  ~KeepGenerators() {
    for (auto& [generator, state] : states_) {
      const std::lock_guard<std::mutex> lock(generator.mutex());
      generator.set_state(state);
    }
  }
  KeepGenerators(const KeepGenerators&) = delete;
  KeepGenerators& operator=(const KeepGenerators&) = delete;

 private:
  void keep(at::Generator generator) {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    states_.emplace_back(generator, generator.get_state());
  }

  std::vector<std::pair<at::Generator, Tensor>> states_;
};

std::shared_ptr<torch::nn::Module> clone(torch::nn::Module& module, c10::Device device) {
  try {
    return module.clone(device);
  } catch (const c10::Error& error) {
    const std::string reason = error.what_without_backtrace();
    throw ConfigError(fmt::format(
        "[replicate] a copy of the net can be made in two ways, and neither is given: a factory that builds "
        "a fresh net, or a net that, with all below it, is torch::nn::Cloneable and registers its parts in "
        "reset(). LibTorch says: {}",
        reason.substr(0, reason.find('\n'))));
  }
}

void copy_tensors(const std::vector<detail::NetPair::Tensors>& pairs, c10::Device device) {
  for (const detail::NetPair::Tensors& pair : pairs) {
    Tensor replica = pair.replica;
    replica.set_data(pair.original.detach().to(device, pair.original.scalar_type(), /*non_blocking=*/false,
                                               /*copy=*/true));
  }
}

// What a net has besides its tensors and is not built with.
void copy_settings(const detail::NetPair& pair) {
  pair.copy_training_mode();
  for (const detail::NetPair::Tensors& parameter : pair.parameters) {
    parameter.replica.set_requires_grad(parameter.original.requires_grad());
  }
  for (const detail::NetPair::Modules& part : pair.modules) {
    const auto* original = dynamic_cast<const nn::RandomLayer*>(part.original);
    auto* replica = dynamic_cast<nn::RandomLayer*>(part.replica);
    if (original != nullptr && replica != nullptr) replica->set_random_layer(original->random_layer());
    if (auto* norm = dynamic_cast<nn::JointStatisticsLayer*>(part.replica)) norm->set_joint_statistics(nullptr);
  }
}

void copy_state(torch::nn::Module& module, torch::nn::Module& replica, c10::Device device) {
  const detail::NetPair pair(module, replica);
  copy_tensors(pair.parameters, device);
  copy_tensors(pair.buffers, device);
  copy_settings(pair);
}

}  // namespace

std::vector<RowRange> split_rows(std::int64_t rows, std::int64_t parts) {
  if (rows < 0 || parts < 1) {
    throw ConfigError(
        fmt::format("[scatter] rows must not be negative and there must be parts, got {} rows for {}", rows, parts));
  }
  const std::int64_t busy = std::clamp<std::int64_t>(rows, 1, parts), whole = rows / busy, longer = rows % busy;
  std::vector<RowRange> ranges;
  for (std::int64_t part = 0, begin = 0; part < busy; ++part) {
    const std::int64_t count = whole + (part < longer ? 1 : 0);
    ranges.push_back({begin, count});
    begin += count;
  }
  return ranges;
}

std::vector<Tensor> scatter(const Tensor& tensor, std::int64_t parts) {
  if (!tensor.defined() || tensor.dim() == 0) {
    throw ConfigError("[scatter] the tensor must have rows to share, got one without dimensions");
  }
  std::vector<Tensor> pieces;
  for (const RowRange& range : split_rows(tensor.size(0), parts)) {
    pieces.push_back(tensor.narrow(0, range.begin, range.count));
  }
  return pieces;
}

std::vector<NamedTensors> scatter(const NamedTensors& tensors, std::int64_t parts) {
  Batch batch;
  batch.inputs = tensors;
  std::vector<NamedTensors> pieces;
  for (Batch& piece : scatter(batch, parts)) pieces.push_back(std::move(piece.inputs));
  return pieces;
}

std::vector<Batch> scatter(const Batch& batch, std::int64_t parts) {
  std::vector<Batch> pieces;
  for (const RowRange& range : split_rows(batch.size(), parts))
    pieces.push_back(batch.narrow(range.begin, range.count));
  return pieces;
}

std::vector<Tensor> scatter(const Tensor& tensor, const std::vector<c10::Device>& devices) {
  return scatter_to(tensor, devices);
}

std::vector<NamedTensors> scatter(const NamedTensors& tensors, const std::vector<c10::Device>& devices) {
  return scatter_to(tensors, devices);
}

std::vector<Batch> scatter(const Batch& batch, const std::vector<c10::Device>& devices) {
  return scatter_to(batch, devices);
}

Tensor gather(const std::vector<Tensor>& tensors, c10::Device device) {
  const auto undefined = std::count_if(tensors.begin(), tensors.end(), [](const Tensor& t) { return !t.defined(); });
  if (undefined == static_cast<std::ptrdiff_t>(tensors.size())) return {};
  if (undefined > 0) {
    throw ConfigError(
        fmt::format("[gather] {} of {} tensors are undefined: give all or none", undefined, tensors.size()));
  }
  std::vector<Tensor> rows;
  for (const Tensor& tensor : tensors) {
    rows.push_back(to_device(tensor.dim() == 0 ? tensor.unsqueeze(0) : tensor, device));
  }
  return rows.size() == 1 ? rows[0] : at::cat(rows);
}

std::vector<std::shared_ptr<Model>> replicate(Model& model, const std::vector<c10::Device>& devices,
                                              const ModelFactory& factory) {
  if (!factory)
    throw ConfigError("[replicate] a copy of a Model is made by a factory that builds a fresh one, got none");
  const c10::InferenceMode outside(false);
  std::vector<std::shared_ptr<Model>> replicas;
  for (const c10::Device& device : devices) {
    const KeepGenerators keep(device);
    replicas.push_back(factory());
    copy_state(model.module(), replicas.back()->module(), device);
  }
  return replicas;
}

namespace detail {

std::shared_ptr<torch::nn::Module> replicate(torch::nn::Module& module, c10::Device device,
                                             const ModuleFactory& factory) {
  // Parameters of replicas are to be trained, also if they are made in a scope for inference.
  const c10::InferenceMode outside(false);
  const KeepGenerators keep(device);
  if (factory) {
    std::shared_ptr<torch::nn::Module> replica = factory();
    copy_state(module, *replica, device);
    return replica;
  }
  std::shared_ptr<torch::nn::Module> replica = clone(module, device);
  copy_settings(NetPair(module, *replica));
  return replica;
}

}  // namespace detail
}  // namespace mmtrain::parallel
