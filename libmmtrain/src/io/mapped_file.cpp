#include "mmtrain/io/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "core/posix.h"
#include "mmtrain/core/error.h"

namespace mmtrain {
namespace {

// Closes on every way out: a mapping outlives its descriptor.
struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& cause) {
  throw DataError(fmt::format("[io] cannot read '{}': {}", path.string(), cause));
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path, Access access) {
  // O_NONBLOCK: opening a named pipe by mistake must not hang.
  const Descriptor descriptor{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat status;
  if (descriptor.value < 0 || ::fstat(descriptor.value, &status) != 0) fail(path, detail::errno_text(errno));
  if (!S_ISREG(status.st_mode)) fail(path, "not a regular file");
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;
  const int protection = access == Access::read_only ? PROT_READ : PROT_READ | PROT_WRITE;
  void* const memory = ::mmap(nullptr, size_, protection, MAP_PRIVATE | MAP_NORESERVE, descriptor.value, 0);
  if (memory == MAP_FAILED) fail(path, detail::errno_text(errno));
  data_ = static_cast<std::byte*>(memory);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

void MappedFile::release(std::size_t offset, std::size_t size) const {
  static const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t end = std::min(offset + size, size_) / page * page, begin = (offset + page - 1) / page * page;
  // A refusal means that the memory stays, which does no harm.
  if (begin < end) ::madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace mmtrain
