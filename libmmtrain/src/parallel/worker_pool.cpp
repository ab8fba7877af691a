#include "parallel/worker_pool.h"

#include <algorithm>
#include <utility>

namespace mmtrain::parallel::detail {

WorkerPool::WorkerPool(std::size_t workers) : pending_(workers, 0) {
  for (std::size_t worker = 0; worker < workers; ++worker) {
    threads_.emplace_back([this, worker](std::stop_token stop) { work(std::move(stop), worker); });
  }
}

std::vector<std::exception_ptr> WorkerPool::run(std::size_t workers, const Task& task) {
  std::unique_lock<std::mutex> lock(mutex_);
  task_ = &task;
  busy_ = workers;
  errors_.assign(workers, nullptr);
  std::fill_n(pending_.begin(), workers, 1);
  start_.notify_all();
  done_.wait(lock, [this] { return busy_ == 0; });
  return std::exchange(errors_, {});
}

void WorkerPool::work(std::stop_token stop, std::size_t worker) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (start_.wait(lock, stop, [&] { return pending_[worker] != 0; })) {
    pending_[worker] = 0;
    const Task& task = *task_;
    lock.unlock();
    std::exception_ptr error;
    try {
      task(worker);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    errors_[worker] = std::move(error);
    if (--busy_ == 0) done_.notify_one();
  }
}

}  // namespace mmtrain::parallel::detail
