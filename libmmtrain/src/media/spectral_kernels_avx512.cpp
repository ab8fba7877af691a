#include "media/simd/avx512.h"
#include "media/spectral_kernels.h"
// The vocabulary comes first.
#include "media/spectral_kernels.inl"

namespace mmtrain::media::detail {

const SpectralKernels kAvx512SpectralKernels = make_spectral_kernels();

}  // namespace mmtrain::media::detail
