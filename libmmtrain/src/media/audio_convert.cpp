#include "media/audio_convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "mmtrain/core/error.h"
#include "mmtrain/media/resample.h"

namespace mmtrain::media {
namespace {

/// Shares of the channels in one; in the order of WAV files the centre is the third.
std::vector<float> mono_weights(int channels) {
  const auto n = static_cast<std::size_t>(channels);
  std::vector<float> weights(n, 1.0F);
  if (channels == 3 || (channels >= 5 && channels <= 8)) {
    constexpr float kFront = 0.70710678F, kCentre = 1, kBack = 0.5F;
    std::fill(weights.begin(), weights.end(), kBack);
    weights[0] = weights[1] = kFront;
    weights[2] = kCentre;
    if (channels >= 6) weights[3] = 0;  // low frequency
  }
  float sum = 0;
  for (const float weight : weights) sum += weight;
  for (float& weight : weights) weight /= sum;
  return weights;
}

std::vector<float> channel_of(const Audio& audio, int channel) {
  std::vector<float> samples(static_cast<std::size_t>(audio.frames()));
  for (std::size_t i = 0; i < samples.size(); ++i) {
    samples[i] = audio.samples[i * static_cast<std::size_t>(audio.channels) + static_cast<std::size_t>(channel)];
  }
  return samples;
}

void resample_channels(Audio& audio, int to_rate) {
  const int from_rate = std::exchange(audio.sample_rate, to_rate);
  if (audio.channels == 1) {
    audio.samples = resample(audio.samples, from_rate, to_rate);
    return;
  }
  std::vector<float> joined;
  for (int channel = 0; channel < audio.channels; ++channel) {
    const std::vector<float> samples = resample(channel_of(audio, channel), from_rate, to_rate);
    joined.resize(samples.size() * static_cast<std::size_t>(audio.channels));
    for (std::size_t i = 0; i < samples.size(); ++i) {
      joined[i * static_cast<std::size_t>(audio.channels) + static_cast<std::size_t>(channel)] = samples[i];
    }
  }
  audio.samples = std::move(joined);
}

}  // namespace

std::vector<float> mix_to_mono(const Audio& audio) {
  if (audio.channels <= 1) return audio.samples;
  const std::vector<float> weights = mono_weights(audio.channels);
  std::vector<float> mono(static_cast<std::size_t>(audio.frames()));
  const float* frame = audio.samples.data();
  for (float& sample : mono) {
    for (const float weight : weights) sample += weight * *frame++;
  }
  return mono;
}

namespace detail {

Audio convert_audio(Audio audio, const AudioOptions& options) {
  if (options.mono && audio.channels != 1) {
    audio.samples = mix_to_mono(audio);
    audio.channels = 1;
  }
  if (options.sample_rate > 0 && options.sample_rate != audio.sample_rate) {
    resample_channels(audio, options.sample_rate);
  }
  return audio;
}

void validate(const AudioOptions& options) {
  if (options.sample_rate < 0) {
    throw ConfigError(fmt::format("[read_audio] sample_rate must be positive, or 0 for that of the file, got {}",
                                  options.sample_rate));
  }
  if (!(options.start >= 0) || !std::isfinite(options.start)) {
    throw ConfigError(fmt::format("[read_audio] start must not be negative, got {} s", options.start));
  }
  if (std::isnan(options.duration)) throw ConfigError("[read_audio] duration must be a number, got NaN");
}

}  // namespace detail
}  // namespace mmtrain::media
