#pragma once

#include <torch/nn/module.h>

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "mmtrain/batch/batch.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/export.h"

namespace mmtrain {

/// What the engine needs to drive a net: the module, and a forward pass from a batch's inputs to one output tensor.
/// The net itself stays an ordinary `torch::nn::Module` with its natural `forward(...)`; `as_model` adapts it.
class MMTRAIN_API Model {
 public:
  virtual ~Model() = default;

  /// The net whose parameters are trained and saved.
  virtual torch::nn::Module& module() = 0;

  /// Runs the net on the inputs of a batch, in the batch's order.
  virtual torch::Tensor forward(const NamedTensors& inputs) = 0;
};

/// Builds a fresh, equally shaped model: how replicas are made.
using ModelFactory = std::function<std::shared_ptr<Model>()>;

/// Adapts any module with a natural forward: `as_model(net, [](auto& net, const NamedTensors& in) { return
/// net->forward(in["image"], in["audio"]); })`. `Holder` is a TORCH_MODULE holder or a shared_ptr to a module.
template <class Holder, class Forward>
std::shared_ptr<Model> as_model(Holder net, Forward forward) {
  class Adapter final : public Model {
   public:
    Adapter(Holder held, Forward call) : net_(std::move(held)), forward_(std::move(call)) {}
    torch::nn::Module& module() override { return *net_; }
    torch::Tensor forward(const NamedTensors& inputs) override { return forward_(net_, inputs); }

   private:
    Holder net_;
    Forward forward_;
  };
  return std::make_shared<Adapter>(std::move(net), std::move(forward));
}

/// Adapts a module whose forward takes the batch's inputs called `names`, in this order: `as_model(net, {"image",
/// "mel"})` calls `net->forward(image, mel)`. A batch may hold more; one that lacks a name throws `DataError`.
template <class Holder, std::size_t N>
std::shared_ptr<Model> as_model(Holder net, const char* const (&names)[N]) {
  return [&]<std::size_t... I>(std::index_sequence<I...>) {
    return as_model(
        std::move(net),
        [picked = std::array<std::string, N>{names[I]...}](Holder& held, const NamedTensors& inputs) -> torch::Tensor {
          return held->forward(input_called(picked[I], inputs)...);
        });
  }
  (std::make_index_sequence<N>());
}

/// Adapts a module with one input tensor; a batch with several inputs throws `ConfigError`.
template <class Holder>
std::shared_ptr<Model> as_model(Holder net) {
  return as_model(std::move(net), [](Holder& held, const NamedTensors& inputs) -> torch::Tensor {
    if (inputs.size() != 1) {
      throw ConfigError("[as_model] the batch has " + std::to_string(inputs.size()) +
                        " inputs, the module takes one: give as_model a function that picks them");
    }
    return held->forward(inputs[0].value());
  });
}

}  // namespace mmtrain
