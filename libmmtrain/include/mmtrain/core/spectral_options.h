#pragma once

#include <cstdint>
#include <vector>

#include "mmtrain/core/export.h"

/// What a spectral feature is, apart from where it is computed: the same options give the same features from
/// `media/spectral.h` (one recording on the CPU) and `nn/spectral.h` (batches on any device).
namespace mmtrain {

/// What lies before the first and after the last sample where frames are centred. `reflect` mirrors without repeating
/// the edge (again and again where the signal is shorter than the padding), `replicate` repeats the edge, `constant`
/// is silence.
enum class PadMode { reflect, replicate, constant };

/// Shape of the analysis window, periodic as in `torch.hann_window(n)`.
enum class WindowShape { hann, hamming, rectangular };

/// How the frames of a spectrum are cut; torch.stft's meaning.
struct StftOptions {
  int n_fft = 400;                         ///< samples of a transform
  int hop = 160;                           ///< samples from frame to frame
  int window_length = 0;                   ///< samples of the window, in the middle of the frame; 0: n_fft
  WindowShape window = WindowShape::hann;  ///< shape of the window
  bool center = true;              ///< frame t is centred at t * hop, with n_fft / 2 samples padded at both ends
  PadMode pad = PadMode::reflect;  ///< with `center`: what is padded
};

/// The mel scale: `htk` is 2595 log10(1 + f / 700); `slaney` is linear below 1 kHz and logarithmic above (librosa's
/// default).
enum class MelScale { htk, slaney };

/// Height of the mel filters: `none` has peaks of 1, `slaney` an area of 1 (librosa's default).
enum class MelNorm { none, slaney };

/// What is done to mel energies: nothing, the natural logarithm ln(x + floor), or decibels 10 log10(max(x, floor)) (20
/// log10 for magnitudes).
enum class MelLog { none, natural, decibel };

/// A mel spectrogram. The defaults are those of torchaudio.transforms.MelSpectrogram but for `n_mels` and `hop`.
struct MelOptions {
  int sample_rate = 16000;                 ///< Hz
  int n_fft = 400;                         ///< samples of a transform
  int hop = 160;                           ///< samples from frame to frame
  int window_length = 0;                   ///< samples of the window, in the middle of the frame; 0: n_fft
  int n_mels = 64;                         ///< mel bands
  double f_min = 0;                        ///< Hz, lowest edge of the bands
  double f_max = 0;                        ///< Hz, highest edge of the bands; 0: half the sample rate
  MelScale scale = MelScale::htk;          ///< spacing of the bands
  MelNorm norm = MelNorm::none;            ///< height of the bands
  double power = 2;                        ///< 2: bands add energies, 1: magnitudes
  WindowShape window = WindowShape::hann;  ///< shape of the window
  bool center = true;                      ///< as in `StftOptions`
  PadMode pad = PadMode::reflect;          ///< as in `StftOptions`
  MelLog log = MelLog::none;               ///< compression of the energies
  double floor = 1e-10;                    ///< smallest energy that a logarithm tells from silence
  double top_db = 0;  ///< decibels: values this far below the recording's largest are raised; 0: off

  StftOptions stft() const { return {n_fft, hop, window_length, window, center, pad}; }
};

/// Mel-frequency cepstral coefficients: the orthonormal DCT-II of a log-mel spectrogram. The defaults give
/// torchaudio.transforms.MFCC's compression; librosa's has the scale and norm `slaney`.
struct MfccOptions {
  int n_mfcc = 13;  ///< coefficients, at most `mel.n_mels`
  MelOptions mel = {.log = MelLog::decibel, .top_db = 80};
};

/// Throw `ConfigError` for values that have no meaning.
MMTRAIN_API void validate(const StftOptions& options);
MMTRAIN_API void validate(const MelOptions& options);
MMTRAIN_API void validate(const MfccOptions& options);

/// Frames that `samples` samples give: 1 + samples / hop where frames are centred, none without samples.
MMTRAIN_API std::int64_t frame_count(const StftOptions& options, std::int64_t samples);

/// The window of a frame `[n_fft]`, with zeros around it where it is shorter.
MMTRAIN_API std::vector<double> window_values(const StftOptions& options);

/// The triangular filters `[n_mels, n_fft / 2 + 1]`.
MMTRAIN_API std::vector<double> mel_filter_bank(const MelOptions& options);

/// The transform from log-mel energies to coefficients `[n_mfcc, n_mels]`.
MMTRAIN_API std::vector<double> dct_matrix(const MfccOptions& options);

/// Where sample `index` of the padded signal lies in a signal of `samples` > 0 samples: -1 means silence.
MMTRAIN_API std::int64_t padded_index(PadMode mode, std::int64_t index, std::int64_t samples);

}  // namespace mmtrain
