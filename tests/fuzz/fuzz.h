#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>

// What harnesses share.
namespace fuzz {

// Ends the run as a finding where something that must hold does not.
inline void require(bool holds) {
  if (!holds) std::abort();
}

// The bytes of a file that exists in memory alone.
class MemoryFile {
 public:
  explicit MemoryFile(std::span<const std::byte> content) : descriptor_(::memfd_create("fuzz", 0)) {
    const ssize_t size = ::write(descriptor_, content.data(), content.size());
    require(size == static_cast<ssize_t>(content.size()));
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

// The input of one run; settings are taken from its front.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : bytes_(reinterpret_cast<const std::byte*>(data), size) {}

  // 0 to `values` - 1; 0 when nothing is left.
  int choose(int values) {
    if (bytes_.empty()) return 0;
    const int value = std::to_integer<int>(bytes_.front()) % values;
    bytes_ = bytes_.subspan(1);
    return value;
  }
  std::span<const std::byte> rest() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace fuzz
