#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/parallel/process_group.h"

/// Who trains: the ranks of this process and the threads they run on. What a rank does is given to it as a function, so
/// one training loop serves one device, several, and several processes.
namespace mmtrain::parallel {

/// A thread's place among all ranks, and its device.
struct Rank {
  ProcessGroup group;
  c10::Device device = c10::kCPU;
};

class MMTRAIN_API Strategy {
 public:
  virtual ~Strategy() = default;
  Strategy(const Strategy&) = delete;
  Strategy& operator=(const Strategy&) = delete;

  /// The ranks of this process, at least one.
  const std::vector<Rank>& ranks() const { return ranks_; }
  /// Ranks of all processes.
  int world_size() const { return ranks_.front().group.world_size(); }
  /// The processes that train together, each of which is one rank of this group. Only for use outside `run`.
  const ProcessGroup& processes() const { return processes_; }
  bool has_processes() const { return processes_.world_size() > 1; }
  /// Whether the first rank of all is in this process: the one that prints and saves.
  bool is_main() const { return ranks_.front().group.rank() == 0; }

  /// Runs `work(i)` for each rank `ranks()[i]` of this process, all at the same time, each with its device current and
  /// always on the same thread, and returns when all have ended. An exception in one breaks the group, so that none
  /// waits for it; the first one is thrown again when all have ended, with rank and device in the log.
  virtual void run(const std::function<void(std::size_t rank)>& work) = 0;

  /// Breaks the group because of an error outside `run`: the other processes stop waiting for this one, and tell it.
  void abort(const std::exception_ptr& error) noexcept;

  /// The regular end, when all is done, on all ranks: none takes the going of another for a failure. With several
  /// processes the destructor does it, unless an exception is on its way.
  void shutdown();

  /// The line that says how a run trains, see `training_on`.
  virtual std::string description() const = 0;

 protected:
  explicit Strategy(std::vector<Rank> ranks, ProcessGroup processes = {})
      : ranks_(std::move(ranks)), processes_(std::move(processes)) {}

  /// What destructors do: they still can run the ranks.
  void part() noexcept;

  /// `description` of this process, with the number of processes if there are several.
  std::string with_processes(const std::string& description) const;

 private:
  std::vector<Rank> ranks_;
  ProcessGroup processes_;
};

/// One device, no group: `run` calls the function.
class MMTRAIN_API SingleDevice final : public Strategy {
 public:
  explicit SingleDevice(c10::Device device) : Strategy({{ProcessGroup(), device}}) {}
  void run(const std::function<void(std::size_t rank)>& work) override;
  std::string description() const override;
};

/// Ranks as threads of this process, one a device: the CPU as often as there are to be replicas. They share memory and
/// the loader, and start no interpreter: what Python needs processes for. With `processes` the ranks of all of them
/// train together; each has as many.
class MMTRAIN_API ReplicaStrategy final : public Strategy {
 public:
  /// `threads`: that operators may use on each rank; 0 shares the present number out. A rank that does not answer
  /// breaks the group after the timeout, in a collective or when another has come to the end of `run`; its thread
  /// cannot be ended, so that the process should: `run` throws, and the destructor does not wait for it. Throws
  /// `ConfigError` without devices.
  explicit ReplicaStrategy(const std::vector<c10::Device>& devices, const GroupOptions& options = {}, int threads = 0,
                           const ProcessGroup& processes = {});
  ~ReplicaStrategy() override;
  void run(const std::function<void(std::size_t rank)>& work) override;
  std::string description() const override;

 private:
  struct Team;
  std::shared_ptr<Team> team_;
};

/// This process is one rank of several: `init_from_env` makes its group.
class MMTRAIN_API DistributedDataParallel final : public Strategy {
 public:
  DistributedDataParallel(const ProcessGroup& group, c10::Device device);
  ~DistributedDataParallel() override { part(); }
  void run(const std::function<void(std::size_t rank)>& work) override;
  std::string description() const override;
};

}  // namespace mmtrain::parallel
