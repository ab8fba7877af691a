#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace mmtrain::detail {

// Numbered work for several threads, taken in order by one consumer. Workers claim the numbers [first, end) in
// ascending order and put one result for each; at most `bound` numbers are claimed or waiting to be taken at any time.
// The lock is held only to hand numbers and results over.
template <class Result>
class OrderedQueue {
 public:
  OrderedQueue(std::int64_t first, std::int64_t end, std::size_t bound)
      : end_(end), to_claim_(first), to_take_(first), results_(bound) {}

  // The next number to work on, waiting for the consumer when `bound` are under way. Nothing once all are claimed or
  // the queue is canceled.
  std::optional<std::int64_t> claim() {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [this] { return canceled_ || to_claim_ >= end_ || to_claim_ - to_take_ < bound(); });
    if (canceled_ || to_claim_ >= end_) return std::nullopt;
    // Nothing is left for those who wait for room.
    if (to_claim_ + 1 == end_) room_.notify_all();
    return to_claim_++;
  }

  // Hands over the result of a claimed number. Dropped if the queue was canceled.
  void put(std::int64_t number, Result result) {
    const std::lock_guard lock(mutex_);
    if (canceled_) return;
    slot(number).emplace(std::move(result));
    if (number == to_take_) ready_.notify_one();
  }

  // The result of the next number, waiting for it. Not more often than there are numbers, and not after cancel().
  Result take() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return slot(to_take_).has_value(); });
    return take_ready();
  }

  // The same, or nothing if it is not there yet.
  std::optional<Result> try_take() {
    const std::lock_guard lock(mutex_);
    if (!slot(to_take_).has_value()) return std::nullopt;
    return take_ready();
  }

  // Lets all workers go and frees the results that wait.
  void cancel() {
    std::vector<std::optional<Result>> dropped;
    const std::lock_guard lock(mutex_);
    canceled_ = true;
    dropped.swap(results_);
    room_.notify_all();
  }

 private:
  std::int64_t bound() const { return static_cast<std::int64_t>(results_.size()); }
  std::optional<Result>& slot(std::int64_t number) { return results_[static_cast<std::size_t>(number % bound())]; }

  Result take_ready() {
    Result result = std::move(*slot(to_take_));
    slot(to_take_).reset();
    ++to_take_;
    room_.notify_one();
    return result;
  }

  const std::int64_t end_;
  std::mutex mutex_;
  std::condition_variable room_, ready_;
  std::int64_t to_claim_, to_take_;
  bool canceled_ = false;
  std::vector<std::optional<Result>> results_;
};

}  // namespace mmtrain::detail
