#pragma once

#include <array>
#include <complex>
#include <cstddef>
#include <span>
#include <vector>

#include "mmtrain/core/export.h"

/// Filters and spectra of sensor series in double precision, with scipy.signal's results.
namespace mmtrain::media {

/// A recursive filter as a cascade of second-order sections, each `b0 b1 b2 a0 a1 a2` with a0 = 1.
struct Sos {
  std::vector<std::array<double, 6>> sections;
};

/// Takes out `frequency` (Hz) of a series sampled at `fs` Hz; `q` is frequency over bandwidth at -3 dB
/// (scipy.signal.iirnotch). Throws `ConfigError` unless 0 < frequency < fs / 2 and q > 0.
MMTRAIN_API Sos iir_notch(double frequency, double q, double fs);

/// What a filter lets through: from `low` to `high` Hz. `{.low = 0.3}` is a high-pass, `{.high = 15}` a low-pass.
struct Band {
  double low = 0;   ///< Hz; 0: no lower edge
  double high = 0;  ///< Hz; 0: no upper edge
};

/// Butterworth filter (scipy.signal.butter). A band-pass of order n has 2n poles. Throws `ConfigError` unless the order
/// is in 1..20 and the edges lie in order between 0 and fs / 2, at least one of them given.
MMTRAIN_API Sos butterworth(int order, const Band& band, double fs);

/// Filters forward, in place, from rest (scipy.signal.sosfilt).
MMTRAIN_API void sosfilt(const Sos& filter, std::span<double> series);

/// Samples by which `filtfilt` extends a series at both ends: the series must be longer.
MMTRAIN_API std::size_t filtfilt_padding(const Sos& filter);

/// Filters forward and backward, in place: no phase shift, the gain squared. The ends are extended by odd reflection
/// and the filter starts in its steady state, as in scipy.signal.filtfilt and sosfiltfilt with their defaults. Throws
/// `DataError` for a series of at most `filtfilt_padding` samples.
MMTRAIN_API void filtfilt(const Sos& filter, std::span<double> series);

/// Segments of `stft`; scipy.signal.stft's meaning and defaults, with a Hann window.
struct SegmentOptions {
  int segment = 256;     ///< samples of a segment
  int overlap = 128;     ///< samples that neighbors share
  bool boundary = true;  ///< half a segment of zeros at both ends, so that the first segment is centred at 0
  bool padded = true;    ///< zeros at the end, so that the last samples are in a segment too
};

/// Complex values `[bins, frames]`.
struct SegmentSpectrum {
  int bins = 0;
  int frames = 0;
  std::vector<std::complex<double>> values;
};

/// Spectrum of one channel, scaled so that a sine has half its amplitude (scipy.signal.stft). Throws `ConfigError`
/// unless segment >= 2 and 0 <= overlap < segment, `DataError` for a series shorter than a segment.
MMTRAIN_API SegmentSpectrum stft(std::span<const double> series, const SegmentOptions& options = {});

}  // namespace mmtrain::media
