#include "media/image_kernels.h"
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operands inside its own intrinsics for mistakes of their callers (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "media/simd/avx512.h"
// The vocabulary comes first.
#include "media/image_kernels.inl"

namespace mmtrain::media::detail {

const ImageKernels kAvx512ImageKernels = make_kernels();

}  // namespace mmtrain::media::detail
