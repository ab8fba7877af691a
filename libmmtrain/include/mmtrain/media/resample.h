#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "mmtrain/core/export.h"

namespace mmtrain::media {

/// Changes the sample rate by band-limited interpolation: a sinc under a squared cosine window of 6 zero crossings at
/// each side, cut off at 0.99 of the lower Nyquist frequency (Smith, "Digital audio resampling"). It has the results
/// and the defaults of torchaudio.functional.resample. Immutable: threads may share it.
class MMTRAIN_API Resampler {
 public:
  /// Throws `ConfigError` unless both rates (Hz) are positive.
  Resampler(int from_rate, int to_rate);

  /// Samples that come of `samples`: ceil(samples * to / from).
  std::int64_t output_size(std::int64_t samples) const;

  /// One channel; `out` has `output_size` samples, else `DataError`.
  void operator()(std::span<const float> mono, std::span<float> out) const;

 private:
  struct Filters;
  std::shared_ptr<const Filters> filters_;
};

/// One channel at another rate. Filters are kept for the next call, whichever thread makes it.
MMTRAIN_API std::vector<float> resample(std::span<const float> mono, int from_rate, int to_rate);

}  // namespace mmtrain::media
