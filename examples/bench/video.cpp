#include "bench/measurements.h"

#include <fmt/format.h>
#include <mmtrain/mmtrain.h>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "common/cli.h"

namespace mmtrain::bench {
namespace {

struct VideoBenchOptions {
  std::string data_dir, parts = "all";
  int frames = 8, size = 224, num_workers = 2;
  bool key_frames_only = false;
  double seconds = 10;
};

}  // namespace

int video(int argc, char** argv) {
  VideoBenchOptions options;
  programs::Cli cli("mmtrain_bench video",
                    "Clips per second that become frames, sound of 16 kHz and its mel spectrogram.");
  cli.add("data_dir", options.data_dir, "folder of video files");
  cli.add("frames", options.frames, "frames of a clip, placed uniformly");
  cli.add("size", options.size, "height and width of the frames");
  cli.add("key_frames_only", options.key_frames_only, "take frames among the key frames, which decode alone");
  cli.add("num_workers", options.num_workers, "threads, each with a clip of its own");
  cli.add_choice("parts", options.parts, {"video", "audio", "all"}, "what is read of a clip");
  cli.add("seconds", options.seconds, "length of the measurement in seconds");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (options.num_workers < 1) throw ConfigError("--num_workers must be positive");

  const std::vector<std::filesystem::path> paths =
      media_files(options.data_dir, "video", {".mp4", ".avi", ".mpg", ".mkv", ".webm"});
  const media::VideoOptions frames{.frames = options.frames,
                                   .key_frames_only = options.key_frames_only,
                                   .height = options.size,
                                   .width = options.size};
  const MelOptions mel_options;
  const media::AudioOptions audio{.sample_rate = mel_options.sample_rate, .mono = true};
  const media::MelSpectrogram mel(mel_options);
  const auto read = [&](std::size_t i) {
    if (options.parts == "video") {
      media::read_video(paths[i], frames);
    } else if (options.parts == "audio") {
      mel(media::read_audio(paths[i], audio).samples);
    } else {
      mel(media::read_clip(paths[i], frames, audio).audio.samples);
    }
  };
  const auto pass = [&] { spread(options.num_workers, paths.size(), read); };
  print_measurement(fmt::format("video/{}/frames{}{}/size{}/workers{}", options.parts, options.frames,
                                options.key_frames_only ? "/key" : "", options.size, options.num_workers),
                    "clips/s", rates_of(pass, static_cast<double>(paths.size()), options.seconds));
  return 0;
}

}  // namespace mmtrain::bench
