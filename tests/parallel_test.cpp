#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "catch.h"
#include "data_fixtures.h"
#include "mmtrain/core/error.h"
#include "mmtrain/device/thread_limit.h"
#include "mmtrain/parallel/launcher.h"
#include "mmtrain/parallel/process_group.h"
#include "parallel_fixtures.h"
#include "rank_training.h"

extern char** environ;

namespace fs = std::filesystem;
using namespace mmtrain;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;
using fixtures::TempDir;
using parallel::GroupOptions;
using parallel::ProcessGroup;
using parallel::ReduceOp;

namespace {

using Clock = std::chrono::steady_clock;

// Ends the test program where a case hangs.
class Bound {
 public:
  explicit Bound(std::chrono::seconds limit = 240s) : guard_([this, limit] { watch(limit); }) {}
  ~Bound() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    end_.notify_all();
    guard_.join();
  }

 private:
  void watch(std::chrono::seconds limit) {
    std::unique_lock lock(mutex_);
    if (end_.wait_for(lock, limit, [this] { return over_; })) return;
    std::fprintf(stderr, "a test of groups hangs\n");
    std::_Exit(1);
  }

  std::mutex mutex_;
  std::condition_variable end_;
  bool over_ = false;
  std::thread guard_;
};

// What each rank's thread threw, "" for nothing.
std::vector<std::string> run_ranks(std::vector<ProcessGroup>& groups, const std::function<void(ProcessGroup&)>& rank) {
  std::vector<std::string> errors(groups.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    threads.emplace_back([&, i] {
      try {
        rank(groups[i]);
      } catch (const DistributedError& error) {
        errors[i] = error.what();
      } catch (const std::exception& error) {
        errors[i] = std::string("not a DistributedError: ") + error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

std::vector<std::string> no_errors(int ranks) { return std::vector<std::string>(static_cast<std::size_t>(ranks)); }

// A random mixture of collectives that all ranks draw alike, at paces of their own.
void random_walk(ProcessGroup& group, int walk) {
  std::mt19937 plan(static_cast<unsigned>(walk));
  std::mt19937 pace(static_cast<unsigned>(walk * 100 + group.rank()));
  const int ranks = group.world_size();
  for (int i = 0; i < 4; ++i) {
    if (pace() % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(pace() % 300));
    const auto count = static_cast<std::int64_t>(plan() % 4 == 0 ? plan() % 100000 : plan() % 100);
    const torch::Tensor mine = torch::full({count}, group.rank() + 1, torch::kInt32);
    switch (plan() % 4) {
      case 0: {  // several under way at once, awaited in another order
        std::vector<torch::Tensor> tensors;
        std::vector<c10::intrusive_ptr<c10d::Work>> works;
        for (int k = 0; k < 3; ++k) {
          tensors.push_back(mine + k);
          std::vector<torch::Tensor> list = {tensors.back()};
          works.push_back(parallel::c10d_group(group)->allreduce(list));
        }
        for (int k = 2; k >= 0; --k) {
          works[static_cast<std::size_t>(k)]->wait();
          const auto wanted = torch::full({count}, ranks * (ranks + 1) / 2 + ranks * k, torch::kInt32);
          if (!torch::equal(tensors[static_cast<std::size_t>(k)], wanted)) throw Error("wrong sum");
        }
        break;
      }
      case 1:
        group.broadcast({mine}, ranks - 1);
        if (!torch::equal(mine, torch::full({count}, ranks, torch::kInt32))) throw Error("wrong broadcast");
        break;
      case 2:
        if (!torch::equal(group.all_gather(mine).back(), torch::full({count}, ranks, torch::kInt32))) {
          throw Error("wrong all_gather");
        }
        break;
      default:
        group.barrier();
    }
  }
}

// Variables of torchrun while it lives; none of them is set otherwise.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& variables) {
    for (const char* name : kNames) ::unsetenv(name);
    for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const char* name : kNames) ::unsetenv(name);
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  static constexpr const char* kNames[] = {"RANK",
                                           "WORLD_SIZE",
                                           "LOCAL_RANK",
                                           "LOCAL_WORLD_SIZE",
                                           "MASTER_ADDR",
                                           "MASTER_PORT",
                                           "TORCHELASTIC_RESTART_COUNT",
                                           "TORCHELASTIC_USE_AGENT_STORE"};
};

// A port that is taken while it lives.
class TakenPort {
 public:
  TakenPort() : descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    socklen_t size = sizeof address;
    REQUIRE(::bind(descriptor_, reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(descriptor_, 1) == 0);
    REQUIRE(::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    number_ = std::to_string(ntohs(address.sin_port));
  }
  ~TakenPort() { ::close(descriptor_); }
  TakenPort(const TakenPort&) = delete;
  TakenPort& operator=(const TakenPort&) = delete;

  const std::string& number() const { return number_; }

 private:
  int descriptor_;
  std::string number_;
};

std::string free_port() { return TakenPort().number(); }

// tests/tools/parallel_rank.cpp in a process of its own.
class Program {
 public:
  Program(std::vector<std::string> arguments, const std::map<std::string, std::string>& variables) {
    std::vector<std::string> environment;
    for (char** entry = environ; *entry; ++entry) environment.emplace_back(*entry);
    for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);
    arguments.insert(arguments.begin(), PARALLEL_RANK);
    REQUIRE(::posix_spawn(&pid_, PARALLEL_RANK, nullptr, nullptr, pointers(arguments).data(),
                          pointers(environment).data()) == 0);
  }
  ~Program() { stop(); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  pid_t pid() const { return pid_; }

  // The exit code, 128 + signal, or nothing after `limit`.
  std::optional<int> wait(std::chrono::seconds limit = 200s) {
    const auto end = Clock::now() + limit;
    int status = 0;
    while (::waitpid(pid_, &status, WNOHANG) == 0) {
      if (Clock::now() > end) return std::nullopt;
      std::this_thread::sleep_for(10ms);
    }
    pid_ = -1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  static std::vector<char*> pointers(std::vector<std::string>& texts) {
    std::vector<char*> result;
    for (std::string& text : texts) result.push_back(text.data());
    result.push_back(nullptr);
    return result;
  }
  void stop() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  pid_t pid_ = -1;
};

std::string contents(const TempDir& dir, const std::string& name) { return fixtures::read_text(dir.path() / name); }

bool appears(const fs::path& path) {
  for (int i = 0; i < 3000 && !(fs::exists(path) && fs::file_size(path) > 0); ++i) std::this_thread::sleep_for(10ms);
  return fs::exists(path);
}

bool lives(const std::string& pid) { return ::kill(std::stoi(pid), 0) == 0; }

// Runs `mode` on ranks started by `--nproc` and returns the exit code.
std::optional<int> launch(const std::string& ranks, const std::string& mode, const TempDir& dir,
                          const std::map<std::string, std::string>& variables = {}, const std::string& restarts = "0") {
  const Environment none({});
  Program program({"--nproc", ranks, "--max_restarts", restarts, mode, dir.path()}, variables);
  return program.wait();
}

std::map<std::string, std::string> rank_variables(int rank, int world_size, const std::string& port) {
  return {{"RANK", std::to_string(rank)},
          {"WORLD_SIZE", std::to_string(world_size)},
          {"MASTER_ADDR", "127.0.0.1"},
          {"MASTER_PORT", port},
          {"TEST_TIMEOUT_MS", "8000"}};
}

}  // namespace

TEST_CASE("A group of one needs nothing and changes nothing", "[parallel]") {
  ProcessGroup group;
  CHECK(group.rank() == 0);
  CHECK(group.world_size() == 1);
  const torch::Tensor tensor = torch::ones({3});
  group.all_reduce(tensor);
  group.broadcast({tensor});
  group.barrier();
  REQUIRE(group.all_gather(tensor).size() == 1);
  CHECK(torch::equal(group.all_gather(tensor)[0], torch::ones({3})));
  CHECK(torch::equal(tensor, torch::ones({3})));
  group.abort("nobody hears this");
  CHECK(group.first_error().empty());
  group.shutdown();
  CHECK_THROWS_AS(group.broadcast({tensor}, 1), ConfigError);
}

TEST_CASE("Collectives of threads equal the direct computation on every rank", "[parallel][threads]") {
  const Bound bound;
  const int ranks = GENERATE(2, 3, 4);
  auto groups = parallel::make_thread_groups(ranks, {.timeout = 60s});
  std::mutex mutex;
  std::string faults;
  const auto errors = run_ranks(groups, [&](ProcessGroup& group) {
    for (const torch::ScalarType dtype : parallel_fixtures::dtypes()) {
      for (const std::int64_t count : {0, 1, 3, 1001, 32 * 1024, 200003}) {
        const std::string fault = parallel_fixtures::collective_fault(group, count, dtype);
        const std::lock_guard lock(mutex);
        if (!fault.empty()) faults += fault + " of " + std::to_string(count) + " " + c10::toString(dtype) + "\n";
      }
    }
    group.shutdown();
  });
  CHECK(errors == no_errors(ranks));
  CHECK(faults.empty());
}

TEST_CASE("Sums of threads are made in the order of ranks, with equal bits on all", "[parallel][threads]") {
  const Bound bound;
  const std::int64_t count = GENERATE(1001, 500003);
  torch::manual_seed(1);
  const torch::Tensor values = torch::randn({3, count});
  std::vector<torch::Tensor> results(3);
  auto groups = parallel::make_thread_groups(3, {.timeout = 60s});
  const auto errors = run_ranks(groups, [&](ProcessGroup& group) {
    const torch::Tensor mine = values[group.rank()].clone();
    group.all_reduce(mine);
    results[static_cast<std::size_t>(group.rank())] = mine;
  });
  CHECK(errors == no_errors(3));
  const torch::Tensor wanted = values[0] + values[1] + values[2];
  for (const torch::Tensor& result : results) CHECK(torch::equal(result, wanted));
}

TEST_CASE("Collectives take strided tensors, leave versions alone, and sum float16 with one rounding",
          "[parallel][threads]") {
  const Bound bound;
  auto groups = parallel::make_thread_groups(3, {.timeout = 60s});
  const auto errors = run_ranks(groups, [&](ProcessGroup& group) {
    const torch::Tensor base = torch::zeros({4, 6, 2});
    const torch::Tensor strided = base.transpose(0, 1);
    strided.fill_(group.rank() + 1);
    const auto version = base._version();
    const torch::Tensor leaf = torch::ones({5}).set_requires_grad(true);
    group.all_reduce({strided, leaf});
    if (!torch::equal(base, torch::full({4, 6, 2}, 6.f))) throw Error("wrong sum of strided tensors");
    if (base._version() != version || leaf._version() != 0) throw Error("a version changed");
    if (leaf.grad_fn()) throw Error("autograd saw it");
    // 1 + 0.0004 + 0.0004 is 1 where every addition is rounded to float16, 1.001 where the sum is.
    const torch::Tensor half = torch::full({1}, group.rank() == 0 ? 1.0 : 0.0004, torch::kFloat16);
    group.all_reduce(half);
    if (half.item<float>() == 1.f) throw Error("rounded twice");
    const torch::Tensor nan = torch::full({1}, group.rank() == 1 ? NAN : 1.f);
    group.all_reduce(nan, ReduceOp::max);
    if (!nan.isnan().item<bool>()) throw Error("a NaN got lost");
  });
  CHECK(errors == no_errors(3));
}

TEST_CASE("A thousand random orders of collectives end", "[parallel][threads]") {
  const Bound bound;
  int walk = 0;
  for (const int ranks : {2, 3, 4}) {
    auto groups = parallel::make_thread_groups(ranks, {.timeout = 60s});
    const auto errors = run_ranks(groups, [&, first = walk](ProcessGroup& group) {
      for (int i = 0; i < 334; ++i) random_walk(group, first + i);
      group.shutdown();
    });
    REQUIRE(errors == no_errors(ranks));
    walk += 334;
  }
}

TEST_CASE("A thread that does not come makes the others throw within the timeout", "[parallel][threads]") {
  const Bound bound;
  const std::int64_t count = GENERATE(1, 1000000);
  auto groups = parallel::make_thread_groups(3, {.timeout = 1s});
  const auto start = Clock::now();
  const auto errors = run_ranks(groups, [&](ProcessGroup& group) {
    group.barrier();
    if (group.rank() != 2) group.all_reduce(torch::ones({count}));
  });
  CHECK(Clock::now() - start < 10s);
  for (const int rank : {0, 1}) {
    CHECK_THAT(errors[static_cast<std::size_t>(rank)],
               Contains("[rank 2] did not come to collective 2") && Contains("all_reduce") && Contains("1 s"));
  }
  CHECK(errors[2].empty());
  CHECK_THROWS_AS(groups[2].barrier(), DistributedError);  // broken for the late one too
}

TEST_CASE("An aborted group of threads wakes all ranks at once and tells the first error", "[parallel][threads]") {
  const Bound bound;
  auto groups = parallel::make_thread_groups(4, {.timeout = 100s});
  const auto start = Clock::now();
  const auto errors = run_ranks(groups, [&](ProcessGroup& group) {
    group.barrier();
    if (group.rank() < 2) {
      std::this_thread::sleep_for(100ms);
      group.abort(group.rank() == 0 ? "boom" : "bang", c10::Device(c10::kCUDA, 3));
    } else {
      group.all_reduce(torch::ones({1 << 20}));
    }
  });
  CHECK(Clock::now() - start < 50s);
  const std::string first = groups[0].first_error();
  CHECK((first == "[rank 0, cuda:3] boom" || first == "[rank 1, cuda:3] bang"));
  for (const std::size_t rank : {2u, 3u}) CHECK_THAT(errors[rank], Contains(first));
  for (ProcessGroup& group : groups) {
    CHECK(group.first_error() == first);
    CHECK_THROWS_AS(group.all_reduce(torch::ones({1})), DistributedError);
    CHECK_NOTHROW(group.shutdown());
  }
}

TEST_CASE("Threads that call different collectives learn of it", "[parallel][threads]") {
  const Bound bound;
  auto groups = parallel::make_thread_groups(2, {.timeout = 100s});
  const auto errors =
      run_ranks(groups, [&](ProcessGroup& group) { group.all_reduce(torch::ones({group.rank() == 0 ? 4 : 5})); });
  for (const std::string& error : errors) {
    CHECK_THAT(error, Contains("all_reduce of 4 Float") && Contains("all_reduce of 5 Float"));
  }
}

TEST_CASE("A rank that leaves without shutdown, or a group shut down, ends collectives", "[parallel][threads]") {
  const Bound bound;
  auto groups = parallel::make_thread_groups(2, {.timeout = 100s});
  const auto errors = run_ranks(groups, [&](ProcessGroup& group) {
    if (group.rank() == 0) group.barrier();
    if (group.rank() == 1) group = ProcessGroup();
  });
  CHECK_THAT(errors[0], Contains("[rank 1] left the group without shutdown"));

  auto others = parallel::make_thread_groups(2, {.timeout = 100s});
  CHECK(run_ranks(others, [](ProcessGroup& group) { group.shutdown(); }) == no_errors(2));
  CHECK_THROWS_WITH(others[0].barrier(), Contains("shut down"));
  CHECK_THROWS_AS(parallel::make_thread_groups(0), ConfigError);
  CHECK_THROWS_AS(parallel::make_thread_groups(2, {.timeout = 0ms}), ConfigError);
}

TEST_CASE("LibTorch's Reducer over threads equals one device on the joined batch", "[parallel][threads]") {
  const Bound bound;
  const int ranks = GENERATE(2, 3, 4);
  auto groups = parallel::make_thread_groups(ranks, {.timeout = 60s});
  std::vector<torch::Tensor> parameters(static_cast<std::size_t>(ranks));
  const auto errors = run_ranks(groups, [&](ProcessGroup& group) {
    parameters[static_cast<std::size_t>(group.rank())] = parallel_fixtures::train_in(group);
  });
  REQUIRE(errors == no_errors(ranks));
  const torch::Tensor alone = parallel_fixtures::train_alone();
  for (const torch::Tensor& each : parameters) {
    CHECK(torch::equal(each, parameters[0]));
    CHECK((each - alone).abs().max().item<double>() < 1e-10);
  }
}

TEST_CASE("A rank lost in backward ends the others' backward with its error", "[parallel][threads]") {
  const Bound bound;
  auto groups = parallel::make_thread_groups(2, {.timeout = 100s});
  const auto errors = run_ranks(groups, [&](ProcessGroup& group) {
    parallel_fixtures::ReducedNet net(group);
    const parallel_fixtures::Joined batch(0);
    net.train(batch.part(group.rank(), 2));
    if (group.rank() == 1) return group.abort("out of memory");
    net.train(batch.part(0, 2));
  });
  CHECK_THAT(errors[0], Contains("[rank 1] out of memory"));
}

TEST_CASE("Without the launcher's variables a process is a group of one", "[parallel][processes]") {
  {
    const Environment none({});
    CHECK(parallel::init_from_env().world_size() == 1);
    CHECK_FALSE(parallel::is_launched());
  }
  const Environment one({{"RANK", "0"}, {"WORLD_SIZE", "1"}});
  CHECK(parallel::init_from_env().world_size() == 1);
  CHECK(parallel::is_launched());
}

TEST_CASE("Impossible variables are refused", "[parallel][processes]") {
  const auto refuses = [](const std::map<std::string, std::string>& variables, const std::string& text) {
    const Environment environment(variables);
    CHECK_THROWS_AS(parallel::init_from_env({.timeout = 1s}), ConfigError);
    CHECK_THROWS_WITH(parallel::init_from_env({.timeout = 1s}), Contains(text));
  };
  refuses({{"RANK", "0"}}, "WORLD_SIZE");
  refuses({{"WORLD_SIZE", "2"}}, "RANK");
  refuses({{"RANK", "2"}, {"WORLD_SIZE", "2"}}, "RANK must be a number from 0 to 1, got '2'");
  refuses({{"RANK", "x"}, {"WORLD_SIZE", "2"}}, "got 'x'");
  refuses({{"RANK", "0"}, {"WORLD_SIZE", "2"}}, "MASTER_ADDR");
  refuses({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}}, "MASTER_PORT");
  auto variables = rank_variables(0, 2, "70000");
  refuses(variables, "70000");
  variables["MASTER_PORT"] = "29500";
  variables["LOCAL_RANK"] = "3";
  refuses(variables, "LOCAL_RANK");
}

TEST_CASE("A port in use, a missing rank and a missing store are named within the timeout", "[parallel][processes]") {
  const Bound bound;
  const auto fails = [](const std::map<std::string, std::string>& variables, const std::string& text) {
    const Environment environment(variables);
    CHECK_THROWS_AS(parallel::init_from_env({.timeout = 1s}), DistributedError);
    CHECK_THROWS_WITH(parallel::init_from_env({.timeout = 1s}), Contains(text));
  };
  const TakenPort taken;
  fails(rank_variables(0, 2, taken.number()), "MASTER_PORT " + taken.number());
  fails(rank_variables(0, 3, free_port()), "rank 1, 2 did not come within 1 s");
  fails(rank_variables(1, 2, free_port()), "is rank 0 running");
}

TEST_CASE("Processes that disagree on their number, or share a rank, learn of it", "[parallel][processes]") {
  const Bound bound;
  const TempDir dir;
  const Environment none({});
  SECTION("number") {
    const std::string port = free_port();
    Program first({"work", dir.path()}, rank_variables(0, 2, port));
    Program second({"work", dir.path()}, rank_variables(1, 3, port));
    CHECK(first.wait() == 1);
    CHECK(second.wait() == 1);
    CHECK_THAT(contents(dir, "error.0") + contents(dir, "error.1"),
               Contains("has WORLD_SIZE 3, another rank has 2") || Contains("has WORLD_SIZE 2, another rank has 3"));
  }
  SECTION("rank") {
    const std::string port = free_port();
    Program first({"work", dir.path()}, rank_variables(0, 3, port));
    Program second({"work", dir.path()}, rank_variables(1, 3, port));
    Program third({"work", dir.path()}, rank_variables(1, 3, port));
    CHECK(first.wait() == 1);
    CHECK(second.wait() == 1);
    CHECK(third.wait() == 1);
    CHECK_THAT(contents(dir, "error.0"), Contains("rank 2 did not come"));
  }
}

TEST_CASE("Processes without a launcher meet, work and part", "[parallel][processes]") {
  const Bound bound;
  const TempDir dir;
  const Environment none({});
  const std::string port = free_port();
  auto variables = rank_variables(0, 2, port);
  variables["TEST_TIMEOUT_MS"] = "60000";
  Program first({"collectives", dir.path()}, variables);
  variables["RANK"] = "1";
  Program second({"collectives", dir.path()}, variables);
  CHECK(first.wait() == 0);
  CHECK(second.wait() == 0);
  CHECK(contents(dir, "faults.0").empty());
}

TEST_CASE("Collectives of processes equal the direct computation on every rank", "[parallel][processes]") {
  const Bound bound;
  const std::string ranks = GENERATE("2", "3");
  const TempDir dir;
  REQUIRE(launch(ranks, "collectives", dir) == 0);
  for (int rank = 0; rank < std::stoi(ranks); ++rank) {
    REQUIRE(fs::exists(dir.path() / ("faults." + std::to_string(rank))));
    CHECK(contents(dir, "faults." + std::to_string(rank)) == "");
  }
}

TEST_CASE("LibTorch's Reducer over processes equals one device on the joined batch", "[parallel][processes]") {
  const Bound bound;
  const std::string ranks = GENERATE("2", "3");
  const TempDir dir;
  REQUIRE(launch(ranks, "train", dir) == 0);
  std::vector<torch::Tensor> parameters(static_cast<std::size_t>(std::stoi(ranks)));
  for (std::size_t rank = 0; rank < parameters.size(); ++rank) {
    torch::load(parameters[rank], (dir.path() / ("parameters." + std::to_string(rank))).string());
    CHECK(torch::equal(parameters[rank], parameters[0]));
  }
  CHECK((parameters[0] - parallel_fixtures::train_alone()).abs().max().item<double>() < 1e-10);
}

TEST_CASE("Processes, and threads in processes, train as one device on the joined batch", "[parallel][processes]") {
  const Bound bound;
  struct Shape {
    int processes, threads;
  };
  const Shape shape = GENERATE(Shape{2, 1}, Shape{3, 1}, Shape{2, 2});
  const TempDir dir;
  REQUIRE(launch(std::to_string(shape.processes), "train_steps", dir,
                 {{"TEST_THREADS", std::to_string(shape.threads)}}) == 0);
  const int ranks = shape.processes * shape.threads;
  CAPTURE(shape.processes, shape.threads);
  std::vector<torch::Tensor> expected, by_threads;
  for (rank_training::Setting setting : rank_training::settings_of_processes()) {
    for (torch::Tensor& tensor : rank_training::train_alone(setting)) expected.push_back(tensor);
    auto groups = parallel::make_thread_groups(ranks, {.timeout = 60s});
    std::vector<rank_training::Net> nets;
    for (int rank = 0; rank < ranks; ++rank) nets.push_back(rank_training::make_net(setting.dropout));
    std::vector<std::vector<torch::Tensor>> trained(static_cast<std::size_t>(ranks));
    REQUIRE(run_ranks(groups, [&](ProcessGroup& group) {
              const ThreadLimit limit(1);  // as in the processes: sums of parts round otherwise
              const auto rank = static_cast<std::size_t>(group.rank());
              trained[rank] = rank_training::train_rank(setting, group, nets[rank]);
              group.shutdown();
            }) == no_errors(ranks));
    for (torch::Tensor& tensor : trained[0]) by_threads.push_back(tensor);
  }
  std::vector<torch::Tensor> first;
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<torch::Tensor> trained;
    torch::load(trained, (dir.path() / ("trained." + std::to_string(rank))).string());
    if (rank == 0) first = trained;
    CHECK(rank_training::difference(trained, first) == 0);
    CHECK(rank_training::difference(trained, expected) < 1e-10);
    // Two numbers have one sum; of more, orders of addition differ.
    CHECK(rank_training::difference(trained, by_threads) <= (ranks == 2 ? 0 : 1e-10));
  }
}

TEST_CASE("Collectives of threads in processes equal the direct computation on every rank", "[parallel][processes]") {
  const Bound bound;
  const std::string threads = GENERATE("2", "3");
  const TempDir dir;
  REQUIRE(launch("2", "collectives_of_threads", dir, {{"TEST_THREADS", threads}}) == 0);
  for (const char* name : {"faults.0", "faults.1"}) {
    REQUIRE(fs::exists(dir.path() / name));
    CHECK(contents(dir, name) == "");
  }
}

TEST_CASE("What happens to one thread of one process ends all, by its error", "[parallel][processes]") {
  const Bound bound;
  const TempDir dir;
  CHECK(launch("2", "lose_thread", dir, {{"TEST_THREADS", "2"}}) == 1);
  CHECK(contents(dir, "error.1") == "own trouble");
  CHECK_THAT(contents(dir, "error.0"), Contains("[rank 3, cpu] own trouble"));
  // Without a launcher, which would end the others before they have found out.
  const TempDir other;
  const Environment none({});
  auto variables = rank_variables(0, 2, free_port());
  variables["TEST_THREADS"] = "2";
  variables["TEST_TIMEOUT_MS"] = "60000";
  Program first({"threads_killed", other.path()}, variables);
  variables["RANK"] = "1";
  Program second({"threads_killed", other.path()}, variables);
  CHECK(second.wait() == 137);
  CHECK(first.wait() == 1);
  CHECK_THAT(contents(other, "error.0"), Contains("[rank 2-3] does not answer any more"));
}

TEST_CASE("A lost process ends the others with one clear error that names it", "[parallel][processes]") {
  const Bound bound;
  struct Loss {
    const char *ranks, *mode;
    int exit_code;
    const char* text;
  };
  const Loss loss = GENERATE(Loss{"3", "killed", 137, "[rank 1] does not answer any more"},
                             Loss{"2", "killed", 137, "[rank 1] does not answer any more"},
                             Loss{"3", "exits", 7, "[rank 1] does not answer any more"},
                             Loss{"3", "stopped", 1, "[rank 1] does not answer any more"},
                             Loss{"3", "silent", 1, "[rank 1] did not come to collective 2"},
                             Loss{"3", "aborts", 1, "[rank 1, cpu] boom"},
                             Loss{"3", "leaves", 1, "[rank 1] left the group without shutdown"});
  CAPTURE(loss.ranks, loss.mode);
  const TempDir dir;
  // The launcher shall not end the others before they have found out by themselves.
  const bool patient = std::string(loss.mode) == "killed" || std::string(loss.mode) == "exits";
  const std::map<std::string, std::string> variables = {{"TEST_TIMEOUT_MS", patient ? "60000" : "8000"}};
  const Environment none({});
  if (!patient) {
    CHECK(launch(loss.ranks, loss.mode, dir, variables) == loss.exit_code);
  } else {
    auto each = rank_variables(0, std::stoi(loss.ranks), free_port());
    each["TEST_TIMEOUT_MS"] = "60000";
    std::vector<std::unique_ptr<Program>> programs;
    for (int rank = 0; rank < std::stoi(loss.ranks); ++rank) {
      each["RANK"] = std::to_string(rank);
      programs.push_back(std::make_unique<Program>(std::vector<std::string>{loss.mode, dir.path()}, each));
    }
    for (std::size_t rank = 0; rank < programs.size(); ++rank) {
      CHECK(programs[rank]->wait() == (rank == 1 ? loss.exit_code : 1));
    }
  }
  for (int rank = 0; rank < std::stoi(loss.ranks); ++rank) {
    if (rank != 1) CHECK_THAT(contents(dir, "error." + std::to_string(rank)), Contains(loss.text));
  }
}

TEST_CASE("A process that serves the store may be lost as well", "[parallel][processes]") {
  const Bound bound;
  const TempDir dir;
  const Environment none({});
  auto variables = rank_variables(0, 2, free_port());
  variables["TEST_TIMEOUT_MS"] = "60000";
  auto first = std::make_unique<Program>(std::vector<std::string>{"silent", dir.path()}, variables);
  variables["RANK"] = "1";
  Program second({"silent", dir.path()}, variables);  // sleeps; its watcher sees the store go
  std::this_thread::sleep_for(3s);
  first.reset();  // SIGKILL
  CHECK(second.wait() == 1);
  CHECK_THAT(contents(dir, "error.1"), Contains("the process that served it has ended"));
}

TEST_CASE("After a loss all ranks start again and meet under keys of their own", "[parallel][launcher]") {
  const Bound bound;
  const TempDir dir;
  CHECK(launch("2", "killed", dir, {}, "1") == 0);
  CHECK(contents(dir, "done.0") == "1");
  CHECK(contents(dir, "done.1") == "1");
  const TempDir again;
  CHECK(launch("2", "killed", again, {}, "0") == 137);
  CHECK_FALSE(fs::exists(again.path() / "done.0"));
}

TEST_CASE("The launcher passes signals on, gives one exit code and leaves no rank", "[parallel][launcher]") {
  const Bound bound;
  const TempDir dir;
  const Environment none({});
  const int signal = GENERATE(SIGTERM, SIGINT);
  Program program({"--nproc", "2", "--max_restarts", "3", "waits", dir.path()}, {});
  REQUIRE(appears(dir.path() / "pid.0"));
  REQUIRE(appears(dir.path() / "pid.1"));
  ::kill(program.pid(), signal);
  CHECK(program.wait() == 143);
  CHECK(contents(dir, "asked.0") == "1");
  CHECK(contents(dir, "asked.1") == "1");
  CHECK_FALSE(lives(contents(dir, "pid.0")));
  CHECK_FALSE(lives(contents(dir, "pid.1")));
}

TEST_CASE("A rank that ignores SIGTERM is killed after the grace period", "[parallel][launcher]") {
  const Bound bound;
  const TempDir dir;
  CHECK(launch("2", "stubborn", dir, {{"TEST_GRACE_MS", "700"}}) == 5);
  CHECK(contents(dir, "pid.0").empty() == false);
  CHECK_FALSE(lives(contents(dir, "pid.0")));
}

TEST_CASE("Ranks die with their launcher", "[parallel][launcher]") {
  const Bound bound;
  const TempDir dir;
  const Environment none({});
  Program program({"--nproc", "2", "--max_restarts", "0", "waits", dir.path()}, {});
  REQUIRE(appears(dir.path() / "pid.0"));
  REQUIRE(appears(dir.path() / "pid.1"));
  ::kill(program.pid(), SIGKILL);
  CHECK(program.wait() == 137);
  for (const char* name : {"pid.0", "pid.1"}) {
    const std::string pid = contents(dir, name);
    for (int i = 0; i < 500 && lives(pid); ++i) std::this_thread::sleep_for(10ms);
    CHECK_FALSE(lives(pid));
  }
}

TEST_CASE("Launch flags are removed from the ranks' arguments", "[parallel][launcher]") {
  using Arguments = std::vector<std::string>;
  CHECK(parallel::without_launch_flags({"p", "--nproc", "2", "--lr=1", "--max_restarts=3", "--nproc=4", "x"}) ==
        Arguments{"p", "--lr=1", "x"});
  CHECK(parallel::without_launch_flags({"p", "--nproc_other", "2"}) == Arguments{"p", "--nproc_other", "2"});
  CHECK_THROWS_AS(parallel::launch({.nproc = 0}, {"p"}), ConfigError);
  CHECK_THROWS_AS(parallel::launch({.max_restarts = -1}, {"p"}), ConfigError);
}
