#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/media/audio.h"
#include "mmtrain/media/image.h"

/// Frames of video files, with or without their sound, through FFmpeg's libraries. Times are seconds from the beginning
/// of the file: where the earlier of picture and sound starts, after edit lists. Whatever is wrong with a file, be it
/// cut off, damaged or not media at all, is a `DataError` that names it and the reason; a frame that the decoder could
/// only guess is such a reason too. Everything here is thread-safe and uses the calling thread alone.
namespace mmtrain::media {

struct VideoOptions {
  /// Frames to return, placed uniformly: of the n frames of the span in order of time, those of index
  /// floor((i + 0.5) * n / frames). Some come several times when the span has fewer. 0: all of the span.
  int frames = 8;
  /// Choose among key frames only: each is decoded alone, which is much faster.
  bool key_frames_only = false;
  /// Size of the returned images (bilinear, antialiased); 0: as in the file.
  int height = 0, width = 0;
  /// The span: frames that begin at `start` or later and before `start + duration`, in seconds; -1: to the end.
  double start = 0, duration = -1;
  /// Seconds after which a file is given up.
  double time_limit = 60;
  /// Bytes of coded video kept in memory. A span with more is read twice, which only mp4 and Matroska files allow;
  /// others are refused.
  std::int64_t memory_limit = std::int64_t{1} << 28;
};

struct Video {
  std::vector<Image> frames;
  /// When each frame begins, in seconds.
  std::vector<double> times;
  /// Length of the file's video stream in seconds, as far as the file tells; else up to the last frame read.
  double duration = 0;
};

struct Clip {
  Video video;
  /// No samples where the file has no sound.
  Audio audio;
};

/// Reads frames of the file's main video stream. Unspecified colour is taken as Rec. 601 with limited range, as FFmpeg
/// does; a rotation or pixel shape that the file asks for is not applied. Frames that no wanted one is predicted from
/// are not decoded. Throws `DataError`: no video stream, no frame in the span, larger than 2^26 pixels, broken;
/// `ConfigError` for options out of range.
MMTRAIN_API Video read_video(const std::filesystem::path& path, const VideoOptions& options = {});

/// Reads frames and sound in one pass over the file; `audio` as in `read_audio`. The spans are independent.
MMTRAIN_API Clip read_clip(const std::filesystem::path& path, const VideoOptions& video = {},
                           const AudioOptions& audio = {});

}  // namespace mmtrain::media
