#include "mmtrain/datasets/meld.h"

#include <utility>

#include "datasets/meld_index.h"
#include "mmtrain/datasets/meld_annotations.h"

namespace mmtrain::datasets {

bool is_meld(const std::filesystem::path& directory) { return detail::has_meld_annotations(directory); }

std::shared_ptr<ClipDataset> meld(const std::filesystem::path& directory, const std::string& split,
                                  ClipDatasetOptions transform, const ClipOptions& options,
                                  const ClipCacheOptions& cache) {
  detail::MeldIndex index = detail::index_meld(directory, split);
  std::vector<ClipFile> clips;
  for (std::size_t k = 0; k < index.clips.size(); ++k) {
    clips.push_back({.video = std::move(index.clips[k]),
                     .problem = index.missing[k] ? "the annotations name it, but there is no such clip" : ""});
  }
  return std::make_shared<ClipDataset>(cached_clips(std::move(clips), options, cache, split, directory),
                                       std::move(index.labels), meld_emotions(), std::move(transform));
}

}  // namespace mmtrain::datasets
