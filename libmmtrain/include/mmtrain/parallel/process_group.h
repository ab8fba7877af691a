#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mmtrain/core/export.h"

/// Ranks that work together: threads of one process, or processes of one or several hosts.
namespace mmtrain::parallel {

enum class ReduceOp { sum, min, max };

/// Settings of a group; all ranks give the same.
struct GroupOptions {
  /// Bounds every collective, and the time within which all ranks must have joined. A rank that comes later breaks the
  /// group. Must be positive.
  std::chrono::milliseconds timeout = std::chrono::minutes(10);
};

/// One rank's place in a group. Copies are handles of the same place.
///
/// Collectives block, work in place, and must be called by all ranks in the same order with the same shapes and dtypes.
/// One thread of a rank at a time may call them; `abort` and `first_error` may be called from any thread. When a rank
/// dies, stays away longer than the timeout, aborts, or calls something else than the others, the group is broken for
/// good: running and later collectives of all ranks throw `DistributedError`, which names the rank and its error.
///
/// Tensors are on the CPU, of any strides, and of dtype float64/32/16, bfloat16, int64/32/8, uint8 or bool. A sum of
/// bools is "or". Sums of float16 and bfloat16 are rounded once between threads. Results have equal bits on all ranks.
/// Autograd does not see collectives, and versions of tensors do not change.
class MMTRAIN_API ProcessGroup {
 public:
  class Impl;

  /// A group of one: collectives do nothing.
  ProcessGroup();
  explicit ProcessGroup(std::shared_ptr<Impl> impl);

  int rank() const;
  int world_size() const;
  /// Place among the ranks of this host, which chooses the device; threads count as ranks of one host.
  int local_rank() const;
  std::chrono::milliseconds timeout() const;

  void all_reduce(const at::Tensor& tensor, ReduceOp op = ReduceOp::sum);
  void all_reduce(const std::vector<at::Tensor>& tensors, ReduceOp op = ReduceOp::sum);
  /// Gives all ranks what `root` has. Throws `ConfigError` if there is no such rank.
  void broadcast(const std::vector<at::Tensor>& tensors, int root = 0);
  /// Copies of the tensors of all ranks, in the order of ranks.
  std::vector<at::Tensor> all_gather(const at::Tensor& tensor);
  /// Returns when all ranks have called it.
  void barrier();

  /// From now on collectives take tensors on `device` too, through NCCL; called by all ranks, each with a GPU of its
  /// own. They return when the current stream has them in order, not when they are done. Does nothing for the CPU and
  /// in a group of one. Throws `DeviceError` where NCCL cannot be used.
  void use_device(c10::Device device);

  /// The regular end, called by all ranks: waits for all of them (throws `DistributedError` if one stays away), then
  /// closes the connections in an order that no rank takes for a failure. Does nothing where the group is broken or
  /// shut down already. A group that is only destroyed lets the other ranks fail.
  void shutdown();

  /// Breaks the group because of `error`, so that the others stop waiting at once. The first error of a group stays;
  /// `device` is named with it. Never throws.
  void abort(std::string_view error, std::optional<c10::Device> device = std::nullopt) noexcept;

  /// What broke the group: `[rank 1] text` or `[rank 1, cuda:1] text`; empty while it is whole.
  std::string first_error() const;

  const std::shared_ptr<Impl>& impl() const { return impl_; }

 private:
  std::shared_ptr<Impl> impl_;  // null: a group of one
};

/// Gives all ranks the text of `root`.
MMTRAIN_API std::string broadcast_text(ProcessGroup& group, const std::string& text, int root = 0);

/// Groups for `n` threads of this process, one for each, by rank. Memory is shared: nothing is copied to be sent, and
/// large collectives run on threads of their own while the ranks compute. Throws `ConfigError` if `n` < 1.
///
/// With a group of `processes`, each of which calls this with the same `n`, their threads are one group, process after
/// process: what they send is first joined in each process. `processes` may be used beside it while no thread is in a
/// collective. Throws `DistributedError` where the numbers differ.
MMTRAIN_API std::vector<ProcessGroup> make_thread_groups(int n, const GroupOptions& options = {},
                                                         const ProcessGroup& processes = {});

/// Joins the group that torchrun or `launch` describes in the environment: RANK, WORLD_SIZE, LOCAL_RANK (default:
/// RANK), LOCAL_WORLD_SIZE (default: WORLD_SIZE), MASTER_ADDR, MASTER_PORT, TORCHELASTIC_RESTART_COUNT (default 0: a
/// restarted job meets anew), TORCHELASTIC_USE_AGENT_STORE (True: MASTER_PORT is served already, otherwise rank 0
/// serves it). With neither RANK nor WORLD_SIZE: a group of one.
///
/// Ranks connect through Gloo over the interface that reaches MASTER_ADDR, or those of GLOO_SOCKET_IFNAME. Throws
/// `ConfigError` for missing or impossible variables, `DistributedError` if the port is in use, ranks disagree on
/// WORLD_SIZE, two have the same RANK, or not all come within the timeout.
MMTRAIN_API ProcessGroup init_from_env(const GroupOptions& options = {});

}  // namespace mmtrain::parallel
