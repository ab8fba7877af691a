#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "mmtrain/core/export.h"
#include "mmtrain/media/image.h"

/// The deterministic image operations as plain functions, with the results of torchvision.transforms.v2.functional on
/// uint8 RGB tensors: `resize`, `crop`, `pad` and `flip_horizontal` exactly, colour adjustments within 1 grey level
/// (where a float falls on a whole number, torchvision may cut it to the neighbour). They return new images;
/// `ImageTransform` runs the same code fused and in place. An image without pixels or a size that is not positive
/// throws `DataError`.
namespace mmtrain::media {

/// A rectangle of pixels. It may reach outside the image where an operation says so.
struct Box {
  int top = 0;
  int left = 0;
  int height = 0;
  int width = 0;

  bool operator==(const Box&) const = default;
};

/// Resizes bilinearly (`align_corners=False`). With `antialias` the triangle filter grows with the scale, as PIL's
/// does; without it each pixel comes from 2x2 neighbours.
MMTRAIN_API Image resize(ImageView image, int height, int width, bool antialias = true);

/// The pixels of `box`; what lies outside the image is `fill`.
MMTRAIN_API Image crop(ImageView image, const Box& box, std::uint8_t fill = 0);

/// Adds borders of value `fill`.
MMTRAIN_API Image pad(ImageView image, int left, int top, int right, int bottom, std::uint8_t fill = 0);

/// Mirrors left and right.
MMTRAIN_API Image flip_horizontal(ImageView image);

/// `pixel * factor`, clamped. 0 gives black, 1 the image; a negative factor throws `ConfigError` here and below.
MMTRAIN_API Image adjust_brightness(ImageView image, double factor);

/// Blends with the mean grey of the whole image: 0 gives plain grey, 1 the image.
MMTRAIN_API Image adjust_contrast(ImageView image, double factor);

/// Blends with the grey of each pixel: 0 gives a grey image, 1 the image.
MMTRAIN_API Image adjust_saturation(ImageView image, double factor);

/// Turns the hue by `shift` of the circle, in [-0.5, 0.5] (else `ConfigError`).
MMTRAIN_API Image adjust_hue(ImageView image, double shift);

/// `(pixel / 255 - mean[c]) / std[c]` as planar float `[3, height, width]`. Throws `DataError` if `output` has another
/// size.
MMTRAIN_API void normalize_to_planar(ImageView image, const std::array<float, 3>& mean, const std::array<float, 3>& std,
                                     std::span<float> output);

/// Sets `box`, which must lie inside, to `value` in planar float `[3, height, width]`. Throws `DataError`.
MMTRAIN_API void erase(std::span<float> planar, int height, int width, const Box& box, float value);

}  // namespace mmtrain::media
