#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace mmtrain::datasets::detail {

// Reads whole files below one directory, which is looked up once. Thread-safe.
class FileReader {
 public:
  // Throws `DataError` if the directory cannot be opened.
  explicit FileReader(const std::filesystem::path& root);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  // The bytes of `file`, relative to the root, in `buffer`, which only grows. Throws `DataError` with the cause.
  std::span<const std::byte> read(const std::string& file, std::vector<std::byte>& buffer) const;

  // What the system knows of `file`; nothing if it cannot be found.
  std::optional<struct stat> status(const std::string& file) const;

 private:
  int root_;
};

}  // namespace mmtrain::datasets::detail
