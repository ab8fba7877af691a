#include "mmtrain/media/filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "media/fft.h"
#include "mmtrain/core/error.h"

namespace mmtrain::media {
namespace {

/// A periodic Hann window whose sum is 1.
std::vector<double> unit_window(int size) {
  std::vector<double> window(static_cast<std::size_t>(size));
  double sum = 0;
  for (int i = 0; i < size; ++i) {
    sum += window[static_cast<std::size_t>(i)] = 0.5 - 0.5 * std::cos(2 * std::numbers::pi * i / size);
  }
  for (double& value : window) value /= sum;
  return window;
}

/// The series with the zeros around it that the options ask for.
std::vector<double> extended(std::span<const double> series, std::size_t segment, std::size_t step,
                             const SegmentOptions& options) {
  const std::size_t margin = options.boundary ? segment / 2 : 0;
  std::size_t size = series.size() + 2 * margin;
  if (options.padded) size += (step - (size - segment) % step) % step;
  std::vector<double> values(size);
  std::copy(series.begin(), series.end(), values.begin() + static_cast<std::ptrdiff_t>(margin));
  return values;
}

}  // namespace

SegmentSpectrum stft(std::span<const double> series, const SegmentOptions& options) {
  if (options.segment < 2 || options.overlap < 0 || options.overlap >= options.segment) {
    throw ConfigError(fmt::format("[stft] segment must be at least 2 and overlap in 0..segment - 1, got {} and {}",
                                  options.segment, options.overlap));
  }
  const auto segment = static_cast<std::size_t>(options.segment);
  if (series.size() < segment) {
    throw DataError(
        fmt::format("[stft] a series must be as long as a segment, {} samples, got {}: cut longer windows "
                    "or lower SegmentOptions::segment",
                    segment, series.size()));
  }
  const std::size_t step = segment - static_cast<std::size_t>(options.overlap);
  const std::vector<double> values = extended(series, segment, step, options);
  thread_local std::vector<double> window;  // of the last call, most likely that of this one
  if (window.size() != segment) window = unit_window(options.segment);
  const std::size_t bins = segment / 2 + 1, frames = (values.size() - segment) / step + 1;

  SegmentSpectrum spectrum{static_cast<int>(bins), static_cast<int>(frames), {}};
  spectrum.values.resize(bins * frames);
  const detail::Fft<double> fft(options.segment);
  const detail::AlignedArray<double> in(2 * segment), out(2 * segment);
  for (std::size_t frame = 0; frame < frames; ++frame) {
    for (std::size_t i = 0; i < segment; ++i) in.data()[2 * i] = window[i] * values[frame * step + i];
    fft(in.data(), out.data());
    for (std::size_t bin = 0; bin < bins; ++bin) {
      spectrum.values[bin * frames + frame] = {out.data()[2 * bin], out.data()[2 * bin + 1]};
    }
  }
  return spectrum;
}

}  // namespace mmtrain::media
