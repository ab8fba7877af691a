#include "nn/context_key.h"

#include "mmtrain/core/random.h"
#include "nn/keep_mask.h"

namespace mmtrain::nn::detail {
namespace {

std::uint32_t low(std::uint64_t v) { return static_cast<std::uint32_t>(v); }
std::uint32_t high(std::uint64_t v) { return static_cast<std::uint32_t>(v >> 32); }

}  // namespace

// Everything that names a call does not fit into one counter: two rounds of Philox make a key of it.
std::array<std::uint32_t, 2> context_key(const StepContext& context, std::uint64_t layer, std::uint32_t call) {
  const auto step = static_cast<std::uint64_t>(context.step);
  const auto domain = static_cast<std::uint32_t>(RandomDomain::dropout) << 16;
  const auto stem = philox4x32({low(step), high(step), domain, call}, {low(context.seed), high(context.seed)});
  const auto key = philox4x32({low(layer), high(layer), stem[2], stem[3]}, {stem[0], stem[1]});
  return {key[0], key[1]};
}

std::array<torch::Tensor, 2> context_key_on_device(const StepContext& context, std::uint64_t layer,
                                                   std::uint32_t call) {
  const torch::Tensor& step = context.step_on_device;
  const auto constant = [&](std::uint32_t value) { return torch::full_like(step, std::int64_t{value}); };
  const auto domain = static_cast<std::uint32_t>(RandomDomain::dropout) << 16;
  const auto stem = philox({step & 0xFFFFFFFFll, step.__rshift__(32) & 0xFFFFFFFFll, constant(domain), constant(call)},
                           std::array<std::int64_t, 2>{low(context.seed), high(context.seed)});
  const auto key = philox({constant(low(layer)), constant(high(layer)), stem[2], stem[3]},
                          std::array<torch::Tensor, 2>{stem[0], stem[1]});
  return {key[0], key[1]};
}

}  // namespace mmtrain::nn::detail
