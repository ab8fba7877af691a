#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace mmtrain::datasets::detail {

// The files of one split.
struct TinyImageNetIndex {
  std::filesystem::path root;
  std::vector<std::string> wnids, class_names;
  std::vector<std::string> files;  // relative to the root
  std::vector<std::int64_t> labels;
};

// The directory that has the layout: the given one, or the only folder tiny-imagenet* in it that has.
std::optional<std::filesystem::path> find_tiny_imagenet(const std::filesystem::path& directory);

// Lists a split. Throws as `TinyImageNetFiles` does.
TinyImageNetIndex index_tiny_imagenet(const std::filesystem::path& directory, const std::string& split);

}  // namespace mmtrain::datasets::detail
