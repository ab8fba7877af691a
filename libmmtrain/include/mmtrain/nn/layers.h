#pragma once

#include <torch/nn/modules/batchnorm.h>

#include "mmtrain/nn/dropout.h"

/// The layers of the library's nets that depend on how training is run: one place decides which implementation all
/// nets use. Dropout is ours (`nn::Dropout`); batch norm is LibTorch's own.
namespace mmtrain::nn {

using torch::nn::BatchNorm2d;

}  // namespace mmtrain::nn
