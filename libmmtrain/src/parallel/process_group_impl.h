#pragma once

#include <chrono>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "mmtrain/parallel/process_group.h"

namespace mmtrain::parallel {

// What both kinds of ranks add to LibTorch's interface: a group that breaks as a whole and says why. Collectives take
// one contiguous CPU tensor per rank; a broken or closed group throws `DistributedError` from the call.
class RankBackend : public c10d::Backend {
 public:
  using c10d::Backend::Backend;

  // Breaks the group for all ranks because of `error`, which names its rank, unless it is broken already.
  virtual void fail(const std::string& error) noexcept = 0;
  virtual std::string first_error() const = 0;
  // Of a group of processes, each of which stands for so many ranks: errors shall name those.
  virtual void set_ranks_per_process(int) {}
  // The regular end, on all ranks; nothing on a broken or closed group.
  virtual void close() = 0;

  void abort() override { fail("[rank " + std::to_string(rank_) + "] aborted the group"); }
};

class ProcessGroup::Impl {
 public:
  Impl(c10::intrusive_ptr<RankBackend> rank_backend, const c10::intrusive_ptr<c10d::Store>& store,
       int local_rank_of_host, std::chrono::milliseconds timeout_of_all);

  const c10::intrusive_ptr<RankBackend> backend;
  const c10::intrusive_ptr<c10d::ProcessGroup> group;  // for c10d::Reducer and the like; calls `backend`
  const int local_rank;
  const std::chrono::milliseconds timeout;
};

// The group as LibTorch's own classes take it; null for a group of one.
inline c10::intrusive_ptr<c10d::ProcessGroup> c10d_group(const ProcessGroup& group) {
  return group.impl() ? group.impl()->group : c10::intrusive_ptr<c10d::ProcessGroup>();
}

// Throws `ConfigError`.
void validate(const GroupOptions& options);

}  // namespace mmtrain::parallel
