#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <string>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

namespace mmtrain::parallel {

// A collective under way. It ends once, by `complete` or `fail`, whichever is first and from whatever thread: an
// aborted group fails its collectives while their data may still be on the way.
class FutureWork final : public c10d::Work {
 public:
  FutureWork(int rank, c10d::OpType op, std::uint64_t number, std::vector<at::Tensor> outputs);

  // Fails with a `DistributedError` that says what this rank was doing.
  void fail(const std::string& error);
  void complete();

  bool isCompleted() override { return future_->completed(); }
  bool isSuccess() const override { return future_->completed() && !future_->hasError(); }
  std::exception_ptr exception() const override { return future_->exception_ptr(); }
  std::vector<at::Tensor> result() override { return outputs_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }
  std::uint64_t getSequencenumber() const override { return number_; }
  void synchronize() override {}
  // The group bounds every collective by its own timeout.
  bool wait(std::chrono::milliseconds timeout = kNoTimeout) override;

  // What `fail` was given, on a work that failed.
  const std::string& error() const { return error_; }
  // 1 for the first collective of the group.
  std::uint64_t number() const { return number_; }

 private:
  const std::uint64_t number_;
  std::vector<at::Tensor> outputs_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
  std::atomic<bool> settled_{false};
  std::string error_;
};

// The names by which users know the collectives: `all_reduce`.
const char* name_of(c10d::OpType op);

// `[ProcessGroup] rank 0: all_reduce failed: <error>`
std::string failure_text(int rank, c10d::OpType op, const std::string& error);

// `2 s`, `250 ms`
std::string duration_text(std::chrono::milliseconds duration);

}  // namespace mmtrain::parallel
