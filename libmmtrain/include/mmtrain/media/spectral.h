#pragma once

#include <complex>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/core/spectral_options.h"

/// Spectra of one recording, on one core, for the threads of a loader: objects are immutable, and a call allocates
/// nothing once its thread is warm. Results are the same in every run and thread of a machine, whatever lies next to a
/// frame. A recording without samples has no frames.
///
///   const MelSpectrogram mel({.n_mels = 64, .log = MelLog::decibel});
///   const std::vector<float> features = mel(audio.samples);  // [64, mel.frames(size)]
///
/// Constructors throw `ConfigError` for options that have no meaning, calls `DataError` if `out` has another size.
namespace mmtrain::media {

namespace detail {
class SpectrumPlan;
struct MelPlan;
struct MfccPlan;
}  // namespace detail

/// The short-time Fourier transform of torch.stft (one-sided, not normalised).
class MMTRAIN_API Stft {
 public:
  explicit Stft(const StftOptions& options = {});

  /// n_fft / 2 + 1.
  int bins() const;
  std::int64_t frames(std::int64_t samples) const;

  /// Complex spectrum `[bins, frames]`.
  void operator()(std::span<const float> samples, std::span<std::complex<float>> out) const;
  std::vector<std::complex<float>> operator()(std::span<const float> samples) const;

  /// |X|^2 `[bins, frames]`.
  void power(std::span<const float> samples, std::span<float> out) const;
  std::vector<float> power(std::span<const float> samples) const;

 private:
  std::shared_ptr<const detail::SpectrumPlan> plan_;
};

/// Mel spectrogram, of energies, magnitudes or their logarithm.
class MMTRAIN_API MelSpectrogram {
 public:
  explicit MelSpectrogram(const MelOptions& options = {});

  const MelOptions& options() const;
  std::int64_t frames(std::int64_t samples) const;

  /// `[n_mels, frames]`.
  void operator()(std::span<const float> samples, std::span<float> out) const;
  std::vector<float> operator()(std::span<const float> samples) const;

 private:
  std::shared_ptr<const detail::MelPlan> plan_;
};

/// Mel-frequency cepstral coefficients.
class MMTRAIN_API Mfcc {
 public:
  explicit Mfcc(const MfccOptions& options = {});

  const MfccOptions& options() const;
  std::int64_t frames(std::int64_t samples) const;

  /// `[n_mfcc, frames]`.
  void operator()(std::span<const float> samples, std::span<float> out) const;
  std::vector<float> operator()(std::span<const float> samples) const;

 private:
  std::shared_ptr<const detail::MfccPlan> plan_;
};

}  // namespace mmtrain::media
