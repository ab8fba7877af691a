#pragma once

#include <filesystem>
#include <span>

#include "mmtrain/core/export.h"
#include "mmtrain/media/audio.h"
#include "mmtrain/media/image.h"

namespace mmtrain::media {

struct VideoWriterOptions {
  /// Bits per pixel that the picture may take: 0.1 is fair, 0.3 hardly differs from the original.
  double bits_per_pixel = 0.2;
  /// Bits per second and channel of the sound.
  int audio_bit_rate = 48'000;
  /// Frames from one key frame to the next.
  int key_frame_interval = 12;
};

/// Writes an mp4 file of frames, all of one even height and width, `frame_rate` a second, and of sound unless `audio`
/// has no samples. Pictures are H.264 where FFmpeg's libraries can write it (libx264), else MPEG-4 part 2, Rec. 601
/// with limited range; sound is AAC with its own rate, which has to be one that AAC knows (8,000 to 96,000 Hz). The
/// same input gives the same bytes (with the same FFmpeg). The file appears under its name when it is complete. Throws
/// `ConfigError` for input or options that cannot be written, `DataError` naming the file where writing fails.
MMTRAIN_API void write_clip(const std::filesystem::path& path, std::span<const Image> frames, double frame_rate,
                            const Audio& audio = {}, const VideoWriterOptions& options = {});

}  // namespace mmtrain::media
