#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace mmtrain::parallel {

// What the variables of torchrun say of this process; see `init_from_env`.
struct Membership {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  std::string master_address;
  std::uint16_t master_port = 0;
  int attempt = 0;
  bool agent_serves = false;

  bool serves_store() const { return rank == 0 && !agent_serves; }
};

// Nothing without the variables. Throws `ConfigError` for missing and impossible ones.
std::optional<Membership> membership_from_env();

// Serves a store on `port`, 0 for a free one, and connects to it. `port` then is the one it got. Throws
// `DistributedError` if it is in use.
c10::intrusive_ptr<c10d::Store> serve_store(const std::string& address, std::uint16_t& port,
                                            std::chrono::milliseconds timeout);

// The part of `store` that belongs to one attempt of a job: a launcher keeps its store over restarts, with the keys of
// former attempts.
c10::intrusive_ptr<c10d::Store> store_of_attempt(const c10::intrusive_ptr<c10d::Store>& store, int attempt);

// The store of this attempt, when all ranks have come. Throws `DistributedError`.
c10::intrusive_ptr<c10d::Store> meet(const Membership& membership, std::chrono::milliseconds timeout);

// The numeric address of this host from which packets to `address` leave.
std::string local_address_towards(const std::string& address, std::uint16_t port);

}  // namespace mmtrain::parallel
