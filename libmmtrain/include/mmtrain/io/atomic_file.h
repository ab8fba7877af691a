#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// A file that appears under its name complete or not at all: bytes go to a temporary file in the same directory,
/// which `commit` flushes to disk and renames over `path`. Everything else, a throwing writer included, removes the
/// temporary file and leaves what was there. Failures (full disk, no permission) throw `Error` with file and cause.
class MMTRAIN_API AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends bytes. Large pieces are cheaper: there is no buffer.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Makes the file visible and durable. Nothing may be written afterwards.
  void commit();

 private:
  [[noreturn]] void fail(const char* action);
  void discard() noexcept;
  void require_open() const;

  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
  bool finished_ = false;
};

/// Replaces the content of `path` through an `AtomicFile`.
MMTRAIN_API void write_file_atomic(const std::filesystem::path& path, std::string_view text);
MMTRAIN_API void write_file_atomic(const std::filesystem::path& path, std::span<const std::byte> bytes);

/// Puts directory `fresh` in the place of `target` (which need not exist) and removes the former one. Both must be on
/// the same file system; files in `fresh` should have been written with `AtomicFile`. The exchange is one system call,
/// so that a crash at any moment leaves either the old or the new directory, complete, under `target`; the other may
/// be left over under `fresh`. A file system that cannot exchange (some network ones) goes by the detour
/// `target.old`, which `recover_directory` undoes after a crash. Throws `Error`.
MMTRAIN_API void replace_directory(const std::filesystem::path& fresh, const std::filesystem::path& target);

/// Call before reading a directory that `replace_directory` writes: finishes or undoes a detour cut short by a crash.
MMTRAIN_API void recover_directory(const std::filesystem::path& target);

/// An advisory lock held as long as the object lives, exclusive among the processes of this machine and among the
/// threads of this one. The empty lock file stays behind: removing it would let two holders in. Throws `Error`.
class MMTRAIN_API FileLock {
 public:
  /// Waits until the lock is free.
  static FileLock wait(const std::filesystem::path& path);
  /// Nothing if somebody else holds it.
  static std::optional<FileLock> try_lock(const std::filesystem::path& path);

  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}

  int descriptor_;
};

}  // namespace mmtrain
