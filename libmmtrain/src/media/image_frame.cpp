#include "media/image_frame.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace mmtrain::media::detail {
namespace {

/// Pixels worked on at once, so that their three planes stay in the first-level cache.
constexpr int kChunkPixels = 1024;

Box intersect(const Box& a, const Box& b) {
  const int top = std::max(a.top, b.top), left = std::max(a.left, b.left);
  const int bottom = std::min(a.top + a.height, b.top + b.height);
  const int right = std::min(a.left + a.width, b.left + b.width);
  return {top, left, std::max(bottom - top, 0), std::max(right - left, 0)};
}

std::size_t area(int height, int width) { return static_cast<std::size_t>(height) * static_cast<std::size_t>(width); }

Planes planes_of(std::span<float> values) {
  const std::size_t size = values.size() / 3;
  return {{values.data(), values.data() + size, values.data() + 2 * size}};
}

void adjust(const ImageKernels& kernels, const ColorStep& step, float mean_grey, Planes planes, std::size_t n) {
  switch (step.kind) {
    case ColorStep::Kind::brightness:
      return kernels.brightness(planes, n, step.amount);
    case ColorStep::Kind::contrast:
      return kernels.contrast(planes, n, step.amount, mean_grey);
    case ColorStep::Kind::saturation:
      return kernels.saturation(planes, n, step.amount);
    case ColorStep::Kind::hue:
      return kernels.hue(planes, n, step.amount);
  }
}

std::size_t find_contrast(std::span<const ColorStep> steps, std::size_t from) {
  while (from < steps.size() && steps[from].kind != ColorStep::Kind::contrast) ++from;
  return from;
}

void copy_reversed(const std::uint8_t* from, std::size_t count, std::uint8_t* to) {
  for (std::size_t i = 0; i < count; ++i) std::memcpy(to + 3 * i, from + 3 * (count - 1 - i), 3);
}

void pack(std::span<const float> planar, std::uint8_t* pixels) {
  const std::size_t n = planar.size() / 3;
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t c = 0; c < 3; ++c) pixels[3 * i + c] = static_cast<std::uint8_t>(planar[c * n + i]);
  }
}

}  // namespace

Frame::Frame(ImageView image, std::uint8_t fill)
    : image_(image), visible_{0, 0, image.height, image.width}, window_(visible_), fill_(fill) {}

bool Frame::padded() const { return intersect(visible_, window_) != window_; }

bool Frame::conflicts(const Box& box, std::uint8_t fill) const {
  const Box whole = {0, 0, window_.height, window_.width};
  return fill != fill_ && padded() && intersect(box, whole) != box;
}

void Frame::crop(const Box& box, std::uint8_t fill) {
  if (!padded()) fill_ = fill;
  visible_ = intersect(visible_, window_);
  const int left = flipped_ ? window_.width - box.left - box.width : box.left;
  window_ = {window_.top + box.top, window_.left + left, box.height, box.width};
}

PixelRows Frame::rows() const {
  const std::size_t pitch = std::size_t{3} * static_cast<std::size_t>(image_.width);
  const std::uint8_t* first = image_.data + static_cast<std::size_t>(window_.top) * pitch + 3 * window_.left;
  return {first, pitch, window_.height, window_.width, image_.data + static_cast<std::size_t>(image_.height) * pitch};
}

Frame::Row Frame::row(int y) const {
  const Box line = intersect(visible_, {window_.top + y, window_.left, 1, window_.width});
  if (line.height == 0 || line.width == 0) return {nullptr, 0, 0};
  const int before = line.left - window_.left;
  const int offset = flipped_ ? window_.width - before - line.width : before;
  return {image_.data + 3 * (area(line.top, image_.width) + static_cast<std::size_t>(line.left)),
          static_cast<std::size_t>(offset), static_cast<std::size_t>(line.width)};
}

void Frame::unpack(int first, int count, const Affine& affine, Planes out) const {
  const ImageKernels& kernels = image_kernels();
  const auto width = static_cast<std::size_t>(window_.width);
  for (int y = first; y < first + count; ++y, out = out + width) {
    const Row line = row(y);
    if (line.count < width) {
      for (int c = 0; c < 3; ++c) {
        const float fill = static_cast<float>(fill_) * affine.scale[c] + affine.bias[c];
        std::fill_n(out.channel[c], line.offset, fill);
        std::fill_n(out.channel[c] + line.offset + line.count, width - line.offset - line.count, fill);
      }
    }
    if (line.count != 0) kernels.unpack(line.pixels, line.count, flipped_, affine, out + line.offset);
  }
}

void Frame::copy(std::uint8_t* out) const {
  const auto width = static_cast<std::size_t>(window_.width);
  for (int y = 0; y < window_.height; ++y, out += 3 * width) {
    const Row line = row(y);
    std::memset(out, fill_, 3 * line.offset);
    std::memset(out + 3 * (line.offset + line.count), fill_, 3 * (width - line.offset - line.count));
    if (flipped_) {
      copy_reversed(line.pixels, line.count, out + 3 * line.offset);
    } else if (line.count != 0) {
      std::memcpy(out + 3 * line.offset, line.pixels, 3 * line.count);
    }
  }
}

Affine normalization(const std::array<float, 3>& mean, const std::array<float, 3>& std) {
  Affine affine;
  for (std::size_t c = 0; c < 3; ++c) {
    affine.scale[c] = static_cast<float>(1.0 / (255.0 * std[c]));
    affine.bias[c] = static_cast<float>(-static_cast<double>(mean[c]) / std[c]);
  }
  return affine;
}

// Contrast needs the mean of the whole image as the steps before it leave it. So the steps are run in passes that end
// before a contrast; within a pass, all steps work on one chunk after the other.
void render(const Frame& frame, std::span<const ColorStep> steps, const Affine& affine, std::span<float> out) {
  const Planes planes = planes_of(out);
  if (steps.empty()) return frame.unpack(0, frame.height(), affine, planes);

  const ImageKernels& kernels = image_kernels();
  const int chunk_rows = std::max(1, kChunkPixels / frame.width());
  std::size_t begin = 0, end = find_contrast(steps, 0);
  float mean_grey = 0;
  for (bool first = true;; first = false) {
    const bool last = end == steps.size();
    std::int64_t grey = 0;
    for (int y = 0; y < frame.height(); y += chunk_rows) {
      const int rows = std::min(chunk_rows, frame.height() - y);
      const Planes chunk = planes + area(y, frame.width());
      const std::size_t n = area(rows, frame.width());
      if (first) frame.unpack(y, rows, kIdentity, chunk);
      for (const ColorStep& step : steps.subspan(begin, end - begin)) adjust(kernels, step, mean_grey, chunk, n);
      if (last) {
        kernels.transform(chunk, n, affine);
      } else {
        grey += kernels.sum_grey(chunk, n);
      }
    }
    if (last) return;
    mean_grey = static_cast<float>(static_cast<double>(grey) / static_cast<double>(out.size() / 3));
    begin = end;
    end = find_contrast(steps, begin + 1);
  }
}

void render(const Frame& frame, std::span<const ColorStep> steps, std::vector<float>& planar, Image& out) {
  reshape(out, frame.height(), frame.width());
  if (steps.empty()) return frame.copy(out.pixels.data());
  planar.resize(out.pixels.size());
  render(frame, steps, kIdentity, planar);
  pack(planar, out.pixels.data());
}

void reshape(Image& image, int height, int width) {
  image.height = height;
  image.width = width;
  image.pixels.resize(3 * area(height, width));
}

}  // namespace mmtrain::media::detail
