#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace mmtrain::parallel {

// Where ranks that are processes post what broke their group, in a store that all reach. The first post stays. After an
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

 private:
  std::string find_culprit(std::uint64_t number, const std::string& cause);
  std::string try_get(const std::string& key);

  const c10::intrusive_ptr<c10d::Store> store_;
  const int rank_, size_;
  const std::chrono::milliseconds timeout_, grace_;
};

}  // namespace mmtrain::parallel
