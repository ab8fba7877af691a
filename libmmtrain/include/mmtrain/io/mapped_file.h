#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// A whole file as memory, read from disk page by page when it is touched. The file must not be shortened while it is
/// mapped (the system would end the process with SIGBUS): replace files by `AtomicFile`, never in place.
class MMTRAIN_API MappedFile {
 public:
  /// `copy_on_write` lets the holder write into the memory; nothing of it reaches the file.
  enum class Access { read_only, copy_on_write };

  /// Throws `DataError` with the cause if `path` cannot be opened or is not a regular file. Empty files are fine.
  explicit MappedFile(const std::filesystem::path& path, Access access = Access::read_only);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

  /// Gives memory back whose bytes are no longer needed: they are read again when they are touched, and what was written
  /// there by `copy_on_write` is lost. So a file can be read from end to end in little memory.
  void release(std::size_t offset, std::size_t size) const;

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace mmtrain
