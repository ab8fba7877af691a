#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace mmtrain::datasets::detail {

// Names in a directory, sorted; hidden ones (.DS_Store, ._twins) are left out. They are told apart by what the
// directory itself says, without a look at each file: 100,000 of them take a fraction of a second.
struct DirectoryListing {
  std::vector<std::string> files, folders;
};

// Empty if `directory` does not exist; throws `DataError` if it cannot be read.
DirectoryListing list_directory(const std::filesystem::path& directory);

// Whether a file is a JPEG by its name: .jpeg or .jpg in any case.
bool has_jpeg_name(std::string_view name);

}  // namespace mmtrain::datasets::detail
