#pragma once

#include <c10/core/Device.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "mmtrain/parallel/replica_set.h"
#include "mmtrain/parallel/scatter_gather.h"

namespace mmtrain::parallel {

/// Calls `net->forward(arguments...)`.
struct NaturalForward {
  template <class Holder, class... Arguments>
  decltype(auto) operator()(Holder& net, const Arguments&... arguments) const {
    return net->forward(arguments...);
  }
};

/// The meaning of Python's `nn.DataParallel`, for inference and hand-written loops: the rows of a batch are shared
/// out to replicas of one net on several devices, which run at the same time, and their outputs are gathered on the
/// first. To train, ranks that own everything (a Trainer's strategy) are faster: here the backward pass of CPU replicas
/// runs on one thread.
///
///     DataParallel net(model, parse_devices("cuda:0,1"));                        // model->forward(image)
///     DataParallel net(model, cpu_replicas(4), [](auto& model, const torch::Tensor& image, const torch::Tensor& audio)
///     {
///       return model->forward(image, audio);
///     });
///
/// **Replica 0 is the module itself**; the others are made once, and share the memory of its parameters where they are
/// on its device (all CPU replicas). One autograd graph spans them all: gradients arrive, summed, in the parameters of
/// `module()`, which an ordinary optimizer steps. Before each call replicas take over what changed in the module:
/// parameters whose values, type or `requires_grad` changed (on other devices: seen by the version that every in-place
/// operation counts up), all buffers, and training mode. Buffers that the net itself changes (running statistics) are
/// thus those of replica 0, from its rows, as in Python. Other members of the net are those of construction.
///
/// Threads run with the caller's grad and inference mode, autocast, CUDA streams, and a share of its CPU threads.
/// Layers of this library that draw random numbers draw by the caller's `nn::RandomContext`, whose `rows` must be 0 or
/// the rows of the batch, as on one device. Without one, one number a call is taken from LibTorch's default generator
/// in training mode. LibTorch's own dropout draws in the order in which threads happen to run.
template <class Holder, class Forward = NaturalForward>
class DataParallel {
 public:
  /// `devices`: CUDA devices, or the CPU as often as there are to be replicas. The module must be on the first.
  /// `forward(holder, inputs...)` is called by several threads at once, each with its own replica. Replicas are made as
  /// by `replicate`. Throws `ConfigError` for other devices, for a module that cannot be replicated, and for joint
  /// statistics: they belong to ranks.
  DataParallel(Holder module, const std::vector<c10::Device>& devices, Forward forward = {},
               const std::type_identity_t<ReplicaFactory<Holder>>& factory = nullptr)
      : forward_(std::move(forward)), replicas_{std::move(module)}, set_(detail::module_ptr(replicas_[0]), devices) {
    const std::vector<c10::Device> others(set_.devices().begin() + 1, set_.devices().end());
    for (Holder& replica : replicate(replicas_[0], others, factory)) {
      set_.add(detail::module_ptr(replica));
      replicas_.push_back(std::move(replica));
    }
  }

  /// The net whose parameters are trained and saved.
  Holder& module() { return replicas_[0]; }

  const std::vector<c10::Device>& devices() const { return set_.devices(); }

  /// Tensors, `NamedTensors` and `Batch`es are shared out by rows (`scatter`), of which all must have equally many; as
  /// many replicas run as there are rows for. Tensors without rows and whatever else is given go to every replica.
  /// Returns what `forward` does, with every tensor gathered: a tensor, `NamedTensors`, or a pair, tuple or vector of
  /// these.
  ///
  /// Throws `ConfigError` for inputs that cannot be shared out. An exception in a replica is thrown again when all have
  /// ended, the first replica's if there are several, with its number and device in the text (`DistributedError`,
  /// unless it was one of the library's other errors) and itself nested in it; the object stays usable. One call at a
  /// time; others wait.
  template <class... Arguments>
  auto forward(const Arguments&... arguments) {
    using Output = std::decay_t<std::invoke_result_t<const Forward&, Holder&, const Arguments&...>>;
    const std::vector<RowRange> ranges = set_.share_out({detail::rows_of(arguments)...});
    const std::vector<c10::Device> active(devices().begin(),
                                          devices().begin() + static_cast<std::ptrdiff_t>(ranges.size()));
    const std::tuple pieces{detail::pieces_of(arguments, active)...};
    std::vector<std::optional<Output>> outputs(ranges.size());
    set_.run(ranges, [&](std::size_t replica) {
      outputs[replica].emplace(std::apply(
          [&](const auto&... piece) -> Output {
            return std::as_const(forward_)(replicas_[replica], piece[replica]...);
          },
          pieces));
    });
    return detail::gather_all<Output>(outputs, devices()[0]);
  }

 private:
  Forward forward_;
  std::vector<Holder> replicas_;
  detail::ReplicaSet set_;
};

/// `count` replicas on the CPU, as `DataParallel` takes them.
inline std::vector<c10::Device> cpu_replicas(std::size_t count) { return {count, c10::Device(c10::kCPU)}; }

}  // namespace mmtrain::parallel
