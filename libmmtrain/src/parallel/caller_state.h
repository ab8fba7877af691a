#pragma once

#include <ATen/ThreadLocalState.h>

namespace mmtrain::parallel::detail {

/// What LibTorch keeps for each thread and a calculation depends on: grad and inference mode, autocast with its types
/// and its cache, hooks for saved tensors, profiler. (The default type of new tensors belongs to the process.)
class CallerState {
 public:
  /// Takes the state of the calling thread.
  CallerState();

  /// Gives the state to another thread while it lives.
  class Scope {
   public:
    explicit Scope(const CallerState& caller);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    at::ThreadLocalStateGuard guard_;
    bool nested_, cache_before_;
  };

 private:
  at::ThreadLocalState state_;
  // at::ThreadLocalState lacks these two.
  bool cache_;
  bool nested_;  // in a scope at whose end the cache of casts is emptied
};

}  // namespace mmtrain::parallel::detail
