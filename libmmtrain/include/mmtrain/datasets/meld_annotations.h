#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/media/text.h"

namespace mmtrain::datasets {

/// Emotions of MELD in the order of its authors' code, which is the class index: neutral, surprise, fear, sadness, joy,
/// disgust, anger.
MMTRAIN_API const std::vector<std::string>& meld_emotions();

/// One row of MELD's annotations.
struct MeldUtterance {
  int dialogue = 0, utterance = 0;  ///< together they name the clip, unique in a split
  int emotion = 0;                  ///< index into `meld_emotions()`
  std::string speaker, text;        ///< UTF-8
  double start = 0, end = 0;        ///< seconds in the episode (the clip is cut already); 0 where they cannot be read
};

/// What a file of annotations holds.
struct MeldAnnotations {
  std::vector<MeldUtterance> utterances;       ///< in the order of the file
  std::vector<media::MalformedLine> left_out;  ///< rows without a known emotion or number of the clip
};

/// Reads `train_sent_emo.csv` and its like: the columns Dialogue_ID, Utterance_ID and Emotion are needed, wherever they
/// stand, the others may be missing. UTF-8 or Windows-1252, LF or CRLF. Throws `DataError` naming file and column.
MMTRAIN_API MeldAnnotations read_meld_annotations(const std::filesystem::path& path);

/// The same of text in memory; `name` is how messages call it.
MMTRAIN_API MeldAnnotations parse_meld_annotations(std::span<const std::byte> text, const std::string& name);

}  // namespace mmtrain::datasets
