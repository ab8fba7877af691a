#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "mmtrain/core/export.h"

namespace mmtrain::media {

/// Sound as floats in -1..1 (files of floats may exceed it), channels interleaved in the order of WAV files (front left
/// and right, centre, low frequency, back ...): `[frames, channels]`.
struct Audio {
  int sample_rate = 0;  ///< Hz
  int channels = 0;
  std::vector<float> samples;

  /// Samples of one channel.
  std::int64_t frames() const { return channels > 0 ? static_cast<std::int64_t>(samples.size()) / channels : 0; }
  /// Length in seconds.
  double seconds() const { return sample_rate > 0 ? static_cast<double>(frames()) / sample_rate : 0; }
};

struct AudioOptions {
  int sample_rate = 0;   ///< Hz to resample to; 0: as in the file
  bool mono = false;     ///< mix the channels, as `mix_to_mono` does
  double start = 0;      ///< seconds from the beginning of the file
  double duration = -1;  ///< seconds, negative: to the end; a file that ends earlier gives what it has
};

/// Reads a file: wav, flac, ogg (Vorbis, Opus), mp3, aiff and whatever else libsndfile knows; in a build with video
/// also the audio of mp4, avi, mpg and the like. Throws `DataError` that names the file and the reason: missing, not
/// audio, broken, no audio stream, `start` at or behind its end; `ConfigError` for options out of range.
MMTRAIN_API Audio read_audio(const std::filesystem::path& path, const AudioOptions& options = {});

/// One channel from all. Two channels: their mean. With a centre channel (3, 5 to 8 channels, in the order of WAV
/// files: front left and right, centre, low frequency, back ...) the weights of ITU-R BS.775: centre 1, front 0.71,
/// others 0.5, low frequency 0, divided by their sum so that nothing clips. Otherwise the mean.
MMTRAIN_API std::vector<float> mix_to_mono(const Audio& audio);

}  // namespace mmtrain::media
