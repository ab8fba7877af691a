#include "mmtrain/train/signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace mmtrain {
namespace {

std::atomic<int> received_signal{0};
struct sigaction former_int, former_term;

void remember(int signal) {
  int none = 0;
  if (!received_signal.compare_exchange_strong(none, signal)) _exit(128 + signal);
}

}  // namespace

StopSignals::StopSignals() {
  received_signal = 0;
  struct sigaction action = {};
  action.sa_handler = remember;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;  // system calls of the loaders go on
  sigaction(SIGINT, &action, &former_int);
  sigaction(SIGTERM, &action, &former_term);
}

StopSignals::~StopSignals() {
  sigaction(SIGINT, &former_int, nullptr);
  sigaction(SIGTERM, &former_term, nullptr);
  received_signal = 0;
}

int StopSignals::received() { return received_signal; }

}  // namespace mmtrain
