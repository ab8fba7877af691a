#include "parallel/process_link.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "mmtrain/core/error.h"
#include "parallel/thread_group.h"

namespace mmtrain::parallel {
namespace {

using Arrivals = std::shared_ptr<std::vector<Arrival>>;

void copy_to_others(const Collective& collective, const std::vector<Arrival>& arrivals, std::size_t from) {
  for (std::size_t to = 0; to < arrivals.size(); ++to) {
    if (to == from) continue;
    std::memcpy(arrivals[to].data, arrivals[from].data, static_cast<std::size_t>(collective.bytes()));
  }
}

// `gathered`: the inputs of each process, one thread's after the other's.
void hand_out(const Collective& collective, const std::vector<Arrival>& arrivals,
              const std::vector<at::Tensor>& gathered) {
  const auto bytes = static_cast<std::size_t>(collective.bytes());
  const std::size_t threads = arrivals.size();
  for (const Arrival& arrival : arrivals) {
    for (std::size_t rank = 0; rank < arrival.outputs.size(); ++rank) {
      const auto* of_process = static_cast<const char*>(gathered[rank / threads].const_data_ptr());
      std::memcpy(arrival.outputs[rank], of_process + rank % threads * bytes, bytes);
    }
  }
}

// When `work` among the processes has ended, `finish` puts the data where they belong.
template <class Finish>
void then(const c10::intrusive_ptr<c10d::Work>& work, const Arrivals& arrivals, Finish finish) {
  work->getFuture()->addCallback([work, arrivals, finish](c10::ivalue::Future& future) {
    if (future.hasError()) {
      const std::string& error = static_cast<const FutureWork&>(*work).error();
      for (const Arrival& arrival : *arrivals) arrival.work->fail(error);
      return;
    }
    finish();
    for (const Arrival& arrival : *arrivals) arrival.work->complete();
  });
}

}  // namespace

ProcessLink::ProcessLink(ProcessGroup processes, int threads) : processes_(std::move(processes)), threads_(threads) {
  backend().set_ranks_per_process(threads);
  ProcessGroup group = processes_;
  for (const at::Tensor& theirs : group.all_gather(at::full({1}, threads, at::kLong))) {
    if (theirs.item<std::int64_t>() == threads) continue;
    throw DistributedError(fmt::format("[ReplicaStrategy] process {} has {} replicas, another has {}: give all as many",
                                       processes_.rank(), threads, theirs.item<std::int64_t>()));
  }
}

void ProcessLink::start(const Collective& collective, const Arrivals& arrivals) {
  const at::NoGradGuard no_grad;
  if (collective.op == c10d::OpType::BARRIER) {
    return then(backend().barrier({}), arrivals, [] {});
  }
  if (collective.op == c10d::OpType::ALLGATHER) {
    std::vector<at::Tensor> inputs, outputs;
    for (const Arrival& arrival : *arrivals) inputs.push_back(arrival.tensors[0].flatten());
    std::vector<at::Tensor> joined = {at::cat(inputs)};
    for (int process = 0; process < processes_.world_size(); ++process) outputs.push_back(at::empty_like(joined[0]));
    std::vector<std::vector<at::Tensor>> lists = {outputs};
    return then(backend().allgather(lists, joined, {}), arrivals,
                [collective, arrivals, outputs] { hand_out(collective, *arrivals, outputs); });
  }
  const bool is_broadcast = collective.op == c10d::OpType::BROADCAST;
  const bool holds_root = is_broadcast && collective.root / threads_ == processes_.rank();
  const std::size_t sender = holds_root ? static_cast<std::size_t>(collective.root % threads_) : 0;
  std::vector<at::Tensor> tensors = {(*arrivals)[sender].tensors[0]};
  c10::intrusive_ptr<c10d::Work> work;
  if (is_broadcast) {
    c10d::BroadcastOptions options;
    options.rootRank = collective.root / threads_;
    work = backend().broadcast(tensors, options);
  } else {
    c10d::AllreduceOptions options;
    options.reduceOp = collective.reduce;
    work = backend().allreduce(tensors, options);
  }
  then(work, arrivals, [collective, arrivals, sender] { copy_to_others(collective, *arrivals, sender); });
}

}  // namespace mmtrain::parallel
