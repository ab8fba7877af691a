#pragma once

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace mmtrain::parallel {

// What is to be done once when a group breaks, on the thread that breaks it.
class FailureHooks {
 public:
  // Calls `hook` at once on a group that is broken already.
  void add(std::function<void()> hook) {
    {
      const std::lock_guard lock(mutex_);
      if (!failed_) return hooks_.push_back(std::move(hook));
    }
    hook();
  }

  void run() {
    std::vector<std::function<void()>> hooks;
    {
      const std::lock_guard lock(mutex_);
      failed_ = true;
      hooks.swap(hooks_);
    }
    for (const auto& hook : hooks) hook();
  }

 private:
  std::mutex mutex_;
  std::vector<std::function<void()>> hooks_;
  bool failed_ = false;
};

}  // namespace mmtrain::parallel
