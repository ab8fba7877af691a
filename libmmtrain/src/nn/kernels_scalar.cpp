#include "nn/kernels.h"
#include "nn/simd/scalar.h"
// The vocabulary comes first.
#include "nn/kernels.inl"

namespace mmtrain::nn::detail {

const Kernels kScalarKernels = make_kernels();

}  // namespace mmtrain::nn::detail
