#include "media/image_kernels.h"
#include "media/simd/avx2.h"
// The vocabulary comes first.
#include "media/image_kernels.inl"

namespace mmtrain::media::detail {

const ImageKernels kAvx2ImageKernels = make_kernels();

}  // namespace mmtrain::media::detail
