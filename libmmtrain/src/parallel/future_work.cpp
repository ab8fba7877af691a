#include "parallel/future_work.h"

#include <fmt/format.h>

#include <utility>

#include "mmtrain/core/error.h"

namespace mmtrain::parallel {

FutureWork::FutureWork(int rank, c10d::OpType op, std::uint64_t number, std::vector<at::Tensor> outputs)
    : Work(rank, op),
      number_(number),
      outputs_(std::move(outputs)),
      future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::ofTensors())) {}

void FutureWork::fail(const std::string& error) {
  if (settled_.exchange(true)) return;
  error_ = error;
  future_->setError(std::make_exception_ptr(DistributedError(failure_text(rank_, opType_, error))));
}

void FutureWork::complete() {
  if (settled_.exchange(true)) return;
  future_->markCompleted(c10::IValue(outputs_));
}

bool FutureWork::wait(std::chrono::milliseconds) {
  future_->waitAndThrow();
  return true;
}

const char* name_of(c10d::OpType op) {
  switch (op) {
    case c10d::OpType::ALLREDUCE:
      return "all_reduce";
    case c10d::OpType::BROADCAST:
      return "broadcast";
    case c10d::OpType::ALLGATHER:
      return "all_gather";
    case c10d::OpType::BARRIER:
      return "barrier";
    default:
      return "collective";
  }
}

std::string failure_text(int rank, c10d::OpType op, const std::string& error) {
  return fmt::format("[ProcessGroup] rank {}: {} failed: {}", rank, name_of(op), error);
}

std::string duration_text(std::chrono::milliseconds duration) {
  return duration.count() % 1000 == 0 ? fmt::format("{} s", duration.count() / 1000)
                                      : fmt::format("{} ms", duration.count());
}

}  // namespace mmtrain::parallel
