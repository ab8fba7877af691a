#include "datasets/file_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/posix.h"
#include "mmtrain/core/error.h"

namespace mmtrain::datasets::detail {
namespace {

using mmtrain::detail::errno_text;

// Most JPEGs of training sets fit; larger files double it.
constexpr std::size_t kFirstBuffer = 64 * 1024;

class OpenFile {
 public:
  explicit OpenFile(int descriptor) : descriptor_(descriptor) {}
  ~OpenFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

}  // namespace

FileReader::FileReader(const std::filesystem::path& root)
    : root_(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {
  if (root_ < 0) {
    throw DataError(fmt::format("[datasets] cannot open directory '{}': {}", root.string(), errno_text(errno)));
  }
}

FileReader::~FileReader() { ::close(root_); }

std::span<const std::byte> FileReader::read(const std::string& file, std::vector<std::byte>& buffer) const {
  const OpenFile source(::openat(root_, file.c_str(), O_RDONLY | O_CLOEXEC));
  if (source.get() < 0) throw DataError("cannot open the file: " + errno_text(errno));
  if (buffer.empty()) buffer.resize(kFirstBuffer);
  std::size_t filled = 0;
  // The size is not asked for: for small files that would be a third of the system calls.
  while (true) {
    if (filled == buffer.size()) buffer.resize(2 * buffer.size());
    const ssize_t count = ::read(source.get(), buffer.data() + filled, buffer.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw DataError("cannot read the file: " + errno_text(errno));
    if (count == 0) return std::span(buffer).first(filled);
    filled += static_cast<std::size_t>(count);
  }
}

std::optional<struct stat> FileReader::status(const std::string& file) const {
  struct stat info {};
  if (::fstatat(root_, file.c_str(), &info, 0) != 0) return std::nullopt;
  return info;
}

}  // namespace mmtrain::datasets::detail
