#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "mmtrain/core/export.h"

namespace mmtrain::media {

/// RGB pixels, 8 bits a channel, rows from the top, channels interleaved: `[height, width, 3]` without gaps. A view:
/// the memory belongs to someone else.
struct ImageView {
  const std::uint8_t* data = nullptr;
  int height = 0;
  int width = 0;
};

/// An owned RGB image, same layout.
struct Image {
  int height = 0;
  int width = 0;
  std::vector<std::uint8_t> pixels;

  ImageView view() const { return {pixels.data(), height, width}; }
};

/// Decodes JPEG, PNG and whatever else the back end reads into RGB; grey is spread over the three channels, alpha is
/// dropped. `image` is reused: a buffer large enough is not allocated again. Throws `DataError` with the reason: not
/// an image, truncated, too large (over 2^28 pixels).
MMTRAIN_API void decode_image(std::span<const std::byte> encoded, Image& image);

/// Reads and decodes a file. Throws `DataError` naming it.
MMTRAIN_API Image read_image(const std::filesystem::path& path);

/// JPEG bytes of an image; `quality` 1..100. The same pixels give the same bytes. `grey` stores one channel (Rec. 601).
MMTRAIN_API std::vector<std::byte> encode_jpeg(ImageView image, int quality = 90, bool grey = false);

/// PNG bytes of an image.
MMTRAIN_API std::vector<std::byte> encode_png(ImageView image);

}  // namespace mmtrain::media
