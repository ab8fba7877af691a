#pragma once

#include <filesystem>

#include "media/audio_convert.h"
#include "mmtrain/media/audio.h"

namespace mmtrain::media::detail {

/// The first audio stream of what libav* opens: the span of the options, channels and rate as in the file (what else
/// the options want is the part of `convert_audio`). Throws `DataError` with the reason alone.
Audio decode_av_audio(const std::filesystem::path& path, const AudioOptions& options);

}  // namespace mmtrain::media::detail
