#include "media/spectral_kernels.h"
// The vocabulary comes before what is said with it.
#include "media/simd/scalar.h"
// And then the loops.
#include "media/spectral_kernels.inl"

namespace mmtrain::media::detail {

const SpectralKernels kScalarSpectralKernels = make_spectral_kernels();

}  // namespace mmtrain::media::detail
