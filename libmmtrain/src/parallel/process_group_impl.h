#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
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
  // Calls `hook` once when the group breaks, at once if it is broken.
  virtual void on_failure(std::function<void()> hook) = 0;
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
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  // Takes `on_gpu` for collectives of tensors on `device`, beside those of the CPU; ends it when the group breaks.
  void use_device(c10::Device device, const c10::intrusive_ptr<c10d::Backend>& on_gpu);
  const std::optional<c10::Device>& device() const { return device_; }
  // The one for tensors where `tensor` is.
  c10d::Backend& backend_for(const at::Tensor& tensor) const;
  // The regular end, on all ranks.
  void close();

  const c10::intrusive_ptr<RankBackend> backend;
  const c10::intrusive_ptr<c10d::ProcessGroup> group;  // for c10d::Reducer and the like; calls `backend`
  const int local_rank;
  const std::chrono::milliseconds timeout;
  std::atomic<int> thread_groups{0};  // that were made on it, on each process alike

 private:
  std::optional<c10::Device> device_;
  c10::intrusive_ptr<c10d::Backend> on_gpu_;
};

// The group as LibTorch's own classes take it; null for a group of one.
inline c10::intrusive_ptr<c10d::ProcessGroup> c10d_group(const ProcessGroup& group) {
  return group.impl() ? group.impl()->group : c10::intrusive_ptr<c10d::ProcessGroup>();
}

// Throws `ConfigError`.
void validate(const GroupOptions& options);

}  // namespace mmtrain::parallel
