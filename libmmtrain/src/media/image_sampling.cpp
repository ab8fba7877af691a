#include "mmtrain/media/image_sampling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "mmtrain/core/error.h"

namespace mmtrain::media {
namespace {

/// Tries of a random rectangle before giving up, as in torchvision.
constexpr int kTries = 10;

/// Rounds halves to even, as Python does.
int round_to_int(double value) { return static_cast<int>(std::nearbyint(value)); }

double log_uniform(const std::array<double, 2>& range, RandomStream& random) {
  return std::exp(random.uniform(std::log(range[0]), std::log(range[1])));
}

int place(int room, RandomStream& random) { return static_cast<int>(random.uniform_int(std::int64_t{room} + 1)); }

Box middle_part(const std::array<double, 2>& ratio, int height, int width) {
  const double own = static_cast<double>(width) / height;
  int h = height, w = width;
  if (own < ratio[0]) {
    h = std::min(round_to_int(width / ratio[0]), height);
  } else if (own > ratio[1]) {
    w = std::min(round_to_int(height * ratio[1]), width);
  }
  h = std::max(h, 1);
  w = std::max(w, 1);
  return {(height - h) / 2, (width - w) / 2, h, w};
}

std::optional<double> factor_around_one(double strength, RandomStream& random) {
  if (strength == 0) return std::nullopt;
  return random.uniform(std::max(0.0, 1.0 - strength), 1.0 + strength);
}

}  // namespace

Box sample_crop(const RandomCrop& op, int height, int width, RandomStream& random) {
  const int padded_height = height + 2 * op.padding, padded_width = width + 2 * op.padding;
  if (op.height > padded_height || op.width > padded_width) {
    throw DataError(fmt::format("[RandomCrop] the crop {} x {} is larger than the padded image {} x {}", op.height,
                                op.width, padded_height, padded_width));
  }
  const int top = place(padded_height - op.height, random) - op.padding;
  const int left = place(padded_width - op.width, random) - op.padding;
  return {top, left, op.height, op.width};
}

Box sample_resized_crop(const RandomResizedCrop& op, int height, int width, RandomStream& random) {
  const double area = static_cast<double>(height) * width;
  for (int i = 0; i < kTries; ++i) {
    const double target = area * random.uniform(op.scale[0], op.scale[1]);
    const double ratio = log_uniform(op.ratio, random);
    const int w = round_to_int(std::sqrt(target * ratio)), h = round_to_int(std::sqrt(target / ratio));
    if (w > 0 && w <= width && h > 0 && h <= height) {
      const int top = place(height - h, random);
      return {top, place(width - w, random), h, w};
    }
  }
  return middle_part(op.ratio, height, width);
}

JitterFactors sample_jitter(const ColorJitter& op, RandomStream& random) {
  JitterFactors factors;
  factors.order = {0, 1, 2, 3};
  for (std::size_t i = 3; i > 0; --i) {
    std::swap(factors.order[i], factors.order[static_cast<std::size_t>(place(static_cast<int>(i), random))]);
  }
  factors.brightness = factor_around_one(op.brightness, random);
  factors.contrast = factor_around_one(op.contrast, random);
  factors.saturation = factor_around_one(op.saturation, random);
  if (op.hue != 0) factors.hue = random.uniform(-op.hue, op.hue);
  return factors;
}

std::optional<Box> sample_erasing(const RandomErasing& op, int height, int width, RandomStream& random) {
  if (!random.bernoulli(op.p)) return std::nullopt;
  const double area = static_cast<double>(height) * width;
  for (int i = 0; i < kTries; ++i) {
    const double target = area * random.uniform(op.scale[0], op.scale[1]);
    const double ratio = log_uniform(op.ratio, random);
    const int h = round_to_int(std::sqrt(target * ratio)), w = round_to_int(std::sqrt(target / ratio));
    if (h < height && w < width) {
      const int top = place(height - h, random);
      return Box{top, place(width - w, random), h, w};
    }
  }
  return std::nullopt;
}

}  // namespace mmtrain::media
