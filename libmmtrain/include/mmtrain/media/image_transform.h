#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/core/random.h"
#include "mmtrain/media/image.h"

/// Image transforms with torchvision's names and meaning (torchvision.transforms.v2 on uint8 RGB images). Deterministic
/// ones equal its results within 1 grey level; random ones draw from the same distributions, from a stream that
/// names the sample, so that they are reproducible.
namespace mmtrain::media {

/// Resizes to height x width (bilinear). With width 0 the shorter side becomes `height` and the ratio is kept.
struct Resize {
  int height = 0;
  int width = 0;
  bool antialias = true;
};

/// Cuts the middle height x width; smaller images are padded with 0 first.
struct CenterCrop {
  int height = 0;
  int width = 0;
};

/// Pads every side by `padding` pixels of value `fill`, then cuts height x width at a random place.
struct RandomCrop {
  int height = 0;
  int width = 0;
  int padding = 0;
  std::uint8_t fill = 0;
};

/// Cuts a random area (share of the image in `scale`, width/height in `ratio`, log-uniform) and resizes it to
/// height x width, bilinear with antialias.
struct RandomResizedCrop {
  int height = 0;
  int width = 0;
  std::array<double, 2> scale = {0.08, 1.0};
  std::array<double, 2> ratio = {3.0 / 4.0, 4.0 / 3.0};
};

/// Mirrors left and right with probability p.
struct RandomHorizontalFlip {
  double p = 0.5;
};

/// Changes brightness, contrast and saturation by factors uniform in [max(0, 1 - x), 1 + x] and shifts the hue by
/// [-hue, hue] of the circle (hue at most 0.5), in random order.
struct ColorJitter {
  double brightness = 0, contrast = 0, saturation = 0, hue = 0;
};

/// (pixel / 255 - mean) / std for each channel; without it pixels become [0, 1].
struct Normalize {
  std::array<float, 3> mean = {0.485F, 0.456F, 0.406F};
  std::array<float, 3> std = {0.229F, 0.224F, 0.225F};
};

/// After normalisation: with probability p a rectangle (area share in `scale`, ratio log-uniform) becomes `value`.
struct RandomErasing {
  double p = 0.5;
  std::array<double, 2> scale = {0.02, 0.33};
  std::array<double, 2> ratio = {0.3, 3.3};
  float value = 0;
};

using ImageOp = std::variant<Resize, CenterCrop, RandomCrop, RandomResizedCrop, RandomHorizontalFlip, ColorJitter,
                             Normalize, RandomErasing>;

/// A list of transforms, run on one image in one go. Crops and flips that follow each other only move a window; what is
/// left of them, the normalisation and the change to planar float are one vectorised pass.
class MMTRAIN_API ImageTransform {
 public:
  /// Memory reused from image to image by one thread: with it, `apply` allocates nothing once it is warm.
  class MMTRAIN_API Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(Scratch&&) noexcept;
    Scratch& operator=(Scratch&&) noexcept;

   private:
    friend class ImageTransform;
    struct Memory;
    std::unique_ptr<Memory> memory_;
  };

  ImageTransform() = default;
  /// Throws `ConfigError` for values out of range, or an order that has no meaning: Normalize comes once, after all
  /// that works on pixels, and RandomErasing last.
  explicit ImageTransform(std::vector<ImageOp> ops);

  /// Height and width of the result for images of height x width.
  std::array<int, 2> output_size(int height, int width) const;

  /// Transforms `image` into `output`, float `[3, height, width]`. Throws `DataError` if the image does not fit (a crop
  /// larger than it, an output of another size). Thread-safe for different scratches.
  void apply(ImageView image, RandomStream& random, std::span<float> output, Scratch& scratch) const;

  /// The geometric and colour part only, still uint8 `[height, width, 3]`: what a batch-level augmentation starts from.
  Image apply_uint8(ImageView image, RandomStream& random) const;

  const std::vector<ImageOp>& ops() const { return ops_; }

 private:
  class Run;
  std::vector<ImageOp> ops_;
};

}  // namespace mmtrain::media
