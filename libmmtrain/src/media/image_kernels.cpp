#include "media/image_kernels.h"

#include "mmtrain/core/cpu_features.h"

namespace mmtrain::media::detail {

const ImageKernels& image_kernels() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case SimdLevel::avx512:
      return kAvx512ImageKernels;
    case SimdLevel::avx2:
      return kAvx2ImageKernels;
    case SimdLevel::scalar:
      break;
  }
#endif
  return kScalarImageKernels;
}

}  // namespace mmtrain::media::detail
