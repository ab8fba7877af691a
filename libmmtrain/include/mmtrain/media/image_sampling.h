#pragma once

#include <array>
#include <optional>

#include "mmtrain/core/export.h"
#include "mmtrain/core/random.h"
#include "mmtrain/media/image_ops.h"
#include "mmtrain/media/image_transform.h"

/// The random choices of the transforms, apart from the pixels: the same distributions as torchvision's `get_params`.
/// For augmentation elsewhere (on the device, on boxes or masks that belong to an image).
namespace mmtrain::media {

/// Where `op` cuts an image of height x width, relative to the unpadded image: the box may reach `padding` pixels
/// outside. Throws `DataError` if the padded image is smaller than the crop.
MMTRAIN_API Box sample_crop(const RandomCrop& op, int height, int width, RandomStream& random);

/// The part of the image that `op` resizes. After ten tries that do not fit it is the largest middle part whose ratio
/// is allowed.
MMTRAIN_API Box sample_resized_crop(const RandomResizedCrop& op, int height, int width, RandomStream& random);

/// The adjustments of one image; `order` holds 0 brightness, 1 contrast, 2 saturation, 3 hue. Those whose strength is
/// 0 are absent.
struct JitterFactors {
  std::array<int, 4> order{};
  std::optional<double> brightness, contrast, saturation, hue;
};
MMTRAIN_API JitterFactors sample_jitter(const ColorJitter& op, RandomStream& random);

/// The rectangle that `op` erases; nothing with probability 1 - p, and after ten tries that do not fit.
MMTRAIN_API std::optional<Box> sample_erasing(const RandomErasing& op, int height, int width, RandomStream& random);

}  // namespace mmtrain::media
