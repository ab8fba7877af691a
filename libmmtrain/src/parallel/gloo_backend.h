#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/process_group_impl.h"

namespace mmtrain::parallel {

// A rank that is a process, on Gloo. Gloo's own works cannot be interrupted and do not know who is to blame, so that
// each is wrapped: a failure is explained through the store, and ends all works of the rank at once.
class GlooBackend final : public RankBackend {
 public:
  // `address`: of the interface to bind to; empty for those of GLOO_SOCKET_IFNAME. `serves_store`: the store lives in
  // this process, which therefore leaves last.
  GlooBackend(c10::intrusive_ptr<c10d::Store> store, int rank, int size, std::chrono::milliseconds timeout,
              const std::string& address, bool serves_store);
  ~GlooBackend() override;

  const std::string getBackendName() const override { return "mmtrain_processes"; }
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override;
  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions& options) override;
  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                           std::vector<at::Tensor>& inputs,
                                           const c10d::AllgatherOptions& options) override;
  c10::intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions& options) override;

  void fail(const std::string& error) noexcept override;
  std::string first_error() const override;
  void on_failure(std::function<void()> hook) override;
  void set_ranks_per_process(int ranks) override;
  void close() override;

 private:
  class Works;
  class Watcher;

  template <class Start>
  c10::intrusive_ptr<c10d::Work> start(c10d::OpType op, std::vector<at::Tensor> outputs, Start start_on_gloo);
  void leave();

  const c10::intrusive_ptr<c10d::Store> store_;
  const std::chrono::milliseconds timeout_;
  const bool serves_store_;
  // Outlives this object in the callbacks of Gloo's threads.
  const std::shared_ptr<Works> works_;
  c10::intrusive_ptr<c10d::Backend> gloo_;
  const std::unique_ptr<Watcher> watcher_;
  std::atomic<bool> closed_{false};
};

}  // namespace mmtrain::parallel
