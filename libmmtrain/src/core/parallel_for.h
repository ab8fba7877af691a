#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace mmtrain::detail {

// As many threads as the machine runs at once.
inline int machine_threads() { return static_cast<int>(std::max(1U, std::thread::hardware_concurrency())); }

// Calls `work(i)` once for each i in [0, count), on up to `threads` threads that take the numbers in ascending order.
// Meanwhile the calling thread calls `tick` ten times a second, and once at the end. The first exception, of `tick`
// too, keeps work from being started and is thrown when all threads are done.
template <class Work>
void parallel_for(int threads, std::int64_t count, const Work& work, const std::function<void()>& tick = {}) {
  constexpr std::chrono::milliseconds kTick(100);
  std::atomic<std::int64_t> next{0};
  std::mutex mutex;
  std::condition_variable finished;
  std::exception_ptr error;
  int running = static_cast<int>(std::min<std::int64_t>(threads, count));

  const auto fail = [&] {
    next = count;
    const std::lock_guard lock(mutex);
    if (!error) error = std::current_exception();
  };
  const auto run = [&] {
    try {
      for (std::int64_t i = next++; i < count; i = next++) work(i);
    } catch (...) {
      fail();
    }
    const std::lock_guard lock(mutex);
    --running;
    finished.notify_one();
  };
  {
    std::vector<std::jthread> pool;
    for (int started = 0, wanted = running; started < wanted; ++started) pool.emplace_back(run);
    for (bool done = false; !done;) {
      {
        std::unique_lock lock(mutex);
        done = finished.wait_for(lock, kTick, [&] { return running == 0; });
      }
      if (!tick) continue;
      try {
        tick();
      } catch (...) {
        fail();
      }
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace mmtrain::detail
