// One rank of a group of processes, for parallel_test:
//   parallel_rank [--nproc N [--max_restarts K]] MODE DIR
// What a rank finds goes to DIR/<name>.<rank>; errors of the group to DIR/error.<rank>, with exit code 1.
#include <signal.h>
#include <torch/torch.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/parallel/launcher.h"
#include "mmtrain/parallel/strategy.h"
#include "parallel_fixtures.h"
#include "rank_training.h"
#include "tsan_suppressions.h"

using namespace mmtrain;
using parallel::ProcessGroup;

namespace {

std::string directory;

std::string variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}

void say(const std::string& name, const std::string& text) {
  std::ofstream(directory + "/" + name + "." + variable("RANK", "none")) << text;
}

void sleep_for(std::chrono::milliseconds duration) { std::this_thread::sleep_for(duration); }

void work_on(ProcessGroup& group) {
  for (int i = 0; i < 200; ++i) {
    const torch::Tensor ones = torch::ones({1000});
    group.all_reduce(ones);
    if (!torch::equal(ones, torch::full({1000}, 1.0 * group.world_size()))) throw Error("wrong sum");
  }
}

void collectives(ProcessGroup& group) {
  std::string faults;
  for (const torch::ScalarType dtype : parallel_fixtures::dtypes()) {
    for (const std::int64_t count : {0, 1, 3, 1001, 70001}) {
      const std::string fault = parallel_fixtures::collective_fault(group, count, dtype);
      if (!fault.empty()) faults += fault + " of " + std::to_string(count) + " " + c10::toString(dtype) + "\n";
    }
  }
  say("faults", faults);
}

// Threads of this process, as the variable TEST_THREADS says, each a rank among those of all processes.
void on_threads(ProcessGroup& processes, const std::function<void(ProcessGroup)>& rank) {
  const auto threads = static_cast<std::size_t>(std::stoi(variable("TEST_THREADS", "1")));
  parallel::ReplicaStrategy strategy(std::vector<c10::Device>(threads, c10::Device(c10::kCPU)),
                                     {.timeout = processes.timeout()}, 1, processes);
  strategy.run([&](std::size_t i) { rank(strategy.ranks()[i].group); });
  strategy.shutdown();
}

void collectives_of_threads(ProcessGroup& processes) {
  std::mutex mutex;
  std::string faults;
  on_threads(processes, [&](ProcessGroup group) {
    for (const torch::ScalarType dtype : parallel_fixtures::dtypes()) {
      for (const std::int64_t count : {0, 1, 3, 1001, 70001}) {
        const std::string fault = parallel_fixtures::collective_fault(group, count, dtype);
        const std::lock_guard lock(mutex);
        if (!fault.empty()) faults += fault + " of " + std::to_string(count) + " " + c10::toString(dtype) + "\n";
      }
    }
  });
  say("faults", faults);
}

// DIR/trained.<rank>: what `rank_training` gives for each of its settings.
void train_steps(ProcessGroup& processes) {
  std::mutex mutex;  // nets are made one after the other: they draw from one generator
  on_threads(processes, [&](ProcessGroup group) {
    std::vector<torch::Tensor> results;
    for (const rank_training::Setting& setting : rank_training::settings_of_processes()) {
      std::unique_lock lock(mutex);
      const rank_training::Net net = rank_training::make_net(setting.dropout);
      lock.unlock();
      for (torch::Tensor& tensor : rank_training::train_rank(setting, group, net)) results.push_back(tensor);
    }
    torch::save(results, directory + "/trained." + std::to_string(group.rank()));
  });
}

// Thread 1 of process 1 fails while the others wait for it.
void lose_thread(ProcessGroup& processes) {
  on_threads(processes, [](ProcessGroup group) {
    group.barrier();
    if (group.rank() == 3) throw Error("own trouble");
    work_on(group);
  });
}

void train(ProcessGroup& group) {
  torch::save(parallel_fixtures::train_in(group), directory + "/parameters." + std::to_string(group.rank()));
}

// Rank 1 goes `how` in the first attempt while the others work; a later attempt runs to its end.
void lose_rank_1(ProcessGroup& group, const std::function<void()>& how) {
  group.barrier();
  if (group.rank() == 1 && variable("TORCHELASTIC_RESTART_COUNT", "0") == "0") how();
  work_on(group);
  say("done", variable("TORCHELASTIC_RESTART_COUNT", "0"));
}

const std::map<std::string, std::function<void(ProcessGroup&)>> modes = {
    {"collectives", collectives},
    {"train", train},
    {"collectives_of_threads", collectives_of_threads},
    {"train_steps", train_steps},
    {"lose_thread", lose_thread},
    {"threads_killed",
     [](ProcessGroup& processes) {
       on_threads(processes, [](ProcessGroup group) {
         group.barrier();
         if (group.rank() == 2) ::raise(SIGKILL);
         work_on(group);
       });
     }},
    {"work", [](ProcessGroup& group) { work_on(group); }},
    {"killed", [](ProcessGroup& group) { lose_rank_1(group, [] { ::raise(SIGKILL); }); }},
    {"stopped", [](ProcessGroup& group) { lose_rank_1(group, [] { ::raise(SIGSTOP); }); }},
    {"silent", [](ProcessGroup& group) { lose_rank_1(group, [] { sleep_for(std::chrono::seconds(20)); }); }},
    {"exits", [](ProcessGroup& group) { lose_rank_1(group, [] { std::_Exit(7); }); }},
    {"aborts", [](ProcessGroup& group) { lose_rank_1(group, [&] { group.abort("boom", c10::Device(c10::kCPU)); }); }},
    {"leaves", [](ProcessGroup& group) { lose_rank_1(group, [] { throw Error("own trouble"); }); }},
};

volatile std::sig_atomic_t asked = 0;

// Without a group: how ranks and launcher treat signals.
int wait_for_signal(bool obey) {
  ::signal(SIGTERM, [](int) { asked = 1; });
  ::signal(SIGINT, [](int) { asked = 1; });
  say("pid", std::to_string(::getpid()));
  for (int i = 0; i < 3000 && !(asked && obey); ++i) sleep_for(std::chrono::milliseconds(10));
  if (!asked) return 99;
  say("asked", "1");
  return 143;
}

// Rank 0 does not end when it is asked to; rank 1 fails when that one is there.
int stubborn() {
  if (variable("RANK", "0") == "0") return wait_for_signal(false);
  while (!std::filesystem::exists(directory + "/pid.0")) sleep_for(std::chrono::milliseconds(10));
  return 5;
}

int run_rank(const std::string& mode) {
  if (mode == "waits") return wait_for_signal(true);
  if (mode == "stubborn") return stubborn();
  try {
    ProcessGroup group = parallel::init_from_env(
        {.timeout = std::chrono::milliseconds(std::stoi(variable("TEST_TIMEOUT_MS", "60000")))});
    modes.at(mode)(group);
    group.shutdown();
    return 0;
  } catch (const std::exception& error) {
    say("error", error.what());
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv, argv + argc);
  const std::vector<std::string> rest = parallel::without_launch_flags(arguments);
  directory = rest.at(2);
  if (parallel::is_launched()) return run_rank(rest.at(1));
  parallel::LaunchOptions options;
  options.nproc = std::stoi(arguments.at(2));
  if (arguments.at(3) == "--max_restarts") options.max_restarts = std::stoi(arguments.at(4));
  options.grace = std::chrono::milliseconds(std::stoi(variable("TEST_GRACE_MS", "5000")));
  return parallel::launch(options, arguments);
}
