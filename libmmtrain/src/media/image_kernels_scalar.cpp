#include "media/image_kernels.h"
#include "media/simd/scalar.h"
// The vocabulary comes first.
#include "media/image_kernels.inl"

namespace mmtrain::media::detail {

const ImageKernels kScalarImageKernels = make_kernels();

}  // namespace mmtrain::media::detail
