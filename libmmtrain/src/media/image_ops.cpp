#include "mmtrain/media/image_ops.h"

#include <fmt/format.h>

#include <algorithm>

#include "media/image_frame.h"
#include "media/resizer.h"
#include "mmtrain/core/error.h"

namespace mmtrain::media {
namespace {

using detail::ColorStep;
using detail::Frame;

void require_pixels(const char* who, ImageView image) {
  if (image.data == nullptr || image.height <= 0 || image.width <= 0) {
    throw DataError(fmt::format("[{}] needs an image with pixels, got {} x {}", who, image.height, image.width));
  }
}

void require_size(const char* who, int height, int width) {
  if (height <= 0 || width <= 0) {
    throw DataError(fmt::format("[{}] height and width must be positive, got {} x {}", who, height, width));
  }
}

void require_planar(const char* who, std::size_t size, int height, int width) {
  const std::size_t wanted = 3 * static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
  if (size != wanted) {
    throw DataError(
        fmt::format("[{}] an image of {} x {} has {} values, got room for {}", who, height, width, wanted, size));
  }
}

Image adjust(const char* who, ImageView image, ColorStep::Kind kind, double amount) {
  require_pixels(who, image);
  if (kind != ColorStep::Kind::hue && !(amount >= 0)) {
    throw ConfigError(fmt::format("[{}] factor must not be negative, got {}", who, amount));
  }
  const ColorStep step{kind, static_cast<float>(amount)};
  std::vector<float> planar;
  Image result;
  detail::render(Frame(image), {&step, 1}, planar, result);
  return result;
}

Image copy(const Frame& frame) {
  Image result;
  detail::reshape(result, frame.height(), frame.width());
  frame.copy(result.pixels.data());
  return result;
}

}  // namespace

Image resize(ImageView image, int height, int width, bool antialias) {
  require_pixels("resize", image);
  require_size("resize", height, width);
  Image result;
  detail::reshape(result, height, width);
  detail::Resizer().resize(Frame(image).rows(), height, width, antialias, result.pixels.data());
  return result;
}

Image crop(ImageView image, const Box& box, std::uint8_t fill) {
  require_pixels("crop", image);
  require_size("crop", box.height, box.width);
  Frame frame(image);
  frame.crop(box, fill);
  return copy(frame);
}

Image pad(ImageView image, int left, int top, int right, int bottom, std::uint8_t fill) {
  if (left < 0 || top < 0 || right < 0 || bottom < 0) {
    throw DataError(
        fmt::format("[pad] borders must not be negative, got {}, {}, {}, {}; use crop", left, top, right, bottom));
  }
  return crop(image, {-top, -left, image.height + top + bottom, image.width + left + right}, fill);
}

Image flip_horizontal(ImageView image) {
  require_pixels("flip_horizontal", image);
  Frame frame(image);
  frame.flip();
  return copy(frame);
}

Image adjust_brightness(ImageView image, double factor) {
  return adjust("adjust_brightness", image, ColorStep::Kind::brightness, factor);
}

Image adjust_contrast(ImageView image, double factor) {
  return adjust("adjust_contrast", image, ColorStep::Kind::contrast, factor);
}

Image adjust_saturation(ImageView image, double factor) {
  return adjust("adjust_saturation", image, ColorStep::Kind::saturation, factor);
}

Image adjust_hue(ImageView image, double shift) {
  if (!(shift >= -0.5 && shift <= 0.5)) {
    throw ConfigError(fmt::format("[adjust_hue] shift must be in [-0.5, 0.5], got {}", shift));
  }
  return adjust("adjust_hue", image, ColorStep::Kind::hue, shift);
}

void normalize_to_planar(ImageView image, const std::array<float, 3>& mean, const std::array<float, 3>& std,
                         std::span<float> output) {
  require_pixels("normalize_to_planar", image);
  require_planar("normalize_to_planar", output.size(), image.height, image.width);
  detail::render(Frame(image), {}, detail::normalization(mean, std), output);
}

void erase(std::span<float> planar, int height, int width, const Box& box, float value) {
  require_planar("erase", planar.size(), height, width);
  if (box.top < 0 || box.left < 0 || box.height < 0 || box.width < 0 || box.top + box.height > height ||
      box.left + box.width > width) {
    throw DataError(fmt::format("[erase] the box {} x {} at ({}, {}) must lie inside the image of {} x {}", box.height,
                                box.width, box.top, box.left, height, width));
  }
  for (int c = 0; c < 3; ++c) {
    for (int y = box.top; y < box.top + box.height; ++y) {
      const std::ptrdiff_t at = (static_cast<std::ptrdiff_t>(c) * height + y) * width + box.left;
      std::fill_n(planar.begin() + at, box.width, value);
    }
  }
}

}  // namespace mmtrain::media
