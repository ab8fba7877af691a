#include "media/simd/avx2.h"
#include "media/spectral_kernels.h"
// The vocabulary comes first.
#include "media/spectral_kernels.inl"

namespace mmtrain::media::detail {

const SpectralKernels kAvx2SpectralKernels = make_spectral_kernels();

}  // namespace mmtrain::media::detail
