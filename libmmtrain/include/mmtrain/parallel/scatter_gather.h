#pragma once

#include <c10/core/Device.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <vector>

#include "mmtrain/batch/batch.h"
#include "mmtrain/batch/model.h"
#include "mmtrain/core/export.h"

/// The rows of a batch to several devices, the rows of the answers back to one, and a net to several devices.
namespace mmtrain::parallel {

/// Rows [begin, begin + count) of a batch.
struct RowRange {
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

/// `rows` rows for at most `parts` parts, in order: numbers differ by at most one, the longer ones come first, parts
/// without rows are left out (of no rows at all, one part without rows remains). Throws `ConfigError` unless rows >= 0
/// and parts >= 1.
MMTRAIN_API std::vector<RowRange> split_rows(std::int64_t rows, std::int64_t parts);

/// Cuts all tensors by `split_rows`; views through which gradients flow back.
MMTRAIN_API std::vector<torch::Tensor> scatter(const torch::Tensor& tensor, std::int64_t parts);
MMTRAIN_API std::vector<NamedTensors> scatter(const NamedTensors& tensors, std::int64_t parts);
MMTRAIN_API std::vector<Batch> scatter(const Batch& batch, std::int64_t parts);

/// The same, piece i on device i. Copies from pinned memory to CUDA return at once.
MMTRAIN_API std::vector<torch::Tensor> scatter(const torch::Tensor& tensor, const std::vector<c10::Device>& devices);
MMTRAIN_API std::vector<NamedTensors> scatter(const NamedTensors& tensors, const std::vector<c10::Device>& devices);
MMTRAIN_API std::vector<Batch> scatter(const Batch& batch, const std::vector<c10::Device>& devices);

/// The rows of all `tensors`, one below the other, on `device`; gradients flow back to each. Tensors without dimensions
/// (a loss of each replica, say) become a row each. Undefined if all are undefined.
MMTRAIN_API torch::Tensor gather(const std::vector<torch::Tensor>& tensors, c10::Device device);

/// Builds a fresh, equally shaped net.
template <class Holder>
using ReplicaFactory = std::function<Holder()>;

namespace detail {

/// Null: the module is cloned.
using ModuleFactory = std::function<std::shared_ptr<torch::nn::Module>()>;
MMTRAIN_API std::shared_ptr<torch::nn::Module> replicate(torch::nn::Module& module, c10::Device device,
                                                         const ModuleFactory& factory);

template <class Module>
std::shared_ptr<torch::nn::Module> module_ptr(const torch::nn::ModuleHolder<Module>& holder) {
  return holder.ptr();
}
template <class Module>
std::shared_ptr<torch::nn::Module> module_ptr(const std::shared_ptr<Module>& module) {
  return module;
}

}  // namespace detail

/// A copy of `module` on each of `devices`, with memory of its own: same values and types of parameters and buffers,
/// same training mode, parameters frozen alike, layers that draw random numbers numbered alike, no joint statistics.
/// `Holder` is a TORCH_MODULE holder or a shared_ptr to a module. The random generators are left as they were.
///
/// Copies are what `factory` builds, with the state copied by name; without one, clones, for which the module and all
/// below it must be `torch::nn::Cloneable`. Throws `ConfigError` naming both ways where neither works, and naming the
/// first difference where the factory's net is another one.
template <class Holder>
requires(!std::is_base_of_v<Model, Holder>) std::vector<Holder> replicate(
    const Holder& module, const std::vector<c10::Device>& devices,
    const std::type_identity_t<ReplicaFactory<Holder>>& factory = nullptr) {
  using Module = std::remove_cvref_t<decltype(*module)>;
  detail::ModuleFactory build;
  if (factory) build = [&factory] { return detail::module_ptr(factory()); };
  std::vector<Holder> replicas;
  for (const c10::Device& device : devices) {
    replicas.push_back(
        Holder(std::dynamic_pointer_cast<Module>(detail::replicate(*detail::module_ptr(module), device, build))));
  }
  return replicas;
}

/// The same for the engine's models, which only a factory can build.
MMTRAIN_API std::vector<std::shared_ptr<Model>> replicate(Model& model, const std::vector<c10::Device>& devices,
                                                          const ModelFactory& factory);

}  // namespace mmtrain::parallel
