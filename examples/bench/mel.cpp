#include "bench/measurements.h"

#include <fmt/format.h>
#include <mmtrain/mmtrain.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "common/cli.h"

namespace mmtrain::bench {
namespace {

struct MelBenchOptions {
  std::string data_dir;
  MelOptions mel;
  int threads = 1;
  double seconds = 5;
};

}  // namespace

int mel(int argc, char** argv) {
  MelBenchOptions options;
  programs::Cli cli("mmtrain_bench mel", "Seconds of sound per second that become mel spectrograms.");
  cli.add("data_dir", options.data_dir, "folder of sound files");
  cli.add("n_fft", options.mel.n_fft, "samples of a transform");
  cli.add("hop", options.mel.hop, "samples from frame to frame");
  cli.add("n_mels", options.mel.n_mels, "mel bands");
  cli.add("sample_rate", options.mel.sample_rate, "Hz; files of other rates are resampled while they are read");
  cli.add("threads", options.threads, "threads, each with a file of its own");
  cli.add("seconds", options.seconds, "length of the measurement in seconds");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (options.threads < 1) throw ConfigError("--threads must be positive");

  const std::vector<std::filesystem::path> paths =
      media_files(options.data_dir, "sound", {".wav", ".flac", ".ogg", ".mp3"});
  const media::MelSpectrogram spectrogram(options.mel);
  std::vector<std::vector<float>> sounds(paths.size());
  std::vector<std::vector<float>> spectrograms(paths.size());
  const auto read = [&] {
    spread(options.threads, paths.size(), [&](std::size_t i) {
      sounds[i] = media::read_audio(paths[i], {.sample_rate = options.mel.sample_rate, .mono = true}).samples;
    });
  };
  const auto compute = [&] {
    spread(options.threads, paths.size(), [&](std::size_t i) { spectrogram(sounds[i], spectrograms[i]); });
  };
  read();
  double sound_seconds = 0;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const auto samples = static_cast<std::int64_t>(sounds[i].size());
    sound_seconds += static_cast<double>(samples) / options.mel.sample_rate;
    spectrograms[i].resize(static_cast<std::size_t>(options.mel.n_mels * spectrogram.frames(samples)));
  }
  const std::string name = fmt::format("mel/n_fft{}/hop{}/mels{}/threads{}", options.mel.n_fft, options.mel.hop,
                                       options.mel.n_mels, options.threads);
  print_measurement(name, "audio-s/s", rates_of(compute, sound_seconds, options.seconds / 2));
  print_measurement(name + "/read", "audio-s/s", rates_of(read, sound_seconds, options.seconds / 2));
  return 0;
}

}  // namespace mmtrain::bench
