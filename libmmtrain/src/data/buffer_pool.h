#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace mmtrain::detail {

// Equal blocks of memory that are used again: a fresh block of some megabytes costs a page fault for each 4 KiB.
// A block returns when the last copy of its pointer is gone, which may be after the pool's owner: blocks keep the
// pool alive. Thread-safe.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  // Keeps at most `keep` unused blocks of `bytes` each.
  BufferPool(std::size_t bytes, std::size_t keep) : bytes_(bytes), keep_(keep) {}

  // A block aligned for vector instructions; its content is whatever was left in it.
  std::shared_ptr<std::byte> acquire();

  // Frees the unused blocks now, and those in use when they return.
  void close();

 private:
  struct Free {
    void operator()(std::byte* block) const noexcept;
  };
  using Block = std::unique_ptr<std::byte, Free>;

  void release(Block block) noexcept;

  const std::size_t bytes_;
  std::mutex mutex_;
  std::size_t keep_;
  std::vector<Block> unused_;
};

}  // namespace mmtrain::detail
