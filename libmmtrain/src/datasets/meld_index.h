#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace mmtrain::datasets::detail {

// Numbers in a clip's name: [final_videos_test]diaD_uttU.mp4.
struct MeldClipName {
  int dialogue = 0, utterance = 0;
  bool corrected = false;  // has the prefix: of two clips of these numbers the right one
};
std::optional<MeldClipName> parse_meld_clip_name(const std::string& file);

// The clips of one split, in the order of the annotations.
struct MeldIndex {
  std::filesystem::path annotations, folder;  // where they were found
  std::vector<std::filesystem::path> clips;   // full names
  std::vector<bool> missing;
  std::vector<std::int64_t> labels;
};

// Whether there are annotations of the training split in `directory` or not far below.
bool has_meld_annotations(const std::filesystem::path& directory);

// Finds and lists the split "train", "dev" or "test". Rows that cannot be used are named in the log. Throws `DataError`
// where there are no annotations, none that can be used, or no clips.
MeldIndex index_meld(const std::filesystem::path& directory, const std::string& split);

}  // namespace mmtrain::datasets::detail
