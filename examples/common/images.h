#pragma once

#include <mmtrain/media/image_transform.h>

#include <string>

namespace programs {

/// Height and width of the study's images.
inline constexpr int kImageSize = 64;

/// Transforms by name: `reference` (random resized crop, flip, color jitter), `resized_crop_flip`, `crop_flip` (crop of
/// the image padded by 4, flip), `none`; each ends with ImageNet's mean and standard deviation.
inline mmtrain::media::ImageTransform image_transform(const std::string& name) {
  using namespace mmtrain::media;
  if (name == "reference") {
    return ImageTransform({RandomResizedCrop{kImageSize, kImageSize}, RandomHorizontalFlip{},
                           ColorJitter{0.2, 0.2, 0.2, 0.1}, Normalize{}});
  }
  if (name == "resized_crop_flip") {
    return ImageTransform({RandomResizedCrop{kImageSize, kImageSize}, RandomHorizontalFlip{}, Normalize{}});
  }
  if (name == "crop_flip") {
    return ImageTransform({RandomCrop{kImageSize, kImageSize, 4}, RandomHorizontalFlip{}, Normalize{}});
  }
  return ImageTransform({Normalize{}});
}

}  // namespace programs
