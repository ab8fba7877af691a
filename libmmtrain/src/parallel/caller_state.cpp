#include "parallel/caller_state.h"

#include <ATen/autocast_mode.h>

namespace mmtrain::parallel::detail {
namespace {

// LibTorch tells the depth only to those who change it.
bool inside_autocast_scope() {
  at::autocast::increment_nesting();
  return at::autocast::decrement_nesting() > 0;
}

}  // namespace

CallerState::CallerState() : cache_(at::autocast::is_autocast_cache_enabled()), nested_(inside_autocast_scope()) {}

CallerState::Scope::Scope(const CallerState& caller)
    : guard_(caller.state_), nested_(caller.nested_), cache_before_(at::autocast::is_autocast_cache_enabled()) {
  at::autocast::set_autocast_cache_enabled(caller.cache_);
  // Else a scope within the net would be the outermost one and empty the cache, which all threads share.
  if (nested_) at::autocast::increment_nesting();
}

CallerState::Scope::~Scope() {
  if (nested_) at::autocast::decrement_nesting();
  at::autocast::set_autocast_cache_enabled(cache_before_);
}

}  // namespace mmtrain::parallel::detail
