#include "mmtrain/datasets/sensor_features.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <optional>

#include "core/parallel_for.h"
#include "mmtrain/core/error.h"
#include "mmtrain/media/filters.h"
#include "mmtrain/media/spectral.h"

namespace mmtrain::datasets {
namespace {

constexpr int kSegment = 256, kLeastSegment = 8;
constexpr double kLogFloor = 1e-6;  // of magnitudes of a series whose deviation is 1
constexpr double kLeastDeviation = 1e-6;

int segment_for(std::int64_t rows, int wanted) {
  if (wanted > 0) return wanted;
  int segment = kSegment;
  while (segment > kLeastSegment && 2 * segment > rows + segment / 4) segment /= 2;
  return segment;
}

// Sums of values and squares by which mean and deviation follow.
class Moments {
 public:
  explicit Moments(std::size_t size) : sums_(size), squares_(size) {}

  void add(std::size_t k, double value) {
    sums_[k] += value;
    squares_[k] += value * value;
  }
  void add_count(double count) { count_ += count; }
  void join(const Moments& other) {
    for (std::size_t k = 0; k < sums_.size(); ++k) {
      sums_[k] += other.sums_[k];
      squares_[k] += other.squares_[k];
    }
    count_ += other.count_;
  }
  void finish(std::vector<double>& mean, std::vector<double>& deviation) const {
    const double count = std::max(1.0, count_);
    mean.clear();
    deviation.clear();
    for (std::size_t k = 0; k < sums_.size(); ++k) {
      const double middle = sums_[k] / count, spread = std::sqrt(std::max(0.0, squares_[k] / count - middle * middle));
      mean.push_back(middle);
      deviation.push_back(spread > kLeastDeviation * (1 + std::abs(middle)) ? spread : 1.0);
    }
  }

 private:
  std::vector<double> sums_, squares_;
  double count_ = 0;
};

// Calls `visit(sums, window)` for each window; sums of fixed pieces are added up in their order, so that the result
// does not depend on the number of threads.
template <class Visit>
Moments gather(std::span<const std::int64_t> windows, std::size_t size, int threads, const Visit& visit) {
  constexpr std::size_t kPiece = 64;
  const std::size_t pieces = (windows.size() + kPiece - 1) / kPiece;
  std::vector<std::optional<Moments>> parts(pieces);
  mmtrain::detail::parallel_for(threads > 0 ? threads : mmtrain::detail::machine_threads(),
                                static_cast<std::int64_t>(pieces), [&](std::int64_t piece) {
                                  Moments sums(size);
                                  const auto first = static_cast<std::size_t>(piece) * kPiece;
                                  const std::size_t last = std::min(windows.size(), first + kPiece);
                                  for (std::size_t k = first; k < last; ++k) visit(sums, windows[k]);
                                  parts[static_cast<std::size_t>(piece)] = std::move(sums);
                                });
  Moments total(size);
  for (const auto& part : parts) total.join(*part);
  return total;
}

void scale_rows(std::span<float> values, std::size_t length, const std::vector<double>& mean,
                const std::vector<double>& deviation) {
  for (std::size_t row = 0; row < mean.size(); ++row) {
    const auto shift = static_cast<float>(mean[row]), factor = static_cast<float>(1 / deviation[row]);
    for (float& value : values.subspan(row * length, length)) value = (value - shift) * factor;
  }
}

}  // namespace

struct SensorFeatures::Impl {
  std::int64_t channels, rows;
  media::SegmentOptions segments;
  std::optional<media::Mfcc> mfcc;
  std::int64_t stft_bins = 0, mfcc_bins = 0, frames = 0;

  template <class T>
  void spectrum(std::span<const T> series, std::span<T> out) const;
};

SensorFeatures::SensorFeatures(std::int64_t channels, std::int64_t rows, double rate,
                               const SensorFeatureOptions& options)
    : impl_(std::make_unique<Impl>()) {
  if (channels < 1 || rows < 2 || !(rate > 0)) {
    throw ConfigError(
        fmt::format("[SensorFeatures] windows of {} rows and {} channels at {} Hz cannot be", rows, channels, rate));
  }
  impl_->channels = channels;
  impl_->rows = rows;
  std::int64_t frames = 0;
  if (options.stft) {
    const int segment = segment_for(rows, options.segment);
    if (segment < kLeastSegment || segment > rows) {
      throw ConfigError(fmt::format("[SensorFeatures] segment must be between {} and the {} rows of a window, got {}",
                                    kLeastSegment, rows, segment));
    }
    impl_->segments = {.segment = segment, .overlap = segment / 2};
    const media::SegmentSpectrum probe =
        media::stft(std::vector<double>(static_cast<std::size_t>(rows)), impl_->segments);
    impl_->stft_bins = probe.bins;
    frames = probe.frames;
  }
  if (options.mfcc) {
    constexpr int kFft = 512, kHop = 128, kBands = 26, kCoefficients = 13;
    MfccOptions mfcc{.n_mfcc = kCoefficients};
    mfcc.mel.sample_rate = static_cast<int>(std::max(1L, std::lround(rate)));
    mfcc.mel.n_fft = kFft;
    mfcc.mel.hop = kHop;
    mfcc.mel.n_mels = kBands;
    impl_->mfcc.emplace(mfcc);
    impl_->mfcc_bins = kCoefficients;
    const std::int64_t those = impl_->mfcc->frames(rows);
    frames = frames > 0 ? std::min(frames, those) : those;
  }
  impl_->frames = frames;
}

SensorFeatures::~SensorFeatures() = default;
SensorFeatures::SensorFeatures(SensorFeatures&& other) noexcept = default;

std::int64_t SensorFeatures::channels() const { return impl_->channels; }
std::int64_t SensorFeatures::rows() const { return impl_->rows; }
std::int64_t SensorFeatures::bins() const { return impl_->stft_bins + impl_->mfcc_bins; }
std::int64_t SensorFeatures::frames() const { return impl_->frames; }

template <class T>
void SensorFeatures::Impl::spectrum(std::span<const T> series, std::span<T> out) const {
  thread_local std::vector<double> channel;
  thread_local std::vector<float> signal, coefficients;
  const auto width = static_cast<std::size_t>(channels), length = static_cast<std::size_t>(rows);
  const auto kept = static_cast<std::size_t>(frames);
  const auto bins = static_cast<std::size_t>(stft_bins), cepstral = static_cast<std::size_t>(mfcc_bins);
  if (series.size() != length * width || out.size() != width * (bins + cepstral) * kept) {
    throw DataError("[SensorFeatures] the series or the spectrum has another size");
  }
  T* place = out.data();
  for (std::size_t c = 0; c < width; ++c) {
    if (bins > 0) {
      channel.resize(length);
      for (std::size_t row = 0; row < length; ++row) channel[row] = series[row * width + c];
      const media::SegmentSpectrum found = media::stft(channel, segments);
      const auto all = static_cast<std::size_t>(found.frames);
      for (std::size_t bin = 0; bin < bins; ++bin) {
        for (std::size_t frame = 0; frame < kept; ++frame) {
          *place++ = std::log(static_cast<T>(std::sqrt(std::norm(found.values[bin * all + frame]))) +
                              static_cast<T>(kLogFloor));
        }
      }
    }
    if (cepstral > 0) {
      signal.resize(length);
      for (std::size_t row = 0; row < length; ++row) signal[row] = static_cast<float>(series[row * width + c]);
      const auto all = static_cast<std::size_t>(mfcc->frames(rows));
      coefficients.resize(cepstral * all);
      (*mfcc)(signal, coefficients);
      for (std::size_t bin = 0; bin < cepstral; ++bin) {
        place = std::copy_n(coefficients.begin() + static_cast<std::ptrdiff_t>(bin * all), kept, place);
      }
    }
  }
}

void SensorFeatures::spectrum(std::span<const float> series, std::span<float> out) const {
  impl_->spectrum(series, out);
}
void SensorFeatures::spectrum(std::span<const double> series, std::span<double> out) const {
  impl_->spectrum(series, out);
}

SensorStatistics SensorStatistics::of(const SensorData& data, std::span<const std::int64_t> windows,
                                      const SensorFeatures& features, int threads) {
  if (windows.empty()) throw ConfigError("[SensorStatistics] there is no window to take statistics of");
  const auto channels = static_cast<std::size_t>(features.channels()), rows = static_cast<std::size_t>(features.rows());
  const auto bins = static_cast<std::size_t>(features.bins()), frames = static_cast<std::size_t>(features.frames());
  SensorStatistics result;
  // Zeros that fill up a short window are no measurement.
  const auto measured = [&](const SensorWindow& window) {
    const SensorRecording& recording = data.recordings[static_cast<std::size_t>(window.recording)];
    return std::span(recording.samples)
        .subspan(static_cast<std::size_t>(window.first_row) * channels,
                 static_cast<std::size_t>(window.rows) * channels);
  };
  const auto visit_series = [&](Moments& sums, std::int64_t index) {
    const std::span<const float> values = measured(data.windows[static_cast<std::size_t>(index)]);
    for (std::size_t row = 0; row < values.size(); row += channels) {
      for (std::size_t c = 0; c < channels; ++c) sums.add(c, values[row + c]);
    }
    sums.add_count(static_cast<double>(values.size() / channels));
  };
  gather(windows, channels, threads, visit_series).finish(result.series_mean, result.series_std);
  if (bins == 0) return result;
  const auto visit_spectrum = [&](Moments& sums, std::int64_t index) {
    thread_local std::vector<float> series, spectrum;
    series.resize(rows * channels);
    spectrum.resize(channels * bins * frames);
    copy_window(data, data.windows[static_cast<std::size_t>(index)], 0, series);
    result.scale_series(series);
    features.spectrum(series, spectrum);
    for (std::size_t bin = 0; bin < channels * bins; ++bin) {
      for (std::size_t frame = 0; frame < frames; ++frame) sums.add(bin, spectrum[bin * frames + frame]);
    }
    sums.add_count(static_cast<double>(frames));
  };
  gather(windows, channels * bins, threads, visit_spectrum).finish(result.spectrum_mean, result.spectrum_std);
  return result;
}

SensorStatistics SensorStatistics::none(const SensorFeatures& features) {
  const auto channels = static_cast<std::size_t>(features.channels());
  const auto spectrum = channels * static_cast<std::size_t>(features.bins());
  return {std::vector<double>(channels, 0.0), std::vector<double>(channels, 1.0), std::vector<double>(spectrum, 0.0),
          std::vector<double>(spectrum, 1.0)};
}

Config SensorStatistics::to_config() const {
  Config config;
  config.set("series_mean", series_mean);
  config.set("series_std", series_std);
  config.set("spectrum_mean", spectrum_mean);
  config.set("spectrum_std", spectrum_std);
  return config;
}

SensorStatistics SensorStatistics::from_config(const Config& config) {
  const auto read = [&](const char* key) {
    const auto values = config.get<std::vector<double>>(key);
    if (!values) throw DataError(fmt::format("[SensorStatistics] {} has no '{}'", config.source(), key));
    return *values;
  };
  return {read("series_mean"), read("series_std"), read("spectrum_mean"), read("spectrum_std")};
}

void SensorStatistics::scale_series(std::span<float> series) const {
  const std::size_t channels = series_mean.size();
  for (std::size_t c = 0; c < channels; ++c) {
    const double mean = series_mean[c], factor = 1 / series_std[c];
    for (std::size_t at = c; at < series.size(); at += channels) {
      series[at] = static_cast<float>((series[at] - mean) * factor);
    }
  }
}

void SensorStatistics::scale_spectrum(std::span<float> spectrum) const {
  if (spectrum_mean.empty()) return;
  scale_rows(spectrum, spectrum.size() / spectrum_mean.size(), spectrum_mean, spectrum_std);
}

void copy_window(const SensorData& data, const SensorWindow& window, std::int64_t shift, std::span<float> out) {
  const SensorRecording& recording = data.recordings[static_cast<std::size_t>(window.recording)];
  const auto channels = static_cast<std::size_t>(data.num_channels());
  const std::int64_t first = std::clamp<std::int64_t>(window.first_row + shift, 0, recording.rows - window.rows);
  const std::int64_t before = (data.window_rows - window.rows) / 2;
  const auto from = recording.samples.begin() + first * static_cast<std::int64_t>(channels);
  const auto count = static_cast<std::size_t>(window.rows) * channels;
  const std::size_t gap = static_cast<std::size_t>(before) * channels;
  std::fill_n(out.begin(), gap, 0.0F);
  std::copy_n(from, count, out.begin() + static_cast<std::ptrdiff_t>(gap));
  std::fill(out.begin() + static_cast<std::ptrdiff_t>(gap + count), out.end(), 0.0F);
}

}  // namespace mmtrain::datasets
