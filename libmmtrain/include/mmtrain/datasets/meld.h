#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "mmtrain/core/export.h"
#include "mmtrain/datasets/clips.h"

/// MELD (Poria et al., "MELD: a multimodal multi-party dataset for emotion recognition in conversations", ACL 2019) as
/// it is published, and as people keep it: `train_sent_emo.csv`, `dev_sent_emo.csv`, `test_sent_emo.csv`, and clips
/// `diaD_uttU.mp4` in folders whose names, or those of folders above, speak of train, dev (or val) and test. All may
/// lie up to three folders below the given one. Hidden files are ignored. Of the clips `diaD_uttU.mp4` and
/// `final_videos_testdiaD_uttU.mp4` the second one is right. Clips that are missing stay in the list as samples that
/// cannot be read.
namespace mmtrain::datasets {

/// Whether `directory` or a folder up to three below holds MELD's annotations of the training split.
MMTRAIN_API bool is_meld(const std::filesystem::path& directory);

/// A split, "train", "dev" or "test", ready for a `DataLoader`; the classes are `meld_emotions()`. Throws `DataError`
/// naming what was looked for where annotations or clips cannot be found.
MMTRAIN_API std::shared_ptr<ClipDataset> meld(const std::filesystem::path& directory, const std::string& split,
                                              ClipDatasetOptions transform = {}, const ClipOptions& options = {},
                                              const ClipCacheOptions& cache = {});

}  // namespace mmtrain::datasets
