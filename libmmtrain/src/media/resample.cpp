#include "mmtrain/media/resample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <numbers>
#include <numeric>
#include <utility>

#include "media/spectral_kernels.h"
#include "mmtrain/core/error.h"

namespace mmtrain::media {
namespace {

constexpr double kZeroCrossings = 6, kRolloff = 0.99;

double windowed_sinc(double t) {
  if (std::abs(t) >= kZeroCrossings) return 0;
  const double window = std::cos(t * std::numbers::pi / kZeroCrossings / 2);
  const double x = t * std::numbers::pi;
  return window * window * (x == 0 ? 1 : std::sin(x) / x);
}

/// Zero crossings from input `index` to output `phase`. In single precision and in this order, as torchaudio has it:
/// its roundings, some -100 dB, are the largest difference that there would be.
float crossings(std::int64_t index, std::int64_t from, std::int64_t phase, std::int64_t to, double cutoff) {
  const float time =
      -static_cast<float>(phase) / static_cast<float>(to) + static_cast<float>(index) / static_cast<float>(from);
  return time * static_cast<float>(cutoff);
}

}  // namespace

/// Output `step * to + phase` is the sum of `taps` inputs from `step * from + first[phase]` on, each times its weight.
/// Rates are divided by their common divisor.
struct Resampler::Filters {
  Filters(int from_rate, int to_rate)
      : from(from_rate / std::gcd(from_rate, to_rate)), to(to_rate / std::gcd(from_rate, to_rate)) {
    const double cutoff = std::min(from, to) * kRolloff, reach = kZeroCrossings * static_cast<double>(from) / cutoff;
    const auto wanted = static_cast<std::size_t>(std::ceil(2 * reach)) + 1;
    taps = (wanted + detail::kFrames - 1) / detail::kFrames * detail::kFrames;
    first.reserve(static_cast<std::size_t>(to));
    weights.reserve(static_cast<std::size_t>(to) * taps);
    for (std::int64_t phase = 0; phase < to; ++phase) {
      const double center = static_cast<double>(phase * from) / static_cast<double>(to);
      first.push_back(static_cast<std::int64_t>(std::ceil(center - reach)));
      for (std::size_t tap = 0; tap < taps; ++tap) {
        const std::int64_t index = first.back() + static_cast<std::int64_t>(tap);
        const double weight = windowed_sinc(crossings(index, from, phase, to, cutoff));
        weights.push_back(static_cast<float>(weight * cutoff / static_cast<double>(from)));
      }
    }
  }

  std::int64_t from, to;
  std::size_t taps;
  std::vector<std::int64_t> first;
  std::vector<float> weights;
};

Resampler::Resampler(int from_rate, int to_rate) {
  if (from_rate <= 0 || to_rate <= 0) {
    throw ConfigError(fmt::format("[Resampler] sample rates must be positive, got {} and {} Hz", from_rate, to_rate));
  }
  filters_ = std::make_shared<const Filters>(from_rate, to_rate);
}

std::int64_t Resampler::output_size(std::int64_t samples) const {
  return (samples * filters_->to + filters_->from - 1) / filters_->from;
}

void Resampler::operator()(std::span<const float> mono, std::span<float> out) const {
  const std::int64_t size = output_size(static_cast<std::int64_t>(mono.size()));
  if (static_cast<std::int64_t>(out.size()) != size) {
    throw DataError(fmt::format("[Resampler] the result has {} samples, the memory for it {}", size, out.size()));
  }
  const Filters& f = *filters_;
  if (f.from == f.to) {
    std::copy(mono.begin(), mono.end(), out.begin());
    return;
  }
  // Silence around the samples, so that no filter reaches outside.
  const auto margin = static_cast<std::int64_t>(f.taps);
  std::vector<float> padded(mono.size() + static_cast<std::size_t>(2 * margin + f.from));
  std::copy(mono.begin(), mono.end(), padded.begin() + margin);
  const auto dot = detail::spectral_kernels().dot;
  const float* base = padded.data() + margin;
  std::int64_t phase = 0;
  for (float& sample : out) {
    const auto row = static_cast<std::size_t>(phase);
    sample = dot(base + f.first[row], f.weights.data() + row * f.taps, f.taps);
    if (++phase == f.to) {
      phase = 0;
      base += f.from;
    }
  }
}

std::vector<float> resample(std::span<const float> mono, int from_rate, int to_rate) {
  constexpr std::size_t kKept = 16;
  static std::mutex mutex;
  static std::map<std::pair<int, int>, Resampler> kept;
  const Resampler resampler = [&] {
    const std::lock_guard lock(mutex);
    const std::pair<int, int> rates(from_rate, to_rate);
    if (const auto found = kept.find(rates); found != kept.end()) return found->second;
    if (kept.size() == kKept) kept.clear();
    return kept.emplace(rates, Resampler(from_rate, to_rate)).first->second;
  }();
  std::vector<float> out(static_cast<std::size_t>(resampler.output_size(static_cast<std::int64_t>(mono.size()))));
  resampler(mono, out);
  return out;
}

}  // namespace mmtrain::media
