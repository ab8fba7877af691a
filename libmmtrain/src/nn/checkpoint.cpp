#include "mmtrain/nn/checkpoint.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ThreadLocalState.h>
#include <ATen/autocast_mode.h>
#include <fmt/format.h>
#include <torch/autograd.h>

#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/nn/random_context.h"

namespace mmtrain::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// States of the generators that stock layers on `device` draw from.
class GeneratorStates {
 public:
  explicit GeneratorStates(torch::Device device) {
    generators_.push_back(at::detail::getDefaultCPUGenerator());
    if (!device.is_cpu()) generators_.push_back(at::globalContext().defaultGenerator(device));
    for (at::Generator& generator : generators_) {
      const std::lock_guard<std::mutex> lock(generator.mutex());
      states_.push_back(generator.get_state());
    }
  }

  bool operator==(const GeneratorStates& other) const {
    for (std::size_t i = 0; i < states_.size(); ++i) {
      if (!states_[i].equal(other.states_[i])) return false;
    }
    return true;
  }

  void restore() {
    for (std::size_t i = 0; i < states_.size(); ++i) {
      const std::lock_guard<std::mutex> lock(generators_[i].mutex());
      generators_[i].set_state(states_[i]);
    }
  }

 private:
  std::vector<at::Generator> generators_;
  std::vector<torch::Tensor> states_;
};

// Puts the generators back where they were when the block ran first, and afterwards where they were before.
class GeneratorReplay {
 public:
  GeneratorReplay(std::optional<GeneratorStates>& first_run, torch::Device device) {
    if (!first_run) return;
    now_.emplace(device);
    first_run->restore();
  }
  ~GeneratorReplay() {
    if (now_) now_->restore();
  }
  GeneratorReplay(const GeneratorReplay&) = delete;
  GeneratorReplay& operator=(const GeneratorReplay&) = delete;

 private:
  std::optional<GeneratorStates> now_;
};

// Autocast remembers the cast of a parameter. One made without gradients must not serve the second run, nor one of the
// second run what comes after.
class NoCastCache {
 public:
  NoCastCache() : before_(at::autocast::is_autocast_cache_enabled()) {
    at::autocast::set_autocast_cache_enabled(false);
  }
  ~NoCastCache() { at::autocast::set_autocast_cache_enabled(before_); }
  NoCastCache(const NoCastCache&) = delete;
  NoCastCache& operator=(const NoCastCache&) = delete;

 private:
  bool before_;
};

// Keeps the values of buffers over a second run and its backward pass, which may need what that run saw.
class BufferKeeper {
 public:
  explicit BufferKeeper(const std::vector<torch::Tensor>& buffers) : buffers_(buffers) {
    for (const torch::Tensor& buffer : buffers_) values_.push_back(buffer.clone());
  }
  ~BufferKeeper() {
    // No change as far as autograd is concerned: another pass may wait for the same buffers.
    const at::AutoDispatchBelowADInplaceOrView no_version_bump;
    for (std::size_t i = 0; i < buffers_.size(); ++i) buffers_[i].copy_(values_[i]);
  }
  BufferKeeper(const BufferKeeper&) = delete;
  BufferKeeper& operator=(const BufferKeeper&) = delete;

 private:
  std::vector<torch::Tensor> buffers_, values_;
};

// What the second run needs to be like the first.
struct FirstRun : torch::CustomClassHolder {
  CheckpointBlock block;
  std::vector<torch::Tensor> buffers;
  at::ThreadLocalState thread;  // with autocast's state
  std::optional<RandomContext::State> random;
  std::optional<GeneratorStates> generators;  // if it drew from them
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& input, at::TensorList parameters,
                               const c10::intrusive_ptr<FirstRun>& run) {
    const NoCastCache no_cache;
    if (const RandomContext* context = RandomContext::current()) run->random = context->state();
    GeneratorStates before(input.device());
    const torch::Tensor output = run->block(input);
    if (!(GeneratorStates(input.device()) == before)) run->generators = std::move(before);
    variable_list saved{input};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["run"] = c10::IValue::make_capsule(run);
    // A block that returns its input must not make the function do so.
    return output.is_same(input) ? output.view_as(output) : output;
  }

  static variable_list backward(AutogradContext* ctx, variable_list output_gradients) {
    const auto run = c10::static_intrusive_pointer_cast<FirstRun>(ctx->saved_data["run"].toCapsule());
    const variable_list saved = ctx->get_saved_variables();
    const BufferKeeper buffers(run->buffers);
    variable_list sources = saved;
    sources[0] = saved[0].detach().requires_grad_(saved[0].requires_grad());
    const torch::Tensor output = run_again(*run, sources[0]);

    variable_list wanted;
    for (const torch::Tensor& source : sources) {
      if (source.requires_grad()) wanted.push_back(source);
    }
    variable_list found = torch::autograd::grad({output}, wanted, output_gradients, /*retain_graph=*/std::nullopt,
                                                /*create_graph=*/false, /*allow_unused=*/true);
    variable_list gradients;
    std::size_t next = 0;
    for (const torch::Tensor& source : sources)
      gradients.push_back(source.requires_grad() ? found[next++] : torch::Tensor());
    gradients.emplace_back();
    return gradients;
  }

  static torch::Tensor run_again(FirstRun& run, const torch::Tensor& input) {
    const at::ThreadLocalStateGuard thread(run.thread);
    const torch::AutoGradMode with_gradients(true);
    const NoCastCache no_cache;
    const GeneratorReplay generators(run.generators, input.device());
    std::optional<RandomContext> random;
    if (run.random) random.emplace(*run.random);
    return run.block(input);
  }
};

}  // namespace

torch::Tensor checkpoint(torch::nn::Module& module, const torch::Tensor& input, CheckpointBlock block) {
  if (!torch::GradMode::is_enabled()) return block(input);
  auto run = c10::make_intrusive<FirstRun>();
  run->block = std::move(block);
  run->buffers = module.buffers();
  const std::vector<torch::Tensor> parameters = module.parameters();
  return Checkpoint::apply(input, at::TensorList(parameters), run);
}

torch::Tensor checkpoint_sequential(torch::nn::Sequential& net, std::int64_t segments, torch::Tensor input) {
  const auto layers = static_cast<std::int64_t>(net->size());
  if (segments < 1 || segments > layers) {
    throw ConfigError(
        fmt::format("[checkpoint_sequential] segments must be between 1 and the {} layers, got {}", layers, segments));
  }
  const std::int64_t length = layers / segments;
  for (std::int64_t segment = 0; segment < segments; ++segment) {
    const bool last = segment + 1 == segments;
    torch::nn::Sequential part;
    for (std::int64_t i = segment * length; i < (last ? layers : (segment + 1) * length); ++i) {
      part->push_back(*(net->begin() + i));
    }
    input = last ? part->forward(input)
                 : checkpoint(*part, input, [part](const torch::Tensor& x) mutable { return part->forward(x); });
  }
  return input;
}

}  // namespace mmtrain::nn
