#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "mmtrain/media/image.h"

/// JPEG through libjpeg-turbo's C interface. Errors are `DataError`s that hold the reason alone: callers say who asked.
namespace mmtrain::media::detail {

/// Whether the bytes start like a JPEG file.
bool is_jpeg(std::span<const std::byte> encoded);

/// Decodes into RGB with libjpeg's defaults (accurate integer DCT, fancy upsampling), as torchvision does. The
/// decompressor is made once a thread.
void decode_jpeg(std::span<const std::byte> encoded, Image& image);

/// Baseline JPEG with 4:2:0 chroma, or one grey channel.
std::vector<std::byte> compress_jpeg(ImageView image, int quality, bool grey);

/// Throws if height x width is more than a decoder of this library accepts (2^28 pixels).
void require_pixel_count(std::size_t height, std::size_t width);

}  // namespace mmtrain::media::detail
