#include "mmtrain/parallel/strategy.h"

#include <ATen/Parallel.h>
#include <c10/core/DeviceGuard.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/device/device.h"
#include "mmtrain/device/thread_limit.h"
#include "parallel/caller_state.h"
#include "parallel/future_work.h"
#include "parallel/process_group_impl.h"

namespace mmtrain::parallel {
namespace {

using Work = std::function<void(std::size_t rank)>;

// Time for ranks to see that their group is broken and to end.
constexpr std::chrono::seconds kGrace{10};

std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const c10::Error& thrown) {
    return thrown.what_without_backtrace();
  } catch (const std::exception& thrown) {
    return thrown.what();
  } catch (...) {
    return "an exception of unknown type";
  }
}

// The work of one rank, with its device current.
void run_rank(const Rank& rank, std::size_t index, const Work& work) {
  const c10::OptionalDeviceGuard guard(rank.device.is_cpu() ? std::optional<c10::Device>() : rank.device);
  work(index);
}

// The others wait for what will not come: breaking the group frees them.
void break_group(const Rank& rank, const std::exception_ptr& error) {
  ProcessGroup group = rank.group;
  group.abort(text_of(error), rank.device);
}

std::vector<Rank> thread_ranks(const std::vector<c10::Device>& devices, const GroupOptions& options,
                               const ProcessGroup& processes) {
  if (devices.empty()) throw ConfigError("[ReplicaStrategy] at least one device is needed");
  std::vector<ProcessGroup> groups = make_thread_groups(static_cast<int>(devices.size()), options, processes);
  std::vector<Rank> ranks;
  for (std::size_t i = 0; i < devices.size(); ++i) {
    groups[i].use_device(devices[i]);
    ranks.push_back({std::move(groups[i]), devices[i]});
  }
  return ranks;
}

}  // namespace

void Strategy::abort(const std::exception_ptr& error) noexcept {
  for (const Rank& rank : ranks_) break_group(rank, error);
}

void Strategy::shutdown() {
  run([this](std::size_t i) {
    ProcessGroup group = ranks()[i].group;
    group.shutdown();
  });
}

void Strategy::part() noexcept {
  if (!has_processes() || std::uncaught_exceptions() > 0) return;
  try {
    shutdown();
  } catch (const std::exception& error) {
    log::error(error.what());
  }
}

std::string Strategy::with_processes(const std::string& description) const {
  if (!has_processes()) return description;
  return fmt::format("{}{}, {} processes", description, ranks_.size() > 1 ? " each" : "", processes_.world_size());
}

void SingleDevice::run(const Work& work) { work(0); }

std::string SingleDevice::description() const { return training_on({ranks()[0].device}); }

DistributedDataParallel::DistributedDataParallel(const ProcessGroup& group, c10::Device device)
    : Strategy({{group, device}}, group) {
  ProcessGroup mine = group;
  mine.use_device(device);
}

void DistributedDataParallel::run(const Work& work) {
  try {
    run_rank(ranks()[0], 0, work);
  } catch (...) {
    break_group(ranks()[0], std::current_exception());
    throw;
  }
}

std::string DistributedDataParallel::description() const { return with_processes(training_on({ranks()[0].device})); }

// Threads hold it too: one that never answers may outlive the strategy.
struct ReplicaStrategy::Team : std::enable_shared_from_this<Team> {
  explicit Team(std::vector<Rank> all) : ranks(std::move(all)), ended(ranks.size()), errors(ranks.size()) {}

  void start(int threads) {
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      workers.emplace_back([self = shared_from_this(), i, threads] {
        const ThreadLimit limit(threads);
        self->serve(i);
      });
    }
  }

  void serve(std::size_t rank) {
    std::uint64_t done_rounds = 0;
    for (;;) {
      std::shared_ptr<const Work> work;
      std::shared_ptr<const detail::CallerState> caller;
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return stopping || round > done_rounds; });
        if (stopping) return;
        done_rounds = round;
        work = task;
        caller = caller_state;
      }
      try {
        const detail::CallerState::Scope as_caller(*caller);
        run_rank(ranks[rank], rank, *work);
      } catch (...) {
        note_error(rank, std::current_exception());
      }
      const std::scoped_lock lock(mutex);
      ended[rank] = true;
      --busy;
      done.notify_all();
    }
  }

  // Before the group is broken: what that makes of the others is not the first error.
  void note_error(std::size_t rank, const std::exception_ptr& error) {
    {
      const std::scoped_lock lock(mutex);
      errors[rank] = error;
      if (!first_error) first_error = rank;
      done.notify_all();
    }
    break_group(ranks[rank], error);
  }

  // Of ranks that do not come to the end of what all do, and that no other rank waits for in a collective.
  std::string absence_text(std::chrono::milliseconds timeout) const {
    std::vector<int> absent;
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      if (!ended[i]) absent.push_back(ranks[i].group.rank());
    }
    return fmt::format("[rank {}] did not come to the end of a call within {} of the first that did",
                       fmt::join(absent, ", "), duration_text(timeout));
  }

  std::vector<Rank> ranks;
  std::mutex mutex;
  std::condition_variable wake, done;
  std::shared_ptr<const Work> task;
  std::shared_ptr<const detail::CallerState> caller_state;
  std::uint64_t round = 0;
  std::size_t busy = 0;
  std::vector<bool> ended;  // by rank, in this round
  bool stopping = false;
  std::vector<std::exception_ptr> errors;
  std::optional<std::size_t> first_error;
  std::vector<std::thread> workers;
};

ReplicaStrategy::ReplicaStrategy(const std::vector<c10::Device>& devices, const GroupOptions& options, int threads,
                                 const ProcessGroup& processes)
    : Strategy(thread_ranks(devices, options, processes), processes), team_(std::make_shared<Team>(ranks())) {
  const int share = std::max(1, at::get_num_threads() / static_cast<int>(devices.size()));
  team_->start(threads > 0 ? threads : share);
}

ReplicaStrategy::~ReplicaStrategy() {
  part();
  bool answer = false;
  {
    const std::scoped_lock lock(team_->mutex);
    team_->stopping = true;
    answer = team_->busy == 0;
  }
  team_->wake.notify_all();
  for (std::thread& worker : team_->workers) answer ? worker.join() : worker.detach();
}

void ReplicaStrategy::run(const Work& work) {
  Team& team = *team_;
  std::unique_lock lock(team.mutex);
  if (team.busy > 0) throw DistributedError("[ReplicaStrategy] a rank of the last call still does not answer");
  team.task = std::make_shared<const Work>(work);
  team.caller_state = std::make_shared<const detail::CallerState>();
  team.ended.assign(ranks().size(), false);
  team.errors.assign(ranks().size(), nullptr);
  team.first_error.reset();
  team.busy = ranks().size();
  ++team.round;
  team.wake.notify_all();
  const auto all_done = [&] { return team.busy == 0; };
  const auto settled = [&] { return all_done() || team.first_error; };
  team.done.wait(lock, [&] { return settled() || team.busy < ranks().size(); });
  const std::chrono::milliseconds timeout = ranks().front().group.timeout();
  if (!team.done.wait_for(lock, timeout, settled)) {
    const std::string error = team.absence_text(timeout);
    lock.unlock();
    for (const Rank& rank : ranks()) rank.group.impl()->backend->fail(error);
    throw DistributedError(error);
  }
  if (!team.first_error) return;
  const bool answered = team.done.wait_for(lock, kGrace, all_done);
  if (!answered) log::error(fmt::format("{} ranks do not answer and are left behind", team.busy));
  try {
    std::rethrow_exception(team.errors[*team.first_error]);
  } catch (const DistributedError&) {
    throw;  // it names the rank
  } catch (...) {
    const Rank& culprit = ranks()[*team.first_error];
    log::error(
        fmt::format("[rank {}, {}] {}", culprit.group.rank(), culprit.device.str(), text_of(std::current_exception())));
    throw;
  }
}

std::string ReplicaStrategy::description() const {
  std::vector<c10::Device> devices;
  for (const Rank& rank : ranks()) devices.push_back(rank.device);
  return with_processes(training_on(devices, static_cast<int>(devices.size())));
}

}  // namespace mmtrain::parallel
