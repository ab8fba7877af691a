#include "parallel/failure_board.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
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

std::string FailureBoard::post(const std::string& error) {
  try {
    const std::string first = store_->compareSet(kFailure, std::string(), error);
    store_->set(kAlarm, std::string("1"));
    return first;
  } catch (const std::exception&) {
    return error;  // without the store nobody else can have posted
  }
}

bool FailureBoard::alarmed() { return store_->check({kAlarm}); }

std::string FailureBoard::answer(std::uint64_t called) {
  store_->set(called_key_of(rank_), std::to_string(called));
  std::string first;
  if (poll(grace_ + grace_, [&] { return !(first = try_get(kFailure)).empty(); })) {
    store_->set(read_key_of(rank_), std::string("1"));
    return first;
  }
  return post(fmt::format("[rank {}] was told of a failure that no rank explained", rank_));
}

std::string FailureBoard::blame(std::uint64_t number, const std::string& cause) {
  try {
    store_->set(kAlarm, std::string("1"));
    return post(find_culprit(number, cause));
  } catch (const std::exception& error) {
    return fmt::format(
        "[rank {}] lost a rank and the store that knows which: the process that served it has ended ({}; {})", rank_,
        cause, error_text(error));
  }
}

std::string FailureBoard::find_culprit(std::uint64_t number, const std::string& cause) {
  std::vector<int> silent, behind;
  std::string first;
  poll(grace_, [&] {
    silent.clear();
    behind.clear();
    if (!(first = try_get(kFailure)).empty()) return true;
    for (int rank = 0; rank < size_; ++rank) {
      if (rank == rank_) continue;
      const std::string called = try_get(called_key_of(rank));
      if (called.empty()) {
        silent.push_back(rank);
      } else if (std::stoull(called) < number) {
        behind.push_back(rank);
      }
    }
    return silent.empty();
  });
  if (!first.empty()) return first;
  if (!silent.empty()) {
    return fmt::format(
        "[rank {}] does not answer any more: its process ended, hangs or is cut off (seen by rank {}: {})",
        fmt::join(silent, ", "), rank_, cause);
  }
  if (!behind.empty()) {
    return fmt::format("[rank {}] did not come to collective {} within {} of rank {} ({})", fmt::join(behind, ", "),
                       number, duration_text(timeout_), rank_, cause);
  }
  return fmt::format("[rank {}] collective {} failed though all ranks live: {}", rank_, number, cause);
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

std::string FailureBoard::try_get(const std::string& key) {
  return store_->check({key}) ? store_->get_to_str(key) : std::string();
}

}  // namespace mmtrain::parallel
