#pragma once

#include "mmtrain/media/audio.h"

namespace mmtrain::media::detail {

/// Throws `ConfigError` for options out of range.
void validate(const AudioOptions& options);

/// Mixes and resamples decoded sound as the options say.
Audio convert_audio(Audio audio, const AudioOptions& options);

}  // namespace mmtrain::media::detail
