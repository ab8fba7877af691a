#include "datasets/directory.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <memory>

#include "core/posix.h"
#include "mmtrain/core/error.h"

namespace mmtrain::datasets::detail {
namespace {

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

bool is_folder(const dirent& entry, int directory) {
  if (entry.d_type != DT_UNKNOWN && entry.d_type != DT_LNK) return entry.d_type == DT_DIR;
  struct stat info {};
  return ::fstatat(directory, entry.d_name, &info, 0) == 0 && S_ISDIR(info.st_mode);
}

}  // namespace

DirectoryListing list_directory(const std::filesystem::path& directory) {
  DirectoryListing listing;
  const std::unique_ptr<DIR, CloseDirectory> stream(::opendir(directory.c_str()));
  if (!stream) {
    if (errno == ENOENT || errno == ENOTDIR) return listing;
    throw DataError(fmt::format("[datasets] cannot read directory '{}': {}", directory.string(),
                                mmtrain::detail::errno_text(errno)));
  }
  while (const dirent* entry = ::readdir(stream.get())) {
    if (entry->d_name[0] == '.') continue;
    (is_folder(*entry, ::dirfd(stream.get())) ? listing.folders : listing.files).emplace_back(entry->d_name);
  }
  std::sort(listing.files.begin(), listing.files.end());
  std::sort(listing.folders.begin(), listing.folders.end());
  return listing;
}

bool has_jpeg_name(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  if (dot == name.npos) return false;
  std::string extension(name.substr(dot + 1));
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return extension == "jpeg" || extension == "jpg";
}

}  // namespace mmtrain::datasets::detail
