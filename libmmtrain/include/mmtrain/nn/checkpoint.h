#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/types.h>

#include <cstdint>
#include <functional>

#include "mmtrain/core/export.h"

/// Gradient checkpointing (Chen et al., "Training deep nets with sublinear memory cost", 2016): a block keeps only its
/// input for the backward pass, which runs the block again. Memory of activations falls to one block's, for about a
/// third more time.
namespace mmtrain::nn {

/// A part of a net: one tensor in, one tensor out.
using CheckpointBlock = std::function<torch::Tensor(const torch::Tensor& input)>;

/// `block(input)`, run again in the backward pass with the same parameters, `RandomContext` and autocast state, and, if
/// the first run drew from them, the same states of LibTorch's generators. Gradients are those of a plain call; buffers
/// (batch-norm statistics) are updated once. Parameters are those of `module`; gradients reach no tensor that `block`
/// uses besides them and its input. The module must live until the backward pass: let `block` own it.
MMTRAIN_API torch::Tensor checkpoint(torch::nn::Module& module, const torch::Tensor& input, CheckpointBlock block);

/// Runs `net` in `segments` parts of equal numbers of layers, each but the last one checkpointed (the backward pass
/// starts with the last: keeping it costs nothing). Throws `ConfigError` unless 1 <= segments <= number of layers.
MMTRAIN_API torch::Tensor checkpoint_sequential(torch::nn::Sequential& net, std::int64_t segments, torch::Tensor input);

}  // namespace mmtrain::nn
