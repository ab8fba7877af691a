#include "mmtrain/nn/random_context.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/rnn.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <string_view>
#include <utility>

#include "mmtrain/core/error.h"
#include "nn/context_key.h"
#include "nn/random_draw.h"

namespace mmtrain::nn {
namespace {

thread_local RandomContext* current_context = nullptr;

std::uint32_t low(std::uint64_t v) { return static_cast<std::uint32_t>(v); }
std::uint32_t high(std::uint64_t v) { return static_cast<std::uint32_t>(v >> 32); }

// FNV-1a: fixed for all time, unlike std::hash.
std::uint64_t hash(std::string_view text) {
  std::uint64_t value = 0xCBF29CE484222325;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return value;
}

std::array<std::uint32_t, 2> generator_key() {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard<std::mutex> lock(generator.mutex());
  const std::uint64_t number = at::check_generator<at::CPUGeneratorImpl>(generator)->random64();
  return {low(number), high(number)};
}

void check(const StepContext& step) {
  if (step.step < 0 || step.rows < 0 || step.first_sample < 0) {
    throw ConfigError(fmt::format("[RandomContext] step, rows and first_sample must not be negative, got {}, {}, {}",
                                  step.step, step.rows, step.first_sample));
  }
  if (!step.samples.empty() && static_cast<std::int64_t>(step.samples.size()) != step.rows) {
    throw ConfigError(fmt::format("[RandomContext] samples must name the place of each of the {} rows, got {} numbers",
                                  step.rows, step.samples.size()));
  }
}

template <class... Modules>
bool is_any(const torch::nn::Module& module) {
  return (... || (dynamic_cast<const Modules*>(&module) != nullptr));
}

template <class Layer>
bool drops(const torch::nn::Module& module) {
  const auto* layer = dynamic_cast<const Layer*>(&module);
  return layer != nullptr && layer->options.dropout() > 0;
}

}  // namespace

RandomContext::RandomContext(StepContext step) : RandomContext(State(std::move(step))) {}

RandomContext::RandomContext(State state) : state_(std::move(state)), outer_(current_context) {
  check(state_.step);
  current_context = this;
}

RandomContext::~RandomContext() { current_context = outer_; }

RandomContext* RandomContext::current() { return current_context; }

void assign_dropout_layers(torch::nn::Module& module) {
  const auto assign = [](const std::string& name, torch::nn::Module& part) {
    if (auto* layer = dynamic_cast<RandomLayer*>(&part)) layer->set_random_layer(hash(name));
  };
  assign("", module);
  // Not with the module itself among them: LibTorch cannot name one that no shared_ptr owns.
  for (const auto& part : module.named_modules("", /*include_self=*/false)) assign(part.key(), *part.value());
}

std::vector<std::string> stock_dropout_layers(const torch::nn::Module& module) {
  namespace tn = torch::nn;
  std::vector<std::string> names;
  const auto look_at = [&](const std::string& name, const tn::Module& part) {
    const bool dropout = is_any<tn::DropoutImpl, tn::Dropout2dImpl, tn::Dropout3dImpl, tn::AlphaDropoutImpl,
                                tn::FeatureAlphaDropoutImpl>(part);
    if (dropout || drops<tn::RNNImpl>(part) || drops<tn::LSTMImpl>(part) || drops<tn::GRUImpl>(part) ||
        drops<tn::MultiheadAttentionImpl>(part)) {
      names.push_back(name);
    }
  };
  look_at("", module);
  for (const auto& part : module.named_modules("", /*include_self=*/false)) look_at(part.key(), *part.value());
  return names;
}

namespace detail {

RandomDrawPtr draw_random(std::uint64_t layer, std::int64_t rows, double p) {
  auto draw = c10::make_intrusive<RandomDraw>();
  draw->threshold = low(static_cast<std::uint64_t>(std::min(std::llround(p * 0x1p32), 0xFFFFFFFFll)));
  RandomContext* context = RandomContext::current();
  if (context == nullptr) {
    draw->key = generator_key();
    draw->count = rows;
    return draw;
  }
  const StepContext& step = context->step();
  const std::uint32_t call = context->next_call(layer);
  draw->key = context_key(step, layer, call);
  if (step.step_on_device.defined()) draw->key_on_device = context_key_on_device(step, layer, call);
  draw->first_sample = step.first_sample;
  draw->samples = step.samples;
  draw->count = step.rows == 0 ? rows : rows % step.rows == 0 ? step.rows : 1;
  return draw;
}

}  // namespace detail
}  // namespace mmtrain::nn
