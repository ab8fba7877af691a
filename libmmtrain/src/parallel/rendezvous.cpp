#include "parallel/rendezvous.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <vector>

#include "core/posix.h"
#include "mmtrain/core/error.h"
#include "parallel/error_text.h"
#include "parallel/future_work.h"
#include "parallel/gloo_backend.h"
#include "parallel/process_group_impl.h"

namespace mmtrain::parallel {
namespace {

constexpr int kMostRanks = 1 << 20;

std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? std::optional<std::string>(value) : std::nullopt;
}

int number(const char* name, const std::string& text, int least, int most) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    throw ConfigError(
        fmt::format("[init_from_env] {} must be a number from {} to {}, got '{}'", name, least, most, text));
  }
  return value;
}

int number_or(const char* name, int otherwise, int least, int most) {
  const auto text = variable(name);
  return text ? number(name, *text, least, most) : otherwise;
}

std::string required(const char* name) {
  const auto text = variable(name);
  if (!text) {
    throw ConfigError(
        fmt::format("[init_from_env] a process with RANK or WORLD_SIZE needs {} too: start it with torchrun "
                    "or --nproc, or unset all",
                    name));
  }
  return *text;
}

// A socket that listens on all interfaces, or -1 with errno set.
int listen_on(int family, std::uint16_t port) {
  const int descriptor = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -1;
  const int on = 1, off = 0;
  ::setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);  // a restarted job finds its port in TIME_WAIT
  int result = -1;
  if (family == AF_INET6) {
    ::setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    result = ::bind(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address);
  } else {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    result = ::bind(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  if (result == 0 && ::listen(descriptor, SOMAXCONN) == 0) return descriptor;
  const int error = errno;
  ::close(descriptor);
  errno = error;
  return -1;
}

c10::intrusive_ptr<c10d::Store> connect_to_store(const Membership& member, std::chrono::milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = member.master_port;
  options.waitWorkers = false;
  options.timeout = timeout;
  try {
    return c10::make_intrusive<c10d::TCPStore>(member.master_address, options);
  } catch (const std::exception& error) {
    throw DistributedError(
        fmt::format("[init_from_env] rank {} reached no store at MASTER_ADDR:MASTER_PORT {}:{} within {}: "
                    "is {} running, and is no other program on that port? ({})",
                    member.rank, member.master_address, member.master_port, duration_text(timeout),
                    member.agent_serves ? "its launcher" : "rank 0", error_text(error)));
  }
}

std::string member_key(int rank) { return fmt::format("member/{}", rank); }

// Ranks that are not here yet.
std::vector<int> missing_ranks(c10d::Store& store, int world_size) {
  std::vector<int> missing;
  for (int rank = 0; rank < world_size; ++rank) {
    if (!store.check({member_key(rank)})) missing.push_back(rank);
  }
  return missing;
}

void agree_on_size(c10d::Store& store, const Membership& member) {
  const std::string mine = std::to_string(member.world_size);
  const std::string first = store.compareSet("world_size", std::string(), mine);
  if (first == mine) return;
  throw DistributedError(
      fmt::format("[init_from_env] rank {} has WORLD_SIZE {}, another rank has {}: start all with the same",
                  member.rank, mine, first));
}

void take_place(c10d::Store& store, const Membership& member) {
  if (store.add(fmt::format("place/{}", member.rank), 1) > 1) {
    throw DistributedError(
        fmt::format("[init_from_env] two processes have RANK {}: each needs one of its own from 0 to {}", member.rank,
                    member.world_size - 1));
  }
  store.set(member_key(member.rank), std::string("1"));
}

void wait_for_all(c10d::Store& store, const Membership& member, std::chrono::milliseconds timeout) {
  std::vector<std::string> keys;
  for (int rank = 0; rank < member.world_size; ++rank) keys.push_back(member_key(rank));
  try {
    store.wait(keys, timeout);
  } catch (const std::exception&) {
    const std::vector<int> missing = missing_ranks(store, member.world_size);
    if (missing.empty()) return;
    throw DistributedError(fmt::format("[init_from_env] rank {} of {}: rank {} did not come within {}", member.rank,
                                       member.world_size, fmt::join(missing, ", "), duration_text(timeout)));
  }
}

}  // namespace

std::optional<Membership> membership_from_env() {
  if (!variable("RANK") && !variable("WORLD_SIZE")) return std::nullopt;
  Membership member;
  member.world_size = number("WORLD_SIZE", required("WORLD_SIZE"), 1, kMostRanks);
  member.rank = number("RANK", required("RANK"), 0, member.world_size - 1);
  const int local_size = number_or("LOCAL_WORLD_SIZE", member.world_size, 1, member.world_size);
  member.local_rank = number_or("LOCAL_RANK", std::min(member.rank, local_size - 1), 0, local_size - 1);
  member.attempt = number_or("TORCHELASTIC_RESTART_COUNT", 0, 0, kMostRanks);
  member.agent_serves = variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  if (member.world_size > 1) {
    member.master_address = required("MASTER_ADDR");
    member.master_port = static_cast<std::uint16_t>(number("MASTER_PORT", required("MASTER_PORT"), 1, 65535));
  }
  return member;
}

c10::intrusive_ptr<c10d::Store> serve_store(const std::string& address, std::uint16_t& port,
                                            std::chrono::milliseconds timeout) {
  int descriptor = listen_on(AF_INET6, port);
  if (descriptor < 0 && errno != EADDRINUSE) descriptor = listen_on(AF_INET, port);
  if (descriptor < 0) {
    throw DistributedError(fmt::format("[ProcessGroup] cannot serve MASTER_PORT {}: {}; choose another port", port,
                                       detail::errno_text(errno)));
  }
  c10d::TCPStoreOptions options;
  options.port = port;
  options.isServer = true;
  options.waitWorkers = false;
  options.timeout = timeout;
  options.masterListenFd = descriptor;
  auto store = c10::make_intrusive<c10d::TCPStore>(address, options);
  port = store->getPort();
  return store;
}

c10::intrusive_ptr<c10d::Store> store_of_attempt(const c10::intrusive_ptr<c10d::Store>& store, int attempt) {
  return c10::make_intrusive<c10d::PrefixStore>(fmt::format("mmtrain/attempt/{}", attempt), store);
}

c10::intrusive_ptr<c10d::Store> meet(const Membership& member, std::chrono::milliseconds timeout) {
  std::uint16_t port = member.master_port;
  const auto store =
      member.serves_store() ? serve_store(member.master_address, port, timeout) : connect_to_store(member, timeout);
  auto mine = store_of_attempt(store, member.attempt);
  try {
    agree_on_size(*mine, member);
    take_place(*mine, member);
    wait_for_all(*mine, member, timeout);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw DistributedError(fmt::format("[init_from_env] rank {} lost the store at {}:{} ({})", member.rank,
                                       member.master_address, member.master_port, error_text(error)));
  }
  return mine;
}

std::string local_address_towards(const std::string& address, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) found = nullptr;
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  for (const addrinfo* each = found; each; each = each->ai_next) {
    const int descriptor = ::socket(each->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) continue;
    sockaddr_storage local{};
    socklen_t size = sizeof local;
    char host[NI_MAXHOST];
    // Connecting a datagram socket sends nothing: the system only chooses the route.
    const bool known =
        ::connect(descriptor, each->ai_addr, each->ai_addrlen) == 0 &&
        ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&local), &size) == 0 &&
        ::getnameinfo(reinterpret_cast<sockaddr*>(&local), size, host, sizeof host, nullptr, 0, NI_NUMERICHOST) == 0;
    ::close(descriptor);
    if (known) return host;
  }
  throw DistributedError(fmt::format("[init_from_env] MASTER_ADDR '{}' cannot be reached from this host", address));
}

ProcessGroup init_from_env(const GroupOptions& options) {
  validate(options);
  const auto member = membership_from_env();
  if (!member || member->world_size == 1) return ProcessGroup();
  const auto store = meet(*member, options.timeout);
  auto backend = c10::make_intrusive<GlooBackend>(store, member->rank, member->world_size, options.timeout,
                                                  local_address_towards(member->master_address, member->master_port),
                                                  member->serves_store());
  return ProcessGroup(
      std::make_shared<ProcessGroup::Impl>(std::move(backend), store, member->local_rank, options.timeout));
}

}  // namespace mmtrain::parallel
