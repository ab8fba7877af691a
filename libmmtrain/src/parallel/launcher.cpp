#include "mmtrain/parallel/launcher.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "core/posix.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/device/device.h"
#include "parallel/failure_board.h"
#include "parallel/rendezvous.h"

extern char** environ;

namespace mmtrain::parallel {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kStoreTimeout{60};
constexpr std::array<std::string_view, 2> kFlags = {"--nproc", "--max_restarts"};

// Keeps signals for `wait_for_signal` while it lives, and threads that start meanwhile from getting them.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigemptyset(&blocked_);
    for (const int signal : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&blocked_, signal);
    pthread_sigmask(SIG_BLOCK, &blocked_, &former_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &former_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

  // The next signal, or 0 after `patience`.
  int wait_for_signal(std::chrono::milliseconds patience) const {
    const timespec time = {patience.count() / 1000, patience.count() % 1000 * 1000000};
    const int signal = sigtimedwait(&blocked_, nullptr, &time);
    return signal > 0 ? signal : 0;
  }
  const sigset_t& former() const { return former_; }

 private:
  sigset_t blocked_, former_;
};

using Variables = std::vector<std::pair<std::string, std::string>>;

// The environment of this process with some variables set.
std::vector<std::string> environment_with(const Variables& variables) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry; ++entry) {
    const std::string_view text(*entry);
    const std::string_view name = text.substr(0, text.find('='));
    const bool replaced =
        std::any_of(variables.begin(), variables.end(), [&](const auto& each) { return each.first == name; });
    if (!replaced) environment.emplace_back(text);
  }
  for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);
  return environment;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

struct Rank {
  pid_t pid = -1;
  std::optional<int> status;  // of waitpid, once it has ended

  bool ended() const { return status.has_value(); }
  bool failed() const { return ended() && *status != 0; }
  int exit_code() const { return WIFSIGNALED(*status) ? 128 + WTERMSIG(*status) : WEXITSTATUS(*status); }
};

std::string how_it_ended(const Rank& rank) {
  if (WIFSIGNALED(*rank.status)) {
    return fmt::format("was killed by signal {} ({})", WTERMSIG(*rank.status), ::strsignal(WTERMSIG(*rank.status)));
  }
  return fmt::format("ended with exit code {}", rank.exit_code());
}

// The ranks of one attempt. None of them outlives it.
class Ranks {
 public:
  Ranks(std::vector<std::string> arguments, const BlockedSignals& signals)
      : arguments_(std::move(arguments)), signals_(signals) {}
  ~Ranks() {
    send(SIGKILL);
    for (Rank& rank : ranks_) reap(rank, 0);
  }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  void start(const Variables& variables) {
    std::vector<std::string> environment = environment_with(variables);
    const std::vector<char*> argv = pointers_to(arguments_), envp = pointers_to(environment);
    const pid_t launcher = ::getpid();
    const pid_t pid = ::fork();
    if (pid == 0) become_rank(launcher, argv.data(), envp.data());
    if (pid < 0) {
      throw DistributedError(fmt::format("[launch] the system starts no process: {}", detail::errno_text(errno)));
    }
    ::setpgid(pid, pid);
    ranks_.push_back({.pid = pid, .status = std::nullopt});
  }

  // Signals reach the processes that a rank started as well.
  void send(int signal) {
    for (const Rank& rank : ranks_) {
      if (!rank.ended()) ::kill(-rank.pid, signal);
    }
  }

  void reap_ended() {
    for (Rank& rank : ranks_) reap(rank, WNOHANG);
  }

  bool all_ended() const {
    return std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.ended(); });
  }
  int size() const { return static_cast<int>(ranks_.size()); }
  bool any_ended() const {
    return std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.ended(); });
  }

  // A rank that failed, one that died of a signal before those that may have failed because of it; -1 if none did.
  int failed() const {
    int found = -1;
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      if (!ranks_[i].failed()) continue;
      if (WIFSIGNALED(*ranks_[i].status)) return static_cast<int>(i);
      if (found < 0) found = static_cast<int>(i);
    }
    return found;
  }

  const Rank& operator[](int rank) const { return ranks_[static_cast<std::size_t>(rank)]; }

 private:
  // Between fork and exec of a process that may have threads: system calls only.
  [[noreturn]] void become_rank(pid_t launcher, char* const* argv, char* const* envp) const {
    ::setpgid(0, 0);  // a terminal's Ctrl-C then comes through the launcher, once
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != launcher) ::_exit(1);  // it died before prctl
    pthread_sigmask(SIG_SETMASK, &signals_.former(), nullptr);
    ::execve("/proc/self/exe", argv, envp);
    ::_exit(127);
  }

  static void reap(Rank& rank, int options) {
    int status = 0;
    if (rank.ended()) return;
    pid_t pid = 0;
    while ((pid = ::waitpid(rank.pid, &status, options)) < 0 && errno == EINTR) continue;
    if (pid == rank.pid) rank.status = status;
    if (pid < 0) rank.status = 1 << 8;  // exit code 1: someone else has waited for it
  }

  std::vector<std::string> arguments_;
  const BlockedSignals& signals_;
  std::vector<Rank> ranks_;
};

struct Outcome {
  int exit_code = 0;
  bool signalled = false;  // by the user
};

// One attempt, watched from its start to its end. In `store` ranks say whose failure ended them.
class Attempt {
 public:
  Attempt(Ranks& ranks, c10::intrusive_ptr<c10d::Store> store, const BlockedSignals& signals,
          std::chrono::milliseconds grace)
      : ranks_(ranks), store_(std::move(store)), signals_(signals), grace_(grace) {}

  Outcome run() {
    while (!ranks_.all_ended()) {
      pass_on(signals_.wait_for_signal(std::chrono::milliseconds(100)));
      ranks_.reap_ended();
      note_first_failure();
      end_if_due();
    }
    note_first_failure();  // nobody is left to wait for
    return outcome_;
  }

 private:
  void pass_on(int signal) {
    if (signal != SIGINT && signal != SIGTERM) return;
    outcome_.signalled = true;
    ranks_.send(signal);
  }

  void note_first_failure() {
    int rank = ranks_.failed();
    if (rank < 0 || outcome_.exit_code != 0) return;
    if (!first_failure_) first_failure_ = Clock::now();
    const auto [culprit, confessed, cause] = FailureBoard::first_failure(*store_);
    const int to_blame = culprit.value_or(rank);
    if (to_blame < ranks_.size() && to_blame != rank && !outcome_.signalled) {
      // It comes to its own end, with an exit code that says more.
      if (confessed && !ranks_[to_blame].ended() && Clock::now() < *first_failure_ + grace_) return;
      if (ranks_[to_blame].failed()) rank = to_blame;
    }
    outcome_.exit_code = ranks_[rank].exit_code();
    if (outcome_.signalled) return;  // they end as they were asked to
    log::error(fmt::format("[launch] rank {} {}, the others are ended{}", rank, how_it_ended(ranks_[rank]),
                           cause.empty() ? "" : "; the first error was: " + cause.substr(0, cause.find('\n'))));
    ranks_.send(SIGTERM);
    kill_time_ = Clock::now() + grace_;
  }

  void end_if_due() {
    if (!kill_time_ && outcome_.signalled && ranks_.any_ended()) kill_time_ = Clock::now() + grace_;
    if (kill_time_ && Clock::now() >= *kill_time_) ranks_.send(SIGKILL);
  }

  Ranks& ranks_;
  const c10::intrusive_ptr<c10d::Store> store_;
  const BlockedSignals& signals_;
  const std::chrono::milliseconds grace_;
  Outcome outcome_;
  std::optional<Clock::time_point> first_failure_, kill_time_;
};

Variables variables_of(int rank, int attempt, std::uint16_t port, const LaunchOptions& options) {
  const std::string size = std::to_string(options.nproc);
  Variables variables = {{"RANK", std::to_string(rank)},
                         {"LOCAL_RANK", std::to_string(rank)},
                         {"WORLD_SIZE", size},
                         {"LOCAL_WORLD_SIZE", size},
                         {"MASTER_ADDR", "127.0.0.1"},
                         {"MASTER_PORT", std::to_string(port)},
                         {"TORCHELASTIC_RESTART_COUNT", std::to_string(attempt)},
                         {"TORCHELASTIC_MAX_RESTARTS", std::to_string(options.max_restarts)},
                         {"TORCHELASTIC_RUN_ID", fmt::format("mmtrain-{}", ::getpid())},
                         {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
  if (!std::getenv("OMP_NUM_THREADS")) {
    const int share = std::max(1, describe(c10::Device(c10::kCPU)).units / options.nproc);
    variables.emplace_back("OMP_NUM_THREADS", std::to_string(share));
  }
  return variables;
}

void validate(const LaunchOptions& options) {
  if (options.nproc < 1) throw ConfigError(fmt::format("[launch] nproc must be at least 1, got {}", options.nproc));
  if (options.max_restarts < 0) {
    throw ConfigError(fmt::format("[launch] max_restarts must not be negative, got {}", options.max_restarts));
  }
  if (options.grace.count() < 0) {
    throw ConfigError(fmt::format("[launch] grace must not be negative, got {} ms", options.grace.count()));
  }
}

}  // namespace

bool is_launched() { return std::getenv("RANK") && std::getenv("WORLD_SIZE"); }

std::vector<std::string> without_launch_flags(const std::vector<std::string>& arguments) {
  std::vector<std::string> rest;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    const std::string_view name = argument.substr(0, argument.find('='));
    if (std::find(kFlags.begin(), kFlags.end(), name) == kFlags.end()) {
      rest.emplace_back(argument);
    } else if (name == argument) {
      ++i;  // its value
    }
  }
  return rest;
}

int launch(const LaunchOptions& options, const std::vector<std::string>& arguments) {
  validate(options);
  const BlockedSignals signals;
  std::uint16_t port = 0;
  const auto store = serve_store("127.0.0.1", port, kStoreTimeout);
  for (int attempt = 0;; ++attempt) {
    Ranks ranks(without_launch_flags(arguments), signals);
    for (int rank = 0; rank < options.nproc; ++rank) ranks.start(variables_of(rank, attempt, port, options));
    const Outcome outcome = Attempt(ranks, store_of_attempt(store, attempt), signals, options.grace).run();
    if (outcome.exit_code == 0 || outcome.signalled || attempt == options.max_restarts) return outcome.exit_code;
    log::warning(fmt::format("[launch] restart {} of {}", attempt + 1, options.max_restarts));
  }
}

}  // namespace mmtrain::parallel
