#include "parallel/gloo_backend.h"

#include <fmt/format.h>

#include <condition_variable>
#include <cstdlib>
#include <future>
#include <mutex>
#include <set>
#include <thread>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <utility>

#include "mmtrain/core/error.h"
#include "parallel/error_text.h"
#include "parallel/failure_board.h"
#include "parallel/failure_hooks.h"
#include "parallel/future_work.h"

namespace mmtrain::parallel {
namespace {

constexpr std::chrono::milliseconds kWatchInterval{100};

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    if (end > begin) parts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

c10::intrusive_ptr<c10d::Backend> connect(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                          std::chrono::milliseconds timeout, const std::string& address) {
  const auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  try {
    const char* names = std::getenv("GLOO_SOCKET_IFNAME");
    for (const std::string& name : split(names ? names : "")) {
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForInterface(name));
    }
    if (options->devices.empty()) {
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
    }
    return c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);
  } catch (const std::exception& error) {
    throw DistributedError(
        fmt::format("[ProcessGroup] rank {} could not connect to the other ranks within {} ({}); GLOO_SOCKET_IFNAME "
                    "chooses another network interface",
                    rank, duration_text(timeout), error_text(error)));
  }
}

}  // namespace

// The works under way, and the first error once they have failed.
class GlooBackend::Works : public std::enable_shared_from_this<GlooBackend::Works> {
 public:
  Works(c10::intrusive_ptr<c10d::Store> store, int rank, int size, std::chrono::milliseconds timeout)
      : rank_(rank), board_(std::move(store), rank, size, timeout) {}

  // Calls `start_on_gloo`, in the order of the works' numbers.
  template <class Start>
  c10::intrusive_ptr<FutureWork> start(c10d::OpType op, std::vector<at::Tensor> outputs, Start start_on_gloo,
                                       c10::intrusive_ptr<c10d::Work>& on_gloo) {
    const std::lock_guard lock(mutex_);
    if (!first_error_.empty()) throw DistributedError(failure_text(rank_, op, first_error_));
    on_gloo = start_on_gloo();
    auto work = c10::make_intrusive<FutureWork>(rank_, op, ++called_, std::move(outputs));
    pending_.insert(work);
    return work;
  }

  // In a thread of Gloo: its work has ended, well or not.
  void settle(const c10::intrusive_ptr<FutureWork>& work, const c10::ivalue::Future& on_gloo) {
    if (!on_gloo.hasError()) {
      {
        const std::lock_guard lock(mutex_);
        pending_.erase(work);
      }
      work->complete();
    } else if (first_error().empty()) {
      const std::string cause = error_text(on_gloo.exception_ptr());
      fail_all(in_time([number = work->number(), cause](FailureBoard& board) { return board.blame(number, cause); },
                       fmt::format("{} is cut off: neither other ranks nor the store at MASTER_ADDR:MASTER_PORT answer "
                                   "any more ({})",
                                   board_.own_name(), cause)));
    }
  }

  // Breaks the group because of an error on this rank.
  void fail(const std::string& error) {
    fail_all(in_time([error](FailureBoard& board) { return board.post(error); }, error));
  }

  void fail_all(const std::string& error) {
    std::set<c10::intrusive_ptr<FutureWork>> failed;
    {
      const std::lock_guard lock(mutex_);
      if (!first_error_.empty()) return;
      first_error_ = error;
      failed.swap(pending_);
    }
    for (const auto& work : failed) work->fail(error);
    hooks_.run();
  }

  std::string first_error() const {
    const std::lock_guard lock(mutex_);
    return first_error_;
  }

  std::uint64_t called() const {
    const std::lock_guard lock(mutex_);
    return called_;
  }

  FailureBoard& board() { return board_; }
  FailureHooks& hooks() { return hooks_; }

 private:
  // What `ask` learns from the board, or `otherwise`: who is cut off from the store waits for its answer without end,
  // on a thread that then is left behind.
  template <class Ask>
  std::string in_time(Ask ask, const std::string& otherwise) {
    const auto answer = std::make_shared<std::promise<std::string>>();
    std::future<std::string> answered = answer->get_future();
    std::thread([self = shared_from_this(), answer, ask] { answer->set_value(ask(self->board_)); }).detach();
    return answered.wait_for(board_.patience()) == std::future_status::ready ? answered.get() : otherwise;
  }

  const int rank_;
  FailureBoard board_;
  mutable std::mutex mutex_;
  std::set<c10::intrusive_ptr<FutureWork>> pending_;
  std::uint64_t called_ = 0;
  std::string first_error_;
  FailureHooks hooks_;
};

// Waits for an alarm, on a connection of its own, so that this rank stops even where Gloo would go on waiting.
class GlooBackend::Watcher {
 public:
  Watcher(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, std::chrono::milliseconds timeout,
          std::shared_ptr<Works> works)
      : state_(std::make_shared<State>(store->clone(), rank, size, timeout)),
        thread_([state = state_, works = std::move(works), rank] { watch(*state, *works, rank); }) {}
  ~Watcher() { stop(); }

  void set_ranks_per_process(int ranks) { state_->board.set_ranks_per_process(ranks); }

  void stop() {
    if (!thread_.joinable()) return;
    std::unique_lock lock(state_->mutex);
    state_->stopping = true;
    state_->changed.notify_all();
    // A store that does not answer would hold it up without end.
    const bool ended = state_->changed.wait_for(lock, state_->board.patience(), [this] { return state_->ended; });
    lock.unlock();
    ended ? thread_.join() : thread_.detach();
  }

 private:
  struct State {  // the thread's too, which may be left behind
    State(c10::intrusive_ptr<c10d::Store> store, int rank, int size, std::chrono::milliseconds timeout)
        : board(std::move(store), rank, size, timeout) {}

    std::mutex mutex;
    std::condition_variable changed;
    bool stopping = false, ended = false;
    FailureBoard board;
  };

  static void watch(State& state, Works& works, int rank) {
    try {
      while (goes_on(state)) {
        if (!state.board.alarmed()) continue;
        works.fail_all(state.board.answer(works.called()));
        break;
      }
    } catch (const std::exception& error) {
      works.fail_all(
          fmt::format("[rank {}] lost the store at MASTER_ADDR:MASTER_PORT: the process that served it "
                      "has ended ({})",
                      rank, error_text(error)));
    }
    const std::lock_guard lock(state.mutex);
    state.ended = true;
    state.changed.notify_all();
  }

  static bool goes_on(State& state) {
    std::unique_lock lock(state.mutex);
    return !state.changed.wait_for(lock, kWatchInterval, [&] { return state.stopping; });
  }

  const std::shared_ptr<State> state_;
  std::thread thread_;
};

GlooBackend::GlooBackend(c10::intrusive_ptr<c10d::Store> store, int rank, int size, std::chrono::milliseconds timeout,
                         const std::string& address, bool serves_store)
    : RankBackend(rank, size),
      store_(std::move(store)),
      timeout_(timeout),
      serves_store_(serves_store),
      works_(std::make_shared<Works>(store_, rank, size, timeout)),
      gloo_(connect(store_, rank, size, timeout, address)),
      watcher_(std::make_unique<Watcher>(store_, rank, size, timeout, works_)) {}

GlooBackend::~GlooBackend() {
  if (!closed_ && first_error().empty())
    fail(fmt::format("[rank {}] left the group without shutdown: its own last lines say why", rank_));
  watcher_->stop();
  if (closed_) return;
  if (serves_store_) works_->board().linger();
  // Its destructor would wait for works that nobody interrupts; the others see our end when the process ends.
  gloo_.release();
}

template <class Start>
c10::intrusive_ptr<c10d::Work> GlooBackend::start(c10d::OpType op, std::vector<at::Tensor> outputs,
                                                  Start start_on_gloo) {
  if (closed_) throw DistributedError(failure_text(rank_, op, "the group is shut down"));
  c10::intrusive_ptr<c10d::Work> on_gloo;
  const auto work = works_->start(op, std::move(outputs), start_on_gloo, on_gloo);
  on_gloo->getFuture()->addCallback(
      [works = works_, work](c10::ivalue::Future& future) { works->settle(work, future); });
  return work;
}

c10::intrusive_ptr<c10d::Work> GlooBackend::allreduce(std::vector<at::Tensor>& tensors,
                                                      const c10d::AllreduceOptions& options) {
  return start(c10d::OpType::ALLREDUCE, tensors, [&] { return gloo_->allreduce(tensors, options); });
}

c10::intrusive_ptr<c10d::Work> GlooBackend::broadcast(std::vector<at::Tensor>& tensors,
                                                      const c10d::BroadcastOptions& options) {
  return start(c10d::OpType::BROADCAST, tensors, [&] { return gloo_->broadcast(tensors, options); });
}

c10::intrusive_ptr<c10d::Work> GlooBackend::allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                                      std::vector<at::Tensor>& inputs,
                                                      const c10d::AllgatherOptions& options) {
  TORCH_CHECK(outputs.size() == 1, "all_gather takes one list of outputs");
  return start(c10d::OpType::ALLGATHER, outputs[0], [&] { return gloo_->allgather(outputs, inputs, options); });
}

c10::intrusive_ptr<c10d::Work> GlooBackend::barrier(const c10d::BarrierOptions& options) {
  return start(c10d::OpType::BARRIER, {}, [&] { return gloo_->barrier(options); });
}

void GlooBackend::fail(const std::string& error) noexcept {
  if (closed_ || !first_error().empty()) return;
  works_->fail(error);
}

std::string GlooBackend::first_error() const { return works_->first_error(); }

void GlooBackend::on_failure(std::function<void()> hook) { works_->hooks().add(std::move(hook)); }

void GlooBackend::set_ranks_per_process(int ranks) {
  works_->board().set_ranks_per_process(ranks);
  watcher_->set_ranks_per_process(ranks);
}

void GlooBackend::close() {
  if (closed_ || !first_error().empty()) return;
  barrier({})->wait();
  watcher_->stop();
  closed_ = true;
  leave();
}

// Connections may be closed only when nobody is in the barrier any more, and the store only when nobody needs it.
void GlooBackend::leave() {
  const auto all_come = [this](const std::string& place, bool waits) {
    if (store_->add(place, 1) == size_) store_->set(place + "/all", std::string("1"));
    if (waits) store_->wait({place + "/all"}, timeout_);
  };
  try {
    all_come("out_of_barrier", true);
    all_come("gone", serves_store_);
  } catch (const std::exception& error) {
    throw DistributedError(
        fmt::format("[ProcessGroup] rank {}: a rank was lost during shutdown ({})", rank_, error_text(error)));
  }
  gloo_.reset();
}

}  // namespace mmtrain::parallel
