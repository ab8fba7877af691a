#include "media/simd/scalar.h"
#include "media/spectral_kernels.h"
// The vocabulary comes first.
#include "media/spectral_kernels.inl"

namespace mmtrain::media::detail {

const SpectralKernels kScalarSpectralKernels = make_spectral_kernels();

}  // namespace mmtrain::media::detail
