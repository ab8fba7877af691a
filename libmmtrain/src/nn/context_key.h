#pragma once

#include <torch/types.h>

#include <array>
#include <cstdint>

#include "mmtrain/nn/random_context.h"

namespace mmtrain::nn::detail {

/// The key of all numbers that call number `call` of `layer` draws in a context.
std::array<std::uint32_t, 2> context_key(const StepContext& context, std::uint64_t layer, std::uint32_t call);

/// The same as int64 scalars on the device of `context.step_on_device`, whose value counts instead of `context.step`.
std::array<torch::Tensor, 2> context_key_on_device(const StepContext& context, std::uint64_t layer, std::uint32_t call);

}  // namespace mmtrain::nn::detail
