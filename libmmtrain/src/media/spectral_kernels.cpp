#include "media/spectral_kernels.h"

#include "mmtrain/core/cpu_features.h"

namespace mmtrain::media::detail {

const SpectralKernels& spectral_kernels() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case SimdLevel::avx512:
      return kAvx512SpectralKernels;
    case SimdLevel::avx2:
      return kAvx2SpectralKernels;
    case SimdLevel::scalar:
      break;
  }
#endif
  return kScalarSpectralKernels;
}

}  // namespace mmtrain::media::detail
