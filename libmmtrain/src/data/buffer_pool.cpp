#include "data/buffer_pool.h"

#include <algorithm>
#include <new>
#include <utility>

namespace mmtrain::detail {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

void BufferPool::Free::operator()(std::byte* block) const noexcept { ::operator delete(block, kAlignment); }

std::shared_ptr<std::byte> BufferPool::acquire() {
  Block block;
  {
    const std::lock_guard lock(mutex_);
    // Room for every block that may come back, so that release() cannot fail.
    unused_.reserve(keep_);
    if (!unused_.empty()) {
      block = std::move(unused_.back());
      unused_.pop_back();
    }
  }
  if (!block) block.reset(static_cast<std::byte*>(::operator new(std::max<std::size_t>(bytes_, 1), kAlignment)));
  std::byte* address = block.get();
  return {address, [pool = shared_from_this(), owned = std::move(block)](std::byte*) mutable {
            pool->release(std::move(owned));
          }};
}

void BufferPool::release(Block block) noexcept {
  const std::lock_guard lock(mutex_);
  if (unused_.size() < keep_) unused_.push_back(std::move(block));
}

void BufferPool::close() {
  std::vector<Block> unused;
  const std::lock_guard lock(mutex_);
  keep_ = 0;
  unused.swap(unused_);
}

}  // namespace mmtrain::detail
