#include "mmtrain/io/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <utility>

#include "core/posix.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"

namespace mmtrain {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void throw_errno(std::string_view action, const fs::path& path, int number = errno) {
  throw Error(fmt::format("[io] cannot {} '{}': {}", action, path.string(), detail::errno_text(number)));
}

fs::path directory_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

// Names are unique among the threads and processes that may write the same file at once.
fs::path temporary_name(const fs::path& path) {
  static std::atomic<unsigned> counter{0};
  return directory_of(path) / fmt::format(".{}.{}-{}.tmp", path.filename().string(), ::getpid(), counter++);
}

// Makes the names in a directory durable. Some file systems cannot, and say EINVAL: they have no better to offer.
void sync_directory(const fs::path& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw_errno("open directory", directory);
  const int failure = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  if (failure != 0 && failure != EINVAL) throw_errno("flush directory", directory, failure);
}

void rename_or_throw(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) throw_errno("rename to", to);
}

// Trailing slashes would make `parent_path` the directory itself.
fs::path without_slash(const fs::path& path) { return path.has_filename() ? path : path.parent_path(); }

fs::path detour_of(const fs::path& target) {
  fs::path detour = target;
  return detour += ".old";
}

int open_lock(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) throw_errno("open lock file", path);
  return descriptor;
}

// False if somebody else holds the lock and `operation` does not wait.
bool lock(int descriptor, int operation, const fs::path& path) {
  while (::flock(descriptor, operation) != 0) {
    if (errno == EINTR) continue;
    const int failure = errno;
    ::close(descriptor);
    if (failure == EWOULDBLOCK) return false;
    throw_errno("lock", path, failure);
  }
  return true;
}

}  // namespace

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), temporary_(temporary_name(path_)) {
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw_errno("write", path_);
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() noexcept {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
  if (!std::exchange(finished_, true)) ::unlink(temporary_.c_str());
}

void AtomicFile::fail(const char* action) {
  const int failure = errno;
  discard();
  throw_errno(action, path_, failure);
}

void AtomicFile::require_open() const {
  if (finished_) throw Error(fmt::format("[AtomicFile] '{}' is already committed or has failed", path_.string()));
}

void AtomicFile::write(std::string_view text) {
  require_open();
  if (!detail::write_all(descriptor_, text)) fail("write");
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void AtomicFile::commit() {
  require_open();
  if (::fsync(descriptor_) != 0) fail("flush");
  // Before the rename: some network file systems report a full disk only here.
  if (::close(std::exchange(descriptor_, -1)) != 0) fail("close");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename to");
  finished_ = true;
  sync_directory(directory_of(path_));
}

void write_file_atomic(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void write_file_atomic(const fs::path& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void recover_directory(const fs::path& target_path) {
  const fs::path target = without_slash(target_path), detour = detour_of(target);
  std::error_code error;
  if (!fs::exists(detour, error)) return;
  if (fs::exists(target, error)) {
    fs::remove_all(detour, error);
  } else {
    rename_or_throw(detour, target);
    sync_directory(directory_of(target));
  }
}

void replace_directory(const fs::path& fresh_path, const fs::path& target_path) {
  const fs::path fresh = without_slash(fresh_path), target = without_slash(target_path);
  recover_directory(target);
  sync_directory(fresh);
  std::error_code error;
  if (!fs::exists(target, error)) {
    rename_or_throw(fresh, target);
    sync_directory(directory_of(target));
    return;
  }
  fs::path former = fresh;
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) != 0) {
    if (errno != EINVAL && errno != ENOSYS) throw_errno("replace", target);
    former = detour_of(target);
    rename_or_throw(target, former);
    rename_or_throw(fresh, target);
  }
  sync_directory(directory_of(target));
  fs::remove_all(former, error);
  if (error) log::warning(fmt::format("[io] cannot remove '{}': {}", former.string(), error.message()));
}

FileLock FileLock::wait(const fs::path& path) {
  const int descriptor = open_lock(path);
  lock(descriptor, LOCK_EX, path);
  return FileLock(descriptor);
}

std::optional<FileLock> FileLock::try_lock(const fs::path& path) {
  const int descriptor = open_lock(path);
  if (!lock(descriptor, LOCK_EX | LOCK_NB, path)) return std::nullopt;
  return FileLock(descriptor);
}

FileLock::~FileLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

}  // namespace mmtrain
