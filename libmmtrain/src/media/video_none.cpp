#include "mmtrain/media/video.h"

#include <string>

#include "mmtrain/core/error.h"
#include "mmtrain/media/video_writer.h"

// Stands in for video.cpp, video_writer.cpp and what is under them in a build without a video back end.
namespace mmtrain::media {
namespace {

[[noreturn]] void fail(const std::string& who) {
  throw ConfigError("[" + who +
                    "] this build of mmtrain has no video back end: configure it with -DMMTRAIN_WITH_VIDEO=ON "
                    "(needs FFmpeg's libraries), or train from a decoded cache");
}

}  // namespace

Video read_video(const std::filesystem::path&, const VideoOptions&) { fail("read_video"); }
Clip read_clip(const std::filesystem::path&, const VideoOptions&, const AudioOptions&) { fail("read_clip"); }
void write_clip(const std::filesystem::path&, std::span<const Image>, double, const Audio&, const VideoWriterOptions&) {
  fail("write_clip");
}

}  // namespace mmtrain::media
