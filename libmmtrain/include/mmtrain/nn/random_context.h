#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mmtrain/core/export.h"

/// Randomness inside a training step without a generator's state: what a layer draws is a pure function of (seed, step,
/// layer, number of the call, sample, element). The same samples see the same masks whether they run on one device or
/// on many, in one batch or in several, today or after a resume.
namespace mmtrain::nn {

/// Which rows a thread works on, and in which step.
struct StepContext {
  std::uint64_t seed = 0;
  std::int64_t step = 0;  ///< number of the optimizer step
  /// Rows of the batch at hand. A layer that sees a multiple of it as first dimension (frames of clips, say) counts
  /// them to their rows; one that sees anything else draws for its whole input as for the first row: reproducible, but
  /// dependent on how the batch was split. 0: whatever a layer sees as first dimension.
  std::int64_t rows = 0;
  /// Place of the first row in the joined batch of the step: of all ranks, of all micro-batches.
  std::int64_t first_sample = 0;
  /// Place of each row, where they do not follow one another; `rows` numbers.
  std::vector<std::int64_t> samples = {};
  /// `step` as an int64 scalar on the device, which layers there read instead of the number: a captured graph then
  /// draws anew each time it is replayed. Undefined: the number is used.
  torch::Tensor step_on_device = {};
};

/// Makes the layers of this library draw by `StepContext` on this thread, until it is destroyed. Scopes nest; a thread
/// that runs a rank needs its own. Without any, layers take one number a call from LibTorch's default CPU generator, so
/// `torch::manual_seed` governs them as it does LibTorch's own.
class MMTRAIN_API RandomContext {
 public:
  /// A context together with what was drawn in it so far.
  struct State {
    explicit State(StepContext where) : step(std::move(where)) {}
    StepContext step;
    std::unordered_map<std::uint64_t, std::uint32_t> calls;  ///< of each layer
  };

  /// Throws `ConfigError` for negative numbers and for `samples` that are not `rows` numbers.
  explicit RandomContext(StepContext step);
  /// Goes on where `state` was taken; for passes that are repeated.
  explicit RandomContext(State state);
  ~RandomContext();
  RandomContext(const RandomContext&) = delete;
  RandomContext& operator=(const RandomContext&) = delete;

  /// The innermost context of this thread, or null.
  static RandomContext* current();

  const StepContext& step() const { return state_.step; }
  const State& state() const { return state_; }

  /// How often `layer` has drawn before in this context: each call has its own numbers.
  std::uint32_t next_call(std::uint64_t layer) { return state_.calls[layer]++; }

 private:
  State state_;
  RandomContext* outer_;
};

/// A layer that draws random numbers by the context. Layers that share a number take turns as they are called, so nets
/// with a fixed order of layers are reproducible even before numbers are assigned.
class MMTRAIN_API RandomLayer {
 public:
  virtual ~RandomLayer() = default;
  std::uint64_t random_layer() const { return random_layer_; }
  void set_random_layer(std::uint64_t layer) { random_layer_ = layer; }

 private:
  std::uint64_t random_layer_ = 0;
};

/// Numbers every `RandomLayer` in `module` by a hash of its dotted name: equal nets get equal numbers, wherever and
/// whenever they are built. Call it once on each replica.
MMTRAIN_API void assign_dropout_layers(torch::nn::Module& module);

/// Dotted names of the layers in `module` that draw from LibTorch's generator: its own dropout, and its recurrent and
/// attention layers with dropout. On the threads of one process they draw in the order in which they happen to run.
MMTRAIN_API std::vector<std::string> stock_dropout_layers(const torch::nn::Module& module);

}  // namespace mmtrain::nn
