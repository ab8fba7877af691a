#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

namespace mmtrain::parallel {

// Where processes post what broke their group, in a store that all reach. The first post stays. After an
// alarm every rank says how many collectives it has called: who is behind, or says nothing, is to blame.
class FailureBoard {
 public:
  FailureBoard(c10::intrusive_ptr<c10d::Store> store, int rank, int size, std::chrono::milliseconds timeout);

  // Posts `error`, which names its rank, and wakes the others. Returns the group's first error.
  std::string post(const std::string& error);

  // Whether a rank failed. Throws where the store cannot be reached.
  bool alarmed();

  // What a rank does on an alarm: says that it lives and has called so many collectives, and waits for the first error.
  std::string answer(std::uint64_t called);

  // Finds out who is to blame for `cause`, which ended this rank's collective `number`, and posts it. Returns the
  // group's first error. Takes `grace` if a rank does not answer.
  std::string blame(std::uint64_t number, const std::string& cause);

  // Waits a moment for the others to read the first error, before the store ends with this process.
  void linger();

  // The processes that errors speak of have so many ranks each, one after the other.
  void set_ranks_per_process(int ranks) { ranks_per_process_ = ranks; }

  std::string own_name() const { return names_of({rank_}); }
  // Within this time the functions above return if the store answers.
  std::chrono::milliseconds patience() const { return 3 * grace_; }

  // What the first error of a group was, for those who are not in it.
  struct Failure {
    std::optional<int> culprit;  // the process it came from, if that is known
    bool confessed = false;      // that process posted it, and is about to end; else others found out
    std::string error;           // empty: there is none
  };
  static Failure first_failure(c10d::Store& store);

 private:
  std::string post(const Failure& failure);
  Failure find_culprit(std::uint64_t number, const std::string& cause);
  std::string names_of(const std::vector<int>& processes) const;

  const c10::intrusive_ptr<c10d::Store> store_;
  const int rank_, size_;
  const std::chrono::milliseconds timeout_, grace_;
  std::atomic<int> ranks_per_process_{1};
};

}  // namespace mmtrain::parallel
