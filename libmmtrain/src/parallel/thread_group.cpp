#include "parallel/thread_group.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <utility>

#include "mmtrain/core/error.h"
#include "parallel/error_text.h"
#include "parallel/reduce.h"

namespace mmtrain::parallel {
namespace {

// Up to this many bytes of one rank, waking threads would take longer than the work itself.
constexpr std::int64_t kInlineBytes = 64 * 1024;
constexpr std::int64_t kChunkElements = 32 * 1024;

std::string description_of(const Collective& collective) {
  if (collective.op == c10d::OpType::BARRIER) return "barrier";
  std::string text =
      fmt::format("{} of {} {}", name_of(collective.op), collective.elements, c10::toString(collective.dtype));
  if (collective.op == c10d::OpType::BROADCAST) text += fmt::format(" from rank {}", collective.root);
  if (collective.op == c10d::OpType::ALLREDUCE) text += fmt::format(" by operation {}", int{collective.reduce});
  return text;
}

const at::Tensor& only(const std::vector<at::Tensor>& tensors) {
  TORCH_CHECK(tensors.size() == 1 && tensors[0].device().is_cpu() && tensors[0].is_contiguous(),
              "a group of threads takes one contiguous CPU tensor at a time");
  return tensors[0];
}

}  // namespace

struct ThreadGroup::Operation {
  Operation(int size, std::uint64_t sequence_number) : number(sequence_number), arrivals(size) {}

  bool all_here() const { return arrived == arrivals.size(); }
  bool unclaimed() const { return claimed.load(std::memory_order_relaxed) < chunks; }
  void do_chunk(std::int64_t chunk) const;

  const std::uint64_t number;
  Collective collective;
  std::vector<Arrival> arrivals;  // by thread
  std::size_t arrived = 0;
  int first_thread = 0;
  Clock::time_point deadline;
  std::vector<void*> data;  // by thread, once all are here
  std::int64_t chunks = 1;
  std::atomic<std::int64_t> claimed{0}, done{0};
};

std::int64_t Collective::bytes() const {
  return dtype == c10::ScalarType::Undefined ? 0 : elements * static_cast<std::int64_t>(c10::elementSize(dtype));
}

void ThreadGroup::Operation::do_chunk(std::int64_t chunk) const {
  if (collective.op == c10d::OpType::BARRIER) return;
  const std::int64_t begin = chunk * kChunkElements;
  const std::int64_t end = std::min(begin + kChunkElements, collective.elements);
  if (collective.op == c10d::OpType::ALLREDUCE) {
    return reduce_elements(collective.reduce, collective.dtype, data, begin, end);
  }
  const auto size = static_cast<std::int64_t>(c10::elementSize(collective.dtype));
  const auto copy = [&](void* to, const void* from) {
    std::memcpy(static_cast<char*>(to) + begin * size, static_cast<const char*>(from) + begin * size,
                static_cast<std::size_t>((end - begin) * size));
  };
  for (std::size_t to = 0; to < arrivals.size(); ++to) {
    if (collective.op == c10d::OpType::ALLGATHER) {
      for (std::size_t from = 0; from < arrivals.size(); ++from) copy(arrivals[to].outputs[from], data[from]);
    } else if (to != static_cast<std::size_t>(collective.root)) {
      copy(data[to], data[static_cast<std::size_t>(collective.root)]);
    }
  }
}

ThreadGroup::ThreadGroup(int size, std::chrono::milliseconds timeout, std::unique_ptr<ProcessLink> link)
    : size_(size), timeout_(timeout), link_(std::move(link)), called_(static_cast<std::size_t>(size), 0) {
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (int i = 0; i < std::min(size, cores); ++i) threads_.emplace_back([this] { serve(); });
}

ThreadGroup::~ThreadGroup() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

c10::intrusive_ptr<FutureWork> ThreadGroup::enter(int thread, const Collective& collective, Arrival arrival) {
  const int rank = rank_of(thread);
  if (const std::string error = first_error(); !error.empty()) {
    throw DistributedError(failure_text(rank, collective.op, error));
  }
  std::unique_lock lock(mutex_);
  if (!first_error_.empty()) throw DistributedError(failure_text(rank, collective.op, first_error_));
  const std::shared_ptr<Operation> operation = operation_of(thread);
  if (operation->arrived == 0) {
    operation->collective = collective;
    operation->first_thread = thread;
    operation->deadline = Clock::now() + timeout_;
    // Among threads alone; what moves data only between threads waits for those of other processes.
    const bool shared_out = !link_ || collective.op == c10d::OpType::ALLREDUCE;
    if (shared_out) operation->chunks = (collective.elements + kChunkElements - 1) / kChunkElements;
    operation->chunks = std::max<std::int64_t>(1, operation->chunks);
  } else if (!(operation->collective == collective)) {
    const std::string error = fmt::format(
        "[rank {}] calls {} as collective {} where rank {} called {}: all ranks must do the same in the same order",
        rank, description_of(collective), operation->number, rank_of(operation->first_thread),
        description_of(operation->collective));
    lock.unlock();
    fail(error);
    throw DistributedError(failure_text(rank, collective.op, first_error()));
  }
  arrival.work = c10::make_intrusive<FutureWork>(rank, collective.op, operation->number, arrival.tensors);
  const c10::intrusive_ptr<FutureWork> work = arrival.work;
  operation->arrivals[static_cast<std::size_t>(thread)] = std::move(arrival);
  if (++operation->arrived < static_cast<std::size_t>(size_)) return work;

  for (const Arrival& each : operation->arrivals) operation->data.push_back(each.data);
  const bool at_once = operation == queue_.front() && collective.bytes() <= kInlineBytes;
  lock.unlock();
  if (at_once) {
    run(operation);
  } else {
    wake_.notify_all();
  }
  return work;
}

// The operation that the next call of `thread` belongs to. Needs the lock.
std::shared_ptr<ThreadGroup::Operation> ThreadGroup::operation_of(int thread) {
  const std::uint64_t number = ++called_[static_cast<std::size_t>(thread)];
  while (finished_ + queue_.size() < number) {
    queue_.push_back(std::make_shared<Operation>(size_, finished_ + queue_.size() + 1));
  }
  return queue_[number - finished_ - 1];
}

// Does chunks until none is left; whoever does the last one to be done finishes the operation.
void ThreadGroup::run(const std::shared_ptr<Operation>& operation) {
  while (true) {
    const std::int64_t chunk = operation->claimed.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= operation->chunks) return;
    if (!link_ || operation->collective.op == c10d::OpType::ALLREDUCE) operation->do_chunk(chunk);
    if (operation->done.fetch_add(1, std::memory_order_acq_rel) + 1 == operation->chunks) finish(operation);
  }
}

void ThreadGroup::finish(const std::shared_ptr<Operation>& operation) {
  // Before the next one can be finished: other processes take them in this order too.
  if (link_ && !go_on_in_other_processes(operation)) return;
  bool more = false;
  {
    const std::lock_guard lock(mutex_);
    if (queue_.empty() || queue_.front() != operation) return;  // the group broke meanwhile
    queue_.pop_front();
    ++finished_;
    more = !queue_.empty() && queue_.front()->all_here();
  }
  if (more) wake_.notify_all();
  if (link_) return;  // it ends them
  for (const Arrival& arrival : operation->arrivals) arrival.work->complete();
}

// False if the group is broken.
bool ThreadGroup::go_on_in_other_processes(const std::shared_ptr<Operation>& operation) {
  try {
    link_->start(operation->collective, {operation, &operation->arrivals});
    return true;
  } catch (const std::exception& error) {
    const std::string first = link_->first_error();
    fail(first.empty() ? error_text(error) : first);
    return false;
  }
}

// What the threads do. Nobody wakes them for a collective that some ranks still miss: with a nap no longer than half
// the timeout they see it in time.
void ThreadGroup::serve() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const std::shared_ptr<Operation> front = queue_.empty() ? nullptr : queue_.front();
    if (front && front->all_here() && front->unclaimed()) {
      lock.unlock();
      run(front);
      lock.lock();
    } else if (front && !front->all_here() && Clock::now() >= front->deadline) {
      const std::string error = absence_text(*front);
      lock.unlock();
      fail(error);
      lock.lock();
    } else {
      const Clock::time_point nap = Clock::now() + timeout_ / 2;
      const bool watched = front && !front->all_here();
      wake_.wait_until(lock, watched ? std::min(nap, front->deadline) : nap);
    }
  }
}

std::string ThreadGroup::absence_text(const Operation& operation) const {
  std::vector<int> missing;
  for (int thread = 0; thread < size_; ++thread) {
    if (!operation.arrivals[static_cast<std::size_t>(thread)].work) missing.push_back(rank_of(thread));
  }
  return fmt::format("[rank {}] did not come to collective {} ({}) within {} of rank {}", fmt::join(missing, ", "),
                     operation.number, description_of(operation.collective), duration_text(timeout_),
                     rank_of(operation.first_thread));
}

void ThreadGroup::fail(const std::string& error) noexcept {
  std::deque<std::shared_ptr<Operation>> unfinished;
  {
    const std::lock_guard lock(mutex_);
    if (!first_error_.empty()) return;
    first_error_ = error;
    unfinished.swap(queue_);
  }
  for (const auto& operation : unfinished) {
    for (const Arrival& arrival : operation->arrivals) {
      if (arrival.work) arrival.work->fail(error);
    }
  }
  if (link_) link_->fail(error);
  hooks_.run();
}

void ThreadGroup::on_failure(std::function<void()> hook) {
  link_ ? link_->on_failure(std::move(hook)) : hooks_.add(std::move(hook));
}

std::string ThreadGroup::first_error() const {
  if (link_) {  // where the others read it too
    if (std::string error = link_->first_error(); !error.empty()) return error;
  }
  const std::lock_guard lock(mutex_);
  return first_error_;
}

void ThreadGroup::close(int thread) {
  if (link_ && thread == 0) link_->close();
}

ThreadBackend::ThreadBackend(std::shared_ptr<ThreadGroup> group, int thread)
    : RankBackend(group->rank_of(thread), group->world_size()), group_(std::move(group)), thread_(thread) {}

ThreadBackend::~ThreadBackend() {
  if (!closed_) fail(fmt::format("[rank {}] left the group without shutdown", rank_));
}

c10::intrusive_ptr<c10d::Work> ThreadBackend::enter(const Collective& collective, std::vector<at::Tensor> tensors) {
  if (closed_) throw DistributedError(failure_text(rank_, collective.op, "the group is shut down"));
  Arrival arrival;
  if (!tensors.empty()) arrival.data = tensors[0].mutable_data_ptr();
  for (std::size_t i = 1; i < tensors.size(); ++i) arrival.outputs.push_back(tensors[i].mutable_data_ptr());
  arrival.tensors = std::move(tensors);
  return group_->enter(thread_, collective, std::move(arrival));
}

c10::intrusive_ptr<c10d::Work> ThreadBackend::allreduce(std::vector<at::Tensor>& tensors,
                                                        const c10d::AllreduceOptions& options) {
  const at::Tensor& tensor = only(tensors);
  TORCH_CHECK(can_reduce(options.reduceOp, tensor.scalar_type()), "a group of threads cannot reduce ",
              tensor.scalar_type(), " in this way");
  return enter({.op = c10d::OpType::ALLREDUCE,
                .reduce = options.reduceOp,
                .dtype = tensor.scalar_type(),
                .elements = tensor.numel()},
               tensors);
}

c10::intrusive_ptr<c10d::Work> ThreadBackend::broadcast(std::vector<at::Tensor>& tensors,
                                                        const c10d::BroadcastOptions& options) {
  const at::Tensor& tensor = only(tensors);
  return enter({.op = c10d::OpType::BROADCAST,
                .root = options.rootRank,
                .dtype = tensor.scalar_type(),
                .elements = tensor.numel()},
               tensors);
}

c10::intrusive_ptr<c10d::Work> ThreadBackend::allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                                        std::vector<at::Tensor>& inputs,
                                                        const c10d::AllgatherOptions&) {
  const at::Tensor& input = only(inputs);
  TORCH_CHECK(outputs.size() == 1 && outputs[0].size() == static_cast<std::size_t>(size_),
              "all_gather needs one output for each rank");
  std::vector<at::Tensor> tensors = {input};
  for (const at::Tensor& output : outputs[0]) {
    TORCH_CHECK(output.numel() == input.numel() && output.scalar_type() == input.scalar_type(),
                "all_gather needs outputs like the input");
    tensors.push_back(only({output}));
  }
  return enter({.op = c10d::OpType::ALLGATHER, .dtype = input.scalar_type(), .elements = input.numel()},
               std::move(tensors));
}

c10::intrusive_ptr<c10d::Work> ThreadBackend::barrier(const c10d::BarrierOptions&) { return enter({}, {}); }

void ThreadBackend::close() {
  if (closed_ || !first_error().empty()) return;
  barrier({})->wait();
  closed_ = true;
  group_->close(thread_);
}

std::vector<ProcessGroup> make_thread_groups(int n, const GroupOptions& options, const ProcessGroup& processes) {
  validate(options);
  if (n < 1) throw ConfigError(fmt::format("[make_thread_groups] the number of ranks must be positive, got {}", n));
  if (n == 1) return {processes};
  std::unique_ptr<ProcessLink> link;
  if (processes.world_size() > 1) link = std::make_unique<ProcessLink>(processes, n);
  const auto group = std::make_shared<ThreadGroup>(n, options.timeout, std::move(link));
  c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::HashStore>();
  if (const auto& impl = processes.impl()) {
    store = c10::make_intrusive<c10d::PrefixStore>(fmt::format("threads/{}", impl->thread_groups++),
                                                   impl->group->getStore());
  }
  std::vector<ProcessGroup> groups;
  for (int thread = 0; thread < n; ++thread) {
    groups.emplace_back(std::make_shared<ProcessGroup::Impl>(c10::make_intrusive<ThreadBackend>(group, thread), store,
                                                             group->local_rank_of(thread), options.timeout));
  }
  return groups;
}

}  // namespace mmtrain::parallel
