#pragma once

#include <cstdint>
#include <filesystem>

#include "mmtrain/core/export.h"

namespace mmtrain::datasets {

struct GenerateEmotionOptions {
  std::uint64_t seed = 0;
  int train = 280, dev = 70, test = 70;                          ///< clips of each split, at least 7
  int train_speakers = 16, dev_speakers = 4, test_speakers = 4;  ///< nobody is in two splits
  bool quirks = false;  ///< plant the faults of the real collection, see `generate_emotion`
};

/// How many rows the annotations have, and how many of them cannot be used.
struct GeneratedEmotion {
  std::int64_t train = 0, dev = 0, test = 0;
  std::int64_t bad_train = 0, bad_dev = 0, bad_test = 0;
};

/// Makes `directory`: clips of drawn faces that talk with synthetic voices, in MELD's exact layout (see `meld.h`) with
/// its shares of the seven emotions, free of any licence, byte-identical for the same options. Clips are mp4
/// (64x64 pixels, 8 frames a second, AAC of 16 kHz) of some 1.5 s.
///
/// An emotion is one of three expressions of the face together with one of three tones of the voice. Neither alone
/// tells all: a still face is neutral, sad or angry; flat speech is neutral, fearful or disgusted. So a net that sees
/// and hears beats by far one that does either.
///
/// With `quirks`: everything lies two folders deeper, hidden twins `._dia*.mp4`, CRLF line ends and U+2019 in the
/// annotations, Windows-1252 in those of dev, a row of 0 s, a clip with 5.1 sound, one of 30 s, one whose plain file
/// holds another clip beside the right `final_videos_test...`; and rows that cannot be used: in train a truncated clip
/// and one without sound, in dev one whose clip is missing, in test an empty file. All other clips are as without.
///
/// The directory appears complete or not at all. Throws `ConfigError` for options out of range or a directory that is
/// there and not empty, `Error` where it cannot be written, and in a build without video.
MMTRAIN_API GeneratedEmotion generate_emotion(const std::filesystem::path& directory,
                                              const GenerateEmotionOptions& options = {});

}  // namespace mmtrain::datasets
