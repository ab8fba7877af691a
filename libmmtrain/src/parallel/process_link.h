#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mmtrain/parallel/process_group.h"
#include "parallel/future_work.h"
#include "parallel/process_group_impl.h"

namespace mmtrain::parallel {

struct Arrival;
struct Collective;

// Carries the collectives of the threads of a process over to the threads of other processes. Threads are ranks one
// after the other, process by process.
class ProcessLink {
 public:
  // All processes have as many `threads`; throws `DistributedError` where they differ.
  ProcessLink(ProcessGroup processes, int threads);

  int first_rank() const { return processes_.rank() * threads_; }
  int first_local_rank() const { return processes_.local_rank() * threads_; }
  int world_size() const { return processes_.world_size() * threads_; }

  // Starts what `arrivals` of all threads of this process need of other processes, after an all_reduce among
  // themselves, and ends their works when it is done. Keeps `arrivals` as long as it needs them. To be called in the
  // order of collectives. Throws `DistributedError` on a broken group.
  void start(const Collective& collective, const std::shared_ptr<std::vector<Arrival>>& arrivals);

  void fail(const std::string& error) noexcept { backend().fail(error); }
  std::string first_error() const { return processes_.first_error(); }
  void on_failure(std::function<void()> hook) { backend().on_failure(std::move(hook)); }
  void close() { backend().close(); }

 private:
  RankBackend& backend() const { return *processes_.impl()->backend; }

  const ProcessGroup processes_;
  const int threads_;
};

}  // namespace mmtrain::parallel
