#include "media/av_audio.h"

#include "mmtrain/core/error.h"

// Stands in for the part of a build with video that reads the audio of films.
namespace mmtrain::media::detail {

Audio decode_av_audio(const std::filesystem::path&, const AudioOptions&) {
  throw DataError(
      "libsndfile does not know this format, and this build of mmtrain reads no films: for mp4, avi, mpg or aac "
      "configure it with -DMMTRAIN_WITH_VIDEO=ON (needs FFmpeg's libraries)");
}

}  // namespace mmtrain::media::detail
