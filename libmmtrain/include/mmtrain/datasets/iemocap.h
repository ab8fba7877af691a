#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/datasets/clips.h"

/// IEMOCAP (Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", 2008) as it is published:
///
///     Session1/sentences/wav/<dialog>/<utterance>.wav
///     Session1/dialog/EmoEvaluation/<dialog>.txt    [start - end] TAB utterance TAB label TAB [v, a, d]
///     Session1/dialog/avi/DivX/<dialog>.avi         both speakers side by side; the utterance is a span of it
///
/// Four classes, as in most publications: neutral, happy (with excited), sad, angry. Utterances with other labels are
/// left out.
namespace mmtrain::datasets {

/// neutral, happy, sad, angry.
MMTRAIN_API const std::vector<std::string>& iemocap_emotions();

/// Whether `directory`, or the only folder in it, has sessions with evaluations.
MMTRAIN_API bool is_iemocap(const std::filesystem::path& directory);

struct IemocapOptions {
  /// Session that is the test split, 1..5. The one before it (5 before 1) is "dev", the others are "train": no speaker
  /// is in two splits.
  int test_session = 5;
  /// Cuts the half with the speaker out of the picture: the left one shows who wears the markers, after whom the dialog
  /// is named (`Ses01F_...`). False: the whole picture.
  bool crop_speaker = true;
};

/// A split, "train", "dev" or "test", ready for a `DataLoader`. Utterances whose sound or dialog's picture is missing
/// stay in the list as samples that cannot be read. Throws `DataError` naming what is missing, `ConfigError` for
/// options out of range.
MMTRAIN_API std::shared_ptr<ClipDataset> iemocap(const std::filesystem::path& directory, const std::string& split,
                                                 const IemocapOptions& iemocap_options = {},
                                                 ClipDatasetOptions transform = {}, const ClipOptions& options = {},
                                                 const ClipCacheOptions& cache = {});

}  // namespace mmtrain::datasets
