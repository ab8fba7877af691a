#include "mmtrain/media/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <system_error>

#include "media/jpeg_codec.h"
#include "mmtrain/core/error.h"

namespace mmtrain::media {
namespace {

/// The first bytes as text, so that a message shows what the file really is.
std::string preview(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes.first(std::min<std::size_t>(bytes.size(), 16))) {
    const char c = static_cast<char>(byte);
    if (c >= ' ' && c <= '~') {
      text += c;
    } else {
      text += fmt::format("\\x{:02x}", std::to_integer<int>(byte));
    }
  }
  return text;
}

bool is_png(std::span<const std::byte> encoded) {
  constexpr unsigned char kSignature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  return encoded.size() >= 24 && std::memcmp(encoded.data(), kSignature, sizeof kSignature) == 0;
}

std::size_t big_endian32(std::span<const std::byte> bytes, std::size_t at) {
  std::size_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<std::size_t>(bytes[at + i]);
  return value;
}

void swap_red_and_blue(const std::uint8_t* from, std::uint8_t* to, std::size_t pixels) {
  for (std::size_t i = 0; i < 3 * pixels; i += 3) {
    const std::uint8_t first = from[i];
    to[i] = from[i + 2];
    to[i + 1] = from[i + 1];
    to[i + 2] = first;
  }
}

void decode_other(std::span<const std::byte> encoded, Image& image) {
  // OpenCV takes up to 2^30 pixels and allocates before it reads them.
  if (is_png(encoded)) detail::require_pixel_count(big_endian32(encoded, 20), big_endian32(encoded, 16));
  const cv::Mat bytes(1, static_cast<int>(encoded.size()), CV_8U, const_cast<std::byte*>(encoded.data()));
  cv::Mat decoded;
  try {
    decoded = cv::imdecode(bytes, cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION);
  } catch (const cv::Exception& error) {
    throw DataError(fmt::format("the decoder failed: {}", error.err));
  }
  if (decoded.empty()) {
    throw DataError(
        fmt::format("not an image, or a broken one: {} bytes that begin with '{}'", encoded.size(), preview(encoded)));
  }
  detail::require_pixel_count(static_cast<std::size_t>(decoded.rows), static_cast<std::size_t>(decoded.cols));
  image.height = decoded.rows;
  image.width = decoded.cols;
  image.pixels.resize(3 * decoded.total());
  swap_red_and_blue(decoded.ptr(), image.pixels.data(), decoded.total());
}

/// Errors hold the reason alone.
void decode(std::span<const std::byte> encoded, Image& image) {
  if (encoded.empty()) throw DataError("empty: 0 bytes");
  if (encoded.size() > std::size_t{1} << 30) throw DataError(fmt::format("too large: {} bytes", encoded.size()));
  if (detail::is_jpeg(encoded)) {
    detail::decode_jpeg(encoded, image);
  } else {
    decode_other(encoded, image);
  }
}

std::vector<std::byte> read_file(const std::filesystem::path& path) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) throw DataError(error.message());
  std::vector<std::byte> bytes(size);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  if (!file) throw DataError("cannot be read");
  return bytes;
}

void require_pixels(ImageView image, const char* who) {
  if (image.data == nullptr || image.height <= 0 || image.width <= 0) {
    throw DataError(fmt::format("[{}] needs an image with pixels, got {} x {}", who, image.height, image.width));
  }
}

}  // namespace

void decode_image(std::span<const std::byte> encoded, Image& image) {
  try {
    decode(encoded, image);
  } catch (const DataError& error) {
    throw DataError(fmt::format("[decode_image] {}", error.what()));
  }
}

Image read_image(const std::filesystem::path& path) {
  try {
    Image image;
    decode(read_file(path), image);
    return image;
  } catch (const DataError& error) {
    throw DataError(fmt::format("[read_image] {}: {}", path.string(), error.what()));
  }
}

std::vector<std::byte> encode_jpeg(ImageView image, int quality, bool grey) {
  require_pixels(image, "encode_jpeg");
  if (quality < 1 || quality > 100) {
    throw ConfigError(fmt::format("[encode_jpeg] quality must be in 1..100, got {}", quality));
  }
  try {
    return detail::compress_jpeg(image, quality, grey);
  } catch (const DataError& error) {
    throw DataError(fmt::format("[encode_jpeg] {}", error.what()));
  }
}

std::vector<std::byte> encode_png(ImageView image) {
  require_pixels(image, "encode_png");
  cv::Mat swapped(image.height, image.width, CV_8UC3);
  swap_red_and_blue(image.data, swapped.ptr(), swapped.total());
  std::vector<unsigned char> bytes;
  if (!cv::imencode(".png", swapped, bytes)) throw DataError("[encode_png] OpenCV could not encode the image");
  const auto* begin = reinterpret_cast<const std::byte*>(bytes.data());
  return {begin, begin + bytes.size()};
}

}  // namespace mmtrain::media
