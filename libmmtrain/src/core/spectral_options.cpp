#include "mmtrain/core/spectral_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "mmtrain/core/error.h"

namespace mmtrain {
namespace {

template <class Value>
void require(bool holds, const char* name, const char* rule, Value value) {
  if (!holds) throw ConfigError(fmt::format("[spectral options] {} {}, got {}", name, rule, value));
}

constexpr double kSlaneyStep = 200.0 / 3;          // Hz a mel below the knee
constexpr double kSlaneyKnee = 1000;               // Hz
const double kSlaneyLogStep = std::log(6.4) / 27;  // above it, in ln(Hz)

double to_mel(double hz, MelScale scale) {
  if (scale == MelScale::htk) return 2595 * std::log10(1 + hz / 700);
  if (hz < kSlaneyKnee) return hz / kSlaneyStep;
  return kSlaneyKnee / kSlaneyStep + std::log(hz / kSlaneyKnee) / kSlaneyLogStep;
}

double to_hz(double mel, MelScale scale) {
  if (scale == MelScale::htk) return 700 * (std::pow(10, mel / 2595) - 1);
  const double knee = kSlaneyKnee / kSlaneyStep;
  return mel < knee ? mel * kSlaneyStep : kSlaneyKnee * std::exp(kSlaneyLogStep * (mel - knee));
}

double upper_edge(const MelOptions& options) { return options.f_max > 0 ? options.f_max : options.sample_rate / 2.0; }

double window_value(WindowShape shape, double phase) {
  switch (shape) {
    case WindowShape::hann:
      return 0.5 - 0.5 * std::cos(phase);
    case WindowShape::hamming:
      return 0.54 - 0.46 * std::cos(phase);
    case WindowShape::rectangular:
      break;
  }
  return 1;
}

}  // namespace

void validate(const StftOptions& options) {
  constexpr int kLargest = 1 << 24;
  require(options.n_fft >= 1 && options.n_fft <= kLargest, "n_fft", "must be in 1..2^24", options.n_fft);
  require(options.hop >= 1, "hop", "must be positive", options.hop);
  require(options.window_length >= 0 && options.window_length <= options.n_fft, "window_length",
          "must be in 0..n_fft (0: n_fft)", options.window_length);
}

void validate(const MelOptions& options) {
  validate(options.stft());
  require(options.sample_rate >= 1, "sample_rate", "must be positive", options.sample_rate);
  require(options.n_mels >= 1, "n_mels", "must be positive", options.n_mels);
  require(options.f_min >= 0, "f_min", "must not be negative", options.f_min);
  require(options.f_max >= 0, "f_max", "must not be negative (0: half the sample rate)", options.f_max);
  require(upper_edge(options) > options.f_min, "f_max", "must be above f_min", upper_edge(options));
  require(options.power == 1 || options.power == 2, "power", "must be 1 (magnitudes) or 2 (energies)", options.power);
  require(options.floor >= 1e-30 && std::isfinite(options.floor), "floor", "must be at least 1e-30", options.floor);
  require(options.top_db >= 0, "top_db", "must not be negative (0: off)", options.top_db);
  require(options.top_db == 0 || options.log == MelLog::decibel, "top_db", "needs log decibel", options.top_db);
}

void validate(const MfccOptions& options) {
  validate(options.mel);
  require(options.n_mfcc >= 1 && options.n_mfcc <= options.mel.n_mels, "n_mfcc", "must be in 1..n_mels",
          options.n_mfcc);
  require(options.mel.log != MelLog::none, "mel.log", "must be natural or decibel for cepstral coefficients", "none");
}

std::int64_t frame_count(const StftOptions& options, std::int64_t samples) {
  if (samples <= 0) return 0;
  if (options.center) return 1 + (samples + options.n_fft / 2 * 2 - options.n_fft) / options.hop;
  return samples < options.n_fft ? 0 : 1 + (samples - options.n_fft) / options.hop;
}

std::vector<double> window_values(const StftOptions& options) {
  const int length = options.window_length > 0 ? options.window_length : options.n_fft;
  std::vector<double> window(static_cast<std::size_t>(options.n_fft));
  const auto left = static_cast<std::size_t>((options.n_fft - length) / 2);
  for (int i = 0; i < length; ++i) {
    window[left + static_cast<std::size_t>(i)] = window_value(options.window, 2 * std::numbers::pi * i / length);
  }
  return window;
}

std::vector<double> mel_filter_bank(const MelOptions& options) {
  validate(options);
  const auto bands = static_cast<std::size_t>(options.n_mels), bins = static_cast<std::size_t>(options.n_fft / 2 + 1);
  std::vector<double> edges(bands + 2);
  const double first = to_mel(options.f_min, options.scale), last = to_mel(upper_edge(options), options.scale);
  for (std::size_t i = 0; i < edges.size(); ++i) {
    edges[i] = to_hz(first + (last - first) * static_cast<double>(i) / static_cast<double>(bands + 1), options.scale);
  }
  std::vector<double> filters(bands * bins);
  for (std::size_t band = 0; band < bands; ++band) {
    const double low = edges[band], middle = edges[band + 1], high = edges[band + 2];
    const double height = options.norm == MelNorm::slaney ? 2 / (high - low) : 1;
    for (std::size_t bin = 0; bin < bins; ++bin) {
      const double hz = static_cast<double>(bin) * options.sample_rate / options.n_fft;
      const double rise = (hz - low) / (middle - low), fall = (high - hz) / (high - middle);
      filters[band * bins + bin] = height * std::max(0.0, std::min(rise, fall));
    }
  }
  return filters;
}

std::vector<double> dct_matrix(const MfccOptions& options) {
  validate(options);
  const int inputs = options.mel.n_mels;
  std::vector<double> matrix;
  matrix.reserve(static_cast<std::size_t>(options.n_mfcc) * static_cast<std::size_t>(inputs));
  for (int row = 0; row < options.n_mfcc; ++row) {
    const double scale = std::sqrt((row == 0 ? 1.0 : 2.0) / inputs);
    for (int i = 0; i < inputs; ++i) matrix.push_back(scale * std::cos(std::numbers::pi / inputs * (i + 0.5) * row));
  }
  return matrix;
}

std::int64_t padded_index(PadMode mode, std::int64_t index, std::int64_t samples) {
  if (index >= 0 && index < samples) return index;
  switch (mode) {
    case PadMode::constant:
      return -1;
    case PadMode::replicate:
      return index < 0 ? 0 : samples - 1;
    case PadMode::reflect:
      break;
  }
  if (samples == 1) return 0;
  const std::int64_t period = 2 * (samples - 1);
  const std::int64_t place = (index % period + period) % period;
  return place < samples ? place : period - place;
}

}  // namespace mmtrain
