#include "image_kernels.h"
#include "simd/scalar.h"
// The vocabulary comes first.
#include "image_kernels.inl"

namespace mmtrain::media::detail {

const ImageKernels kScalarImageKernels = make_kernels();

}  // namespace mmtrain::media::detail
