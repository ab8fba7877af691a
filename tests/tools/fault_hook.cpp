// A fault in the middle of training, from outside: preloaded into a program (LD_PRELOAD), this library stands before
// LibTorch's cross entropy, which every rank calls once for each batch of training and validation.
//
//   MMTRAIN_FAULT="KIND RANK CALL"   in call CALL (from 1) of that rank; only in the first attempt of a restarted job
//
// Thread ranks are numbered in the order of their first call. For the kinds see `strike`.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/batch_norm_ops.h>
#include <ATen/ops/cross_entropy_loss_ops.h>
#include <ATen/ops/empty.h>
#include <signal.h>
#include <torch/types.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

using torch::Tensor;

int number_in_environment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::atoi(text) : otherwise;
}

struct Fault {
  Fault() {
    const char* text = std::getenv("MMTRAIN_FAULT");
    if (text == nullptr || number_in_environment("TORCHELASTIC_RESTART_COUNT", 0) > 0) return;
    std::istringstream(text) >> kind >> rank >> call;
  }
  std::string kind;
  int rank = -1, call = -1;
};

const Fault& fault() {
  static const Fault instance;
  return instance;
}

int rank_of_this_thread() {
  static const int of_process = number_in_environment("RANK", -1);
  if (of_process >= 0) return of_process;
  static std::atomic<int> threads{0};
  static thread_local const int of_thread = threads++;
  return of_thread;
}

void fail() { throw std::runtime_error("the planted fault"); }
void kill_process() { ::raise(SIGKILL); }
// More than any machine has: what LibTorch's own allocator then throws.
void run_out_of_memory() { at::empty({std::int64_t{1} << 50}); }
void sleep_forever() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

void in_backward(const Tensor& loss, void (*happen)()) {
  if (!loss.requires_grad()) return happen();  // validation has no backward pass
  loss.register_hook([happen](const Tensor&) -> Tensor {
    happen();
    return {};
  });
}

void strike(const std::string& kind, const Tensor& loss) {
  if (kind == "kill") kill_process();
  if (kind == "kill_backward") in_backward(loss, kill_process);
  if (kind == "stop") ::raise(SIGSTOP);  // the process stays, and does nothing
  if (kind == "hang") sleep_forever();   // this thread alone
  if (kind == "hang_backward") in_backward(loss, sleep_forever);
  if (kind == "term") ::kill(::getpid(), SIGTERM);
  if (kind == "exit") std::_Exit(0);  // as if all were done
  if (kind == "throw") fail();
  if (kind == "throw_backward") in_backward(loss, fail);
  if (kind == "memory") run_out_of_memory();
  if (kind == "memory_backward") in_backward(loss, run_out_of_memory);
}

}  // namespace

// There is an operator called `std`.
namespace at::_ops {

Tensor cross_entropy_loss::call(const Tensor& self, const Tensor& target, const ::std::optional<Tensor>& weight,
                                ::std::int64_t reduction, c10::SymInt ignore_index, double label_smoothing) {
  static const auto stock = c10::Dispatcher::singleton().findSchemaOrThrow(name, overload_name).typed<schema>();
  const Tensor loss = stock.call(self, target, weight, reduction, ::std::move(ignore_index), label_smoothing);
  static thread_local int calls = 0;
  if (rank_of_this_thread() == fault().rank && ++calls == fault().call) strike(fault().kind, loss);
  return loss;
}

// KIND "unused": the shifts of batch normalization get no gradient on that rank.
Tensor batch_norm::call(const Tensor& input, const ::std::optional<Tensor>& weight, const ::std::optional<Tensor>& bias,
                        const ::std::optional<Tensor>& running_mean, const ::std::optional<Tensor>& running_var,
                        bool training, double momentum, double eps, bool cudnn_enabled) {
  static const auto stock = c10::Dispatcher::singleton().findSchemaOrThrow(name, overload_name).typed<schema>();
  const bool cut = fault().kind == "unused" && rank_of_this_thread() == fault().rank && bias && bias->defined();
  return stock.call(input, weight, cut ? bias->detach() : bias, running_mean, running_var, training, momentum, eps,
                    cudnn_enabled);
}

}  // namespace at::_ops
