#include "parallel/failure_board.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/error_text.h"
#include "parallel/future_work.h"

namespace mmtrain::parallel {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLongestGrace{2000};
constexpr std::chrono::milliseconds kPause{10};
constexpr const char* kFailure = "failure";
constexpr const char* kAlarm = "alarm";

std::string called_key_of(int rank) { return fmt::format("called/{}", rank); }
std::string read_key_of(int rank) { return fmt::format("read/{}", rank); }

std::string try_get(c10d::Store& store, const std::string& key) {
  return store.check({key}) ? store.get_to_str(key) : std::string();
}

// "1 1 error": process, whether it confessed, error.
std::string encode(const FailureBoard::Failure& failure) {
  return fmt::format("{} {:d} {}", failure.culprit.value_or(-1), failure.confessed, failure.error);
}

FailureBoard::Failure decode(const std::string& text) {
  FailureBoard::Failure failure;
  std::istringstream stream(text);
  int culprit = -1;
  stream >> culprit >> failure.confessed;
  if (culprit >= 0) failure.culprit = culprit;
  std::getline(stream.ignore(), failure.error, '\0');
  return failure;
}

// Whether `done` came true before the time was over.
template <class Done>
bool poll(std::chrono::milliseconds duration, Done done) {
  const Clock::time_point end = Clock::now() + duration;
  while (!done()) {
    if (Clock::now() >= end) return false;
    std::this_thread::sleep_for(kPause);
  }
  return true;
}

}  // namespace

FailureBoard::FailureBoard(c10::intrusive_ptr<c10d::Store> store, int rank, int size, std::chrono::milliseconds timeout)
    : store_(std::move(store)), rank_(rank), size_(size), timeout_(timeout), grace_(std::min(timeout, kLongestGrace)) {}

std::string FailureBoard::post(const std::string& error) { return post(Failure{rank_, true, error}); }

std::string FailureBoard::post(const Failure& failure) {
  try {
    const Failure first = decode(store_->compareSet(kFailure, std::string(), encode(failure)));
    store_->set(kAlarm, std::string("1"));
    return first.error;
  } catch (const std::exception&) {
    return failure.error;  // without the store nobody else can have posted
  }
}

bool FailureBoard::alarmed() { return store_->check({kAlarm}); }

std::string FailureBoard::answer(std::uint64_t called) {
  store_->set(called_key_of(rank_), std::to_string(called));
  std::string first;
  if (poll(grace_ + grace_, [&] { return !(first = first_failure(*store_).error).empty(); })) {
    store_->set(read_key_of(rank_), std::string("1"));
    return first;
  }
  return post(Failure{{}, false, names_of({rank_}) + " was told of a failure that no rank explained"});
}

std::string FailureBoard::blame(std::uint64_t number, const std::string& cause) {
  try {
    store_->set(kAlarm, std::string("1"));
    return post(find_culprit(number, cause));
  } catch (const std::exception& error) {
    return fmt::format("{} lost a rank and the store that knows which: the process that served it has ended ({}; {})",
                       names_of({rank_}), cause, error_text(error));
  }
}

FailureBoard::Failure FailureBoard::find_culprit(std::uint64_t number, const std::string& cause) {
  std::vector<int> silent, behind;
  Failure first;
  poll(grace_, [&] {
    silent.clear();
    behind.clear();
    if (!(first = first_failure(*store_)).error.empty()) return true;
    for (int rank = 0; rank < size_; ++rank) {
      if (rank == rank_) continue;
      const std::string called = try_get(*store_, called_key_of(rank));
      if (called.empty()) {
        silent.push_back(rank);
      } else if (std::stoull(called) < number) {
        behind.push_back(rank);
      }
    }
    return silent.empty();
  });
  if (!first.error.empty()) return first;
  const auto the_one = [](const std::vector<int>& processes) {
    return processes.size() == 1 ? std::optional(processes[0]) : std::nullopt;
  };
  if (!silent.empty()) {
    return {the_one(silent), false,
            fmt::format("{} does not answer any more: its process ended, hangs or is cut off (seen by {}: {})",
                        names_of(silent), names_of({rank_}), cause)};
  }
  if (!behind.empty()) {
    return {the_one(behind), false,
            fmt::format("{} did not come to collective {} within {} of {} ({})", names_of(behind), number,
                        duration_text(timeout_), names_of({rank_}), cause)};
  }
  return {
      {}, false, fmt::format("{} collective {} failed though all ranks live: {}", names_of({rank_}), number, cause)};
}

void FailureBoard::linger() {
  std::vector<std::string> keys;
  for (int rank = 0; rank < size_; ++rank) {
    if (rank != rank_) keys.push_back(read_key_of(rank));
  }
  try {
    poll(grace_, [&] { return store_->check(keys); });
  } catch (const std::exception&) {
    return;  // nothing left to wait for
  }
}

FailureBoard::Failure FailureBoard::first_failure(c10d::Store& store) { return decode(try_get(store, kFailure)); }

// "[rank 1, 2]", or with several ranks in a process "[rank 2-3, 4-5]".
std::string FailureBoard::names_of(const std::vector<int>& processes) const {
  const int each = ranks_per_process_;
  std::vector<std::string> names;
  for (const int process : processes) {
    names.push_back(each == 1 ? std::to_string(process)
                              : fmt::format("{}-{}", process * each, (process + 1) * each - 1));
  }
  return fmt::format("[rank {}]", fmt::join(names, ", "));
}

}  // namespace mmtrain::parallel
