#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

namespace mmtrain::parallel::detail {

/// Threads that wait for work, each with a number.
class WorkerPool {
 public:
  using Task = std::function<void(std::size_t worker)>;

  explicit WorkerPool(std::size_t workers);

  /// Runs `task` on the first `workers` threads and returns when all have ended: the exception of each, or null.
  /// One call at a time.
  std::vector<std::exception_ptr> run(std::size_t workers, const Task& task);

 private:
  void work(std::stop_token stop, std::size_t worker);

  std::mutex mutex_;
  std::condition_variable_any start_, done_;
  const Task* task_ = nullptr;
  std::vector<char> pending_;  // of each worker
  std::size_t busy_ = 0;
  std::vector<std::exception_ptr> errors_;
  std::vector<std::jthread> threads_;  // last: they end before what they use
};

}  // namespace mmtrain::parallel::detail
