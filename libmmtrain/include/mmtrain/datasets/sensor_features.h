#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "mmtrain/core/config.h"
#include "mmtrain/core/export.h"
#include "mmtrain/datasets/sensor_folders.h"

/// What nets see of a window: the series itself and its spectrum, each on a common scale.
namespace mmtrain::datasets {

struct SensorFeatureOptions {
  bool stft = true;   ///< log magnitudes of `media::stft`, neighbors sharing half a segment
  bool mfcc = false;  ///< 13 cepstral coefficients of 26 mel bands (FFT 512); below the former if both are there
  /// Samples of a segment; 0: 256, in windows too short for two of these the largest power of two that fits twice.
  int segment = 0;
};

/// Computes the spectrum of windows. Immutable; any number of threads may use it at once.
class MMTRAIN_API SensorFeatures {
 public:
  /// Throws `ConfigError` for options that do not fit windows of `rows` rows.
  SensorFeatures(std::int64_t channels, std::int64_t rows, double rate, const SensorFeatureOptions& options = {});
  ~SensorFeatures();
  SensorFeatures(SensorFeatures&& other) noexcept;

  std::int64_t channels() const;
  std::int64_t rows() const;
  std::int64_t bins() const;  ///< rows of the spectrum of a channel; 0 without any
  std::int64_t frames() const;

  /// The spectrum `[channels, bins, frames]` of a series `[rows, channels]`.
  void spectrum(std::span<const float> series, std::span<float> out) const;
  /// The same in double precision; cepstral coefficients are computed in single precision all the same.
  void spectrum(std::span<const double> series, std::span<double> out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Mean and standard deviation of what a net is trained on: of each channel of the series, and of each bin of each
/// channel of the spectrum of the series brought to scale. What never changes has deviation 1.
struct MMTRAIN_API SensorStatistics {
  std::vector<double> series_mean, series_std;      ///< `[channels]`
  std::vector<double> spectrum_mean, spectrum_std;  ///< `[channels, bins]`

  /// Of the windows with these indices, the training split and nothing else.
  static SensorStatistics of(const SensorData& data, std::span<const std::int64_t> windows,
                             const SensorFeatures& features, int threads = 0);
  /// Leaves everything as it is.
  static SensorStatistics none(const SensorFeatures& features);

  Config to_config() const;
  /// Throws `DataError` for a key that is missing.
  static SensorStatistics from_config(const Config& config);

  /// Brings a series `[rows, channels]` and a spectrum `[channels, bins, frames]` to scale.
  void scale_series(std::span<float> series) const;
  void scale_spectrum(std::span<float> spectrum) const;
};

/// The rows of a window, `[window_rows, channels]`, with zeros around it where it is shorter. `shift` moves it in its
/// recording, as far as that reaches.
MMTRAIN_API void copy_window(const SensorData& data, const SensorWindow& window, std::int64_t shift,
                             std::span<float> out);

}  // namespace mmtrain::datasets
