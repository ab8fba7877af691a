#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "media/image_kernels.h"
#include "media/resizer.h"
#include "mmtrain/media/image_ops.h"

/// What image operations have in common: a lazily cropped and mirrored view, colour steps, and buffers to keep.
namespace mmtrain::media::detail {

/// One adjustment with torchvision's meaning of `amount`: a factor, for hue a shift.
struct ColorStep {
  enum class Kind { brightness, contrast, saturation, hue };
  Kind kind;
  float amount;
};

/// An image seen through a window. Pixels of the window outside `visible` are `fill`; `visible` shrinks when a crop
/// hides part of the image, because a later padding must not bring it back.
class Frame {
 public:
  explicit Frame(ImageView image, std::uint8_t fill = 0);

  int height() const { return window_.height; }
  int width() const { return window_.width; }
  bool flipped() const { return flipped_; }
  /// Whether some pixels of the window are fill.
  bool padded() const;
  /// Whether cropping to `box` with `fill` needs two values of fill: then the frame must be copied first.
  bool conflicts(const Box& box, std::uint8_t fill) const;

  /// Moves the window to `box`, given in its own pixels; it may reach outside.
  void crop(const Box& box, std::uint8_t fill);
  void flip() { flipped_ = !flipped_; }

  /// The rows of the window as they lie in memory; for frames neither padded nor flipped.
  PixelRows rows() const;
  /// Writes rows `[first, first + count)` as planes through `affine`.
  void unpack(int first, int count, const Affine& affine, Planes out) const;
  /// Writes all pixels to `out`.
  void copy(std::uint8_t* out) const;

 private:
  /// One row of the window: `count` pixels from `pixels` that begin at `offset` of the output, fill around them.
  struct Row {
    const std::uint8_t* pixels;
    std::size_t offset, count;
  };
  Row row(int y) const;

  ImageView image_;
  Box visible_, window_;
  bool flipped_ = false;
  std::uint8_t fill_;
};

/// Grey levels as they are.
inline constexpr Affine kIdentity = {{1, 1, 1}, {0, 0, 0}};

/// `(pixel / 255 - mean) / std`.
Affine normalization(const std::array<float, 3>& mean, const std::array<float, 3>& std);

/// The frame with `steps` applied, then `affine`, as planes without gaps.
void render(const Frame& frame, std::span<const ColorStep> steps, const Affine& affine, std::span<float> out);

/// The frame with `steps` applied, as an image. `planar` is a buffer to keep.
void render(const Frame& frame, std::span<const ColorStep> steps, std::vector<float>& planar, Image& out);

/// Gives `image` that size; a buffer large enough is kept.
void reshape(Image& image, int height, int width);

}  // namespace mmtrain::media::detail
