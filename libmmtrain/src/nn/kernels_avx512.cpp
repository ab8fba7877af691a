#include "nn/kernels.h"
#include "nn/simd/avx512.h"
// The vocabulary comes first.
#include "nn/kernels.inl"

namespace mmtrain::nn::detail {

const Kernels kAvx512Kernels = make_kernels();

}  // namespace mmtrain::nn::detail
