#include "media/resizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace mmtrain::media::detail {
namespace {

/// Tables that a resizer keeps; random crops of small images ask for a few dozen widths again and again.
constexpr std::size_t kTables = 256;
constexpr int kMaxPrecision = 22;

/// Fractional bits such that the largest weight still fits into 16 bits: PIL's rule.
int precision_for(double largest_weight) {
  int precision = 0;
  while (precision < kMaxPrecision && static_cast<int>(0.5 + largest_weight * (1 << (precision + 1))) < (1 << 15)) {
    ++precision;
  }
  return precision;
}

}  // namespace

void ResizeTable::build(int inputs, int outputs, bool antialias) {
  inputs_ = inputs;
  outputs_ = outputs;
  antialias_ = antialias;
  const double scale = static_cast<double>(inputs) / outputs;
  const double support = std::max(scale, 1.0);
  width_ = antialias ? static_cast<int>(std::ceil(support)) * 2 + 1 : 2;
  start_.resize(static_cast<std::size_t>(outputs));
  exact_.assign(static_cast<std::size_t>(outputs) * static_cast<std::size_t>(width_), 0.0);
  for (int i = 0; i < outputs; ++i) {
    if (antialias) {
      add_filtered(i, scale, support);
    } else {
      add_interpolated(i, scale);
    }
  }
  quantize();
}

void ResizeTable::add_filtered(int output, double scale, double support) {
  double* weights = exact_.data() + static_cast<std::ptrdiff_t>(output) * width_;
  const double center = scale * (output + 0.5);
  const double per_support = scale >= 1.0 ? 1.0 / scale : 1.0;
  const int first = std::max(static_cast<int>(center - support + 0.5), 0);
  const int count = std::clamp(std::min(static_cast<int>(center + support + 0.5), inputs_) - first, 0, width_);
  double total = 0;
  for (int k = 0; k < count; ++k) {
    weights[k] = std::max(0.0, 1.0 - std::abs((k + first - center + 0.5) * per_support));
    total += weights[k];
  }
  if (total != 0) {
    for (int k = 0; k < count; ++k) weights[k] /= total;
  }
  start_[static_cast<std::size_t>(output)] = first;
}

void ResizeTable::add_interpolated(int output, double scale) {
  double* weights = exact_.data() + static_cast<std::ptrdiff_t>(output) * width_;
  const double position = std::max(scale * (output + 0.5) - 0.5, 0.0);
  const int first = std::min(static_cast<int>(position), inputs_ - 1);
  const double part = first + 1 < inputs_ ? std::min(position - first, 1.0) : 0.0;
  weights[0] = 1.0 - part;
  weights[1] = part;
  start_[static_cast<std::size_t>(output)] = first;
}

std::int16_t ResizeTable::rounded(int output, int k) const {
  const double exact =
      exact_[static_cast<std::size_t>(output) * static_cast<std::size_t>(width_) + static_cast<std::size_t>(k)];
  return static_cast<std::int16_t>(0.5 + exact * (1 << precision_));
}

std::array<int, 2> ResizeTable::used_weights(int output) const {
  int begin = 0, end = width_;
  while (end > 1 && rounded(output, end - 1) == 0) --end;
  while (begin + 1 < end && rounded(output, begin) == 0) ++begin;
  return {begin, end};
}

void ResizeTable::quantize() {
  precision_ = precision_for(*std::max_element(exact_.begin(), exact_.end()));
  taps_ = 2;
  for (int i = 0; i < outputs_; ++i) {
    const auto [begin, end] = used_weights(i);
    taps_ = std::max(taps_, (end - begin + 1) / 2 * 2);
  }
  weights_.assign(static_cast<std::size_t>(outputs_) * static_cast<std::size_t>(taps_), 0);
  for (int i = 0; i < outputs_; ++i) {
    const auto [begin, end] = used_weights(i);
    std::int32_t& start = start_[static_cast<std::size_t>(i)];
    // Filters at the far end begin earlier, with zeros, so that they do not read behind the last input.
    const int first = start + begin;
    start = std::max(std::min(first, inputs_ - taps_), 0);
    std::int16_t* weights = weights_.data() + static_cast<std::ptrdiff_t>(i) * taps_ + (first - start);
    for (int k = begin; k < end; ++k) weights[k - begin] = rounded(i, k);
  }
}

void Resizer::resize(const PixelRows& source, int height, int width, bool antialias, std::uint8_t* out) {
  const bool resize_both = source.height != height && source.width != width;
  PixelRows rows = source;
  if (source.width != width) {
    if (resize_both)
      narrowed_.resize(std::size_t{3} * static_cast<std::size_t>(source.height) * static_cast<std::size_t>(width));
    rows = resize_width(source, table(source.width, width, antialias), resize_both ? narrowed_.data() : out);
  }
  if (source.height != height) {
    resize_height(rows, table(source.height, height, antialias), out);
  } else if (source.width == width) {
    const std::size_t bytes = std::size_t{3} * static_cast<std::size_t>(width);
    for (int y = 0; y < height; ++y) std::memcpy(out + static_cast<std::size_t>(y) * bytes, source.row(y), bytes);
  }
}

const ResizeTable& Resizer::table(int inputs, int outputs, bool antialias) {
  tables_.resize(kTables);
  ResizeTable& table = tables_[static_cast<std::size_t>(inputs) % kTables];
  if (!table.matches(inputs, outputs, antialias)) table.build(inputs, outputs, antialias);
  return table;
}

PixelRows Resizer::resize_width(const PixelRows& source, const ResizeTable& table, std::uint8_t* out) {
  const ResizeTaps taps = table.taps();
  const ImageKernels& kernels = image_kernels();
  const std::size_t row_bytes = std::size_t{3} * static_cast<std::size_t>(source.width);
  const std::size_t read_bytes =
      std::size_t{3} * static_cast<std::size_t>(std::max(source.width, taps.taps)) + kResizeSlack;
  const std::size_t pitch = std::size_t{3} * static_cast<std::size_t>(taps.outputs);
  padded_.resize(kResizeRows * read_bytes);
  for (int y = 0; y < source.height; y += kResizeRows) {
    std::array<const std::uint8_t*, kResizeRows> from;
    std::array<std::uint8_t*, kResizeRows> to;
    for (int r = 0; r < kResizeRows; ++r) {
      const int at = std::min(y + r, source.height - 1);
      const auto slot = static_cast<std::size_t>(r);
      from[slot] = source.row(at);
      to[slot] = out + static_cast<std::size_t>(at) * pitch;
      if (static_cast<std::size_t>(source.end - from[slot]) < read_bytes) {
        std::uint8_t* copy = padded_.data() + slot * read_bytes;
        std::memcpy(copy, from[slot], row_bytes);
        from[slot] = copy;
      }
    }
    kernels.resize_rows(from.data(), taps, to.data());
  }
  return {out, pitch, source.height, taps.outputs, out + pitch * static_cast<std::size_t>(source.height)};
}

void Resizer::resize_height(const PixelRows& source, const ResizeTable& table, std::uint8_t* out) {
  const ResizeTaps taps = table.taps();
  const ImageKernels& kernels = image_kernels();
  const std::size_t bytes = std::size_t{3} * static_cast<std::size_t>(source.width);
  rows_.resize(static_cast<std::size_t>(taps.taps));
  for (int i = 0; i < taps.outputs; ++i) {
    for (int k = 0; k < taps.taps; ++k) {
      rows_[static_cast<std::size_t>(k)] = source.row(std::min(taps.start[i] + k, source.height - 1));
    }
    kernels.blend_rows(rows_.data(), taps.weights + static_cast<std::ptrdiff_t>(i) * taps.taps, taps.taps,
                       taps.precision, bytes, out + static_cast<std::size_t>(i) * bytes);
  }
}

}  // namespace mmtrain::media::detail
