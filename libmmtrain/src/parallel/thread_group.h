#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/failure_hooks.h"
#include "parallel/future_work.h"
#include "parallel/process_group_impl.h"
#include "parallel/process_link.h"

namespace mmtrain::parallel {

// What all ranks must agree on.
struct Collective {
  c10d::OpType op = c10d::OpType::BARRIER;
  c10d::ReduceOp::RedOpType reduce = c10d::ReduceOp::UNUSED;
  std::int64_t root = 0;
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  std::int64_t elements = 0;

  bool operator==(const Collective&) const = default;
  std::int64_t bytes() const;
};

// A collective call of one rank.
struct Arrival {
  std::vector<at::Tensor> tensors;  // keeps the memory
  void* data = nullptr;
  std::vector<void*> outputs;  // all_gather: where the data of each rank go
  c10::intrusive_ptr<FutureWork> work;
};

// The meeting place of ranks that are threads of this process. Collectives are done in the order in which they are
// called: the last rank to come does a small one itself, threads of the group share the chunks of a large one, so that
// ranks can compute meanwhile. Elements are always reduced in the order of ranks, whoever does it. With a link the
// group goes on in other processes: what all threads have called then goes through it.
class ThreadGroup {
 public:
  ThreadGroup(int size, std::chrono::milliseconds timeout, std::unique_ptr<ProcessLink> link = nullptr);
  ~ThreadGroup();
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;

  // Takes the call of a thread; its work ends when all ranks have come and the data are where they belong. Throws
  // `DistributedError` on a broken group and when the ranks call different things, which breaks it.
  c10::intrusive_ptr<FutureWork> enter(int thread, const Collective& collective, Arrival arrival);

  void fail(const std::string& error) noexcept;
  std::string first_error() const;
  void on_failure(std::function<void()> hook);
  // The end of the thread's part, after a barrier.
  void close(int thread);
  int threads() const { return size_; }
  // Among the ranks of all processes.
  int rank_of(int thread) const { return link_ ? link_->first_rank() + thread : thread; }
  int local_rank_of(int thread) const { return link_ ? link_->first_local_rank() + thread : thread; }
  int world_size() const { return link_ ? link_->world_size() : size_; }

 private:
  struct Operation;
  using Clock = std::chrono::steady_clock;

  std::shared_ptr<Operation> operation_of(int thread);
  void run(const std::shared_ptr<Operation>& operation);
  void finish(const std::shared_ptr<Operation>& operation);
  bool go_on_in_other_processes(const std::shared_ptr<Operation>& operation);
  void serve();
  std::string absence_text(const Operation& operation) const;

  const int size_;
  const std::chrono::milliseconds timeout_;
  const std::unique_ptr<ProcessLink> link_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Operation>> queue_;  // in the order of calls; the front is the one being done
  std::uint64_t finished_ = 0;                    // collectives that have left the queue
  std::vector<std::uint64_t> called_;             // by thread
  std::string first_error_;
  FailureHooks hooks_;  // those of a group with a link are kept there
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// A rank's place in it.
class ThreadBackend final : public RankBackend {
 public:
  ThreadBackend(std::shared_ptr<ThreadGroup> group, int thread);
  ~ThreadBackend() override;

  const std::string getBackendName() const override { return "mmtrain_threads"; }
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override;
  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions& options) override;
  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                           std::vector<at::Tensor>& inputs,
                                           const c10d::AllgatherOptions& options) override;
  c10::intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions& options) override;

  void fail(const std::string& error) noexcept override { group_->fail(error); }
  std::string first_error() const override { return group_->first_error(); }
  void on_failure(std::function<void()> hook) override { group_->on_failure(std::move(hook)); }
  void close() override;

 private:
  c10::intrusive_ptr<c10d::Work> enter(const Collective& collective, std::vector<at::Tensor> tensors);

  const std::shared_ptr<ThreadGroup> group_;
  const int thread_;
  bool closed_ = false;
};

}  // namespace mmtrain::parallel
