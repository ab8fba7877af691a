#include "datasets/sensor_activity.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace mmtrain::datasets::detail {
namespace {

// The quiet is taken to fill at least a fifth of a recording, and what happens to stand out four times above it.
constexpr double kQuietShare = 0.2, kLoudShare = 0.98, kContrast = 4, kThreshold = 0.25;

double quantile(std::vector<double> values, double share) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// Mean over a window of `width` values around each, shorter at the ends.
std::vector<double> smoothed(const std::vector<double>& values, std::size_t width) {
  const std::size_t count = values.size(), half = width / 2;
  std::vector<double> sums(count + 1, 0.0), result(count);
  for (std::size_t i = 0; i < count; ++i) sums[i + 1] = sums[i] + values[i];
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t from = i > half ? i - half : 0, to = std::min(count, i + half + 1);
    result[i] = (sums[to] - sums[from]) / static_cast<double>(to - from);
  }
  return result;
}

// Root of the mean energy of all channels, each relative to its own.
std::vector<double> envelope(std::span<const float> samples, std::size_t channels, std::size_t width) {
  const std::size_t rows = samples.size() / channels;
  std::vector<double> energy(rows, 0.0);
  for (std::size_t channel = 0; channel < channels; ++channel) {
    double total = 0;
    for (std::size_t row = 0; row < rows; ++row) {
      const double value = samples[row * channels + channel];
      total += value * value;
    }
    if (!(total > 0)) continue;
    const double scale = static_cast<double>(rows) / total;
    for (std::size_t row = 0; row < rows; ++row) {
      const double value = samples[row * channels + channel];
      energy[row] += value * value * scale;
    }
  }
  std::vector<double> result = smoothed(energy, width);
  for (double& value : result) value = std::sqrt(value);
  return result;
}

void join(std::vector<TimeSpan>& spans, double pause) {
  std::vector<TimeSpan> joined;
  for (const TimeSpan& span : spans) {
    if (!joined.empty() && span.begin - joined.back().end < pause) {
      joined.back().end = std::max(joined.back().end, span.end);
    } else {
      joined.push_back(span);
    }
  }
  spans = std::move(joined);
}

}  // namespace

std::vector<TimeSpan> find_activity(std::span<const float> samples, std::int64_t channel_count,
                                    const ActivityOptions& options) {
  const auto channels = static_cast<std::size_t>(channel_count);
  const std::size_t rows = samples.size() / channels;
  if (rows < 2) return {};
  const double end_of_recording = static_cast<double>(rows) / options.rate;
  const auto width = static_cast<std::size_t>(std::max(1.0, options.smooth_seconds * options.rate));
  const std::vector<double> level = envelope(samples, channels, width);
  const double quiet = quantile(level, kQuietShare), loud = quantile(level, kLoudShare);
  if (!(loud > kContrast * quiet)) return {};
  const double threshold = quiet + kThreshold * (loud - quiet);
  std::vector<TimeSpan> spans;
  for (std::size_t row = 0; row < rows; ++row) {
    if (level[row] < threshold) continue;
    const double begin = static_cast<double>(row) / options.rate;
    while (row < rows && level[row] >= threshold) ++row;
    spans.push_back({begin, static_cast<double>(row) / options.rate});
  }
  join(spans, options.join_seconds);
  for (TimeSpan& span : spans) {
    const double missing = std::max(0.0, options.event_seconds - (span.end - span.begin));
    span = {std::max(0.0, span.begin - missing / 2), std::min(end_of_recording, span.end + missing / 2)};
  }
  join(spans, 0);
  return spans;
}

double coverage(const std::vector<TimeSpan>& spans, double begin, double end) {
  double covered = 0;
  for (const TimeSpan& span : spans) covered += std::max(0.0, std::min(end, span.end) - std::max(begin, span.begin));
  return end > begin ? covered / (end - begin) : 0;
}

}  // namespace mmtrain::datasets::detail
