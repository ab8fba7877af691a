#include "nn/kernels.h"

#include "mmtrain/core/cpu_features.h"

namespace mmtrain::nn::detail {

const Kernels& kernels() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case SimdLevel::avx512:
      return kAvx512Kernels;
    case SimdLevel::avx2:
      return kAvx2Kernels;
    case SimdLevel::scalar:
      break;
  }
#endif
  return kScalarKernels;
}

}  // namespace mmtrain::nn::detail
