#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <cstdint>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <vector>

#include "mmtrain/parallel/process_group.h"
#include "parallel/process_group_impl.h"

/// A small net trained by LibTorch's own Reducer over a group, for thread ranks and process ranks alike.
namespace parallel_fixtures {

constexpr int kSteps = 20;
constexpr std::int64_t kRows = 12;  // divisible by 2, 3 and 4

inline torch::Tensor numbers(torch::IntArrayRef shape, double phase) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return torch::sin(torch::arange(count, torch::kFloat64) * 0.7 + phase).reshape(shape);
}

struct Net {
  // Equal on all ranks, without the random generator.
  Net() {
    const std::vector<std::vector<std::int64_t>> shapes = {{9, 7}, {9}, {3, 9}, {3}};
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      parameters.push_back(numbers(shapes[i], static_cast<double>(i)).set_requires_grad(true));
    }
  }
  torch::Tensor loss(const torch::Tensor& rows, const torch::Tensor& target) const {
    const auto hidden = torch::tanh(torch::linear(rows, parameters[0], parameters[1]));
    return torch::mse_loss(torch::linear(hidden, parameters[2], parameters[3]), target);
  }
  void step() {
    const torch::NoGradGuard no_grad;
    for (torch::Tensor& parameter : parameters) {
      parameter.sub_(parameter.grad(), 0.1);
      parameter.mutable_grad().reset();
    }
  }
  torch::Tensor flat() const {
    const torch::NoGradGuard no_grad;
    std::vector<torch::Tensor> parts;
    for (const torch::Tensor& parameter : parameters) parts.push_back(parameter.flatten());
    return torch::cat(parts);
  }

  std::vector<torch::Tensor> parameters;
};

struct Joined {
  explicit Joined(int step) : rows(numbers({kRows, 7}, 10.0 + step)), target(numbers({kRows, 3}, 20.0 + step)) {}
  Joined part(int rank, int world_size) const {
    Joined result = *this;
    const std::int64_t size = kRows / world_size;
    result.rows = rows.narrow(0, rank * size, size);
    result.target = target.narrow(0, rank * size, size);
    return result;
  }
  torch::Tensor rows, target;
};

/// Parameters after training on one device with the joined batches.
inline torch::Tensor train_alone() {
  Net net;
  for (int step = 0; step < kSteps; ++step) {
    const Joined batch(step);
    net.loss(batch.rows, batch.target).backward();
    net.step();
  }
  return net.flat();
}

/// Several buckets, so that collectives overlap the backward pass; they are rebuilt after the first step.
class ReducedNet : public Net {
 public:
  explicit ReducedNet(const mmtrain::parallel::ProcessGroup& group)
      : reducer_(parameters, {{2, 3}, {0, 1}}, mmtrain::parallel::c10d_group(group),
                 std::vector<bool>(parameters.size(), false), 256, false, false, {}, 256, false, false, {}) {}

  void train(const Joined& batch) {
    reducer_.rebuild_buckets();
    const torch::Tensor value = loss(batch.rows, batch.target);
    reducer_.prepare_for_backward({});
    value.backward();
    step();
  }

 private:
  c10d::Reducer reducer_;
};

/// The same on this rank's part of each batch.
inline torch::Tensor train_in(const mmtrain::parallel::ProcessGroup& group) {
  ReducedNet net(group);
  for (int step = 0; step < kSteps; ++step) net.train(Joined(step).part(group.rank(), group.world_size()));
  return net.flat();
}

inline std::vector<torch::ScalarType> dtypes() {
  return {torch::kFloat64, torch::kFloat32, torch::kFloat16, torch::kBFloat16, torch::kInt64,
          torch::kInt32,   torch::kInt8,    torch::kUInt8,   torch::kBool};
}

/// Values of a rank that sum without rounding in every dtype.
inline torch::Tensor values_of(int rank, std::int64_t count, torch::ScalarType dtype) {
  return torch::arange(count, torch::kInt64).mul(7 * (rank + 1)).remainder(11).add(rank).remainder(11).to(dtype);
}

/// What is wrong with the group's collectives on `count` elements of `dtype`; empty if they equal the computation.
inline std::string collective_fault(mmtrain::parallel::ProcessGroup group, std::int64_t count,
                                    torch::ScalarType dtype) {
  using mmtrain::parallel::ReduceOp;
  std::vector<torch::Tensor> all;
  for (int rank = 0; rank < group.world_size(); ++rank) all.push_back(values_of(rank, count, dtype));
  const torch::Tensor stacked = torch::stack(all);
  const torch::Tensor& mine = all[static_cast<std::size_t>(group.rank())];

  const torch::Tensor sum = mine.clone(), least = mine.clone(), most = mine.clone();
  group.all_reduce(sum);
  group.all_reduce(least, ReduceOp::min);
  group.all_reduce(most, ReduceOp::max);
  const torch::Tensor wanted = dtype == torch::kBool ? stacked.any(0) : stacked.sum(0).to(dtype);
  if (!torch::equal(sum, wanted)) return "sum";
  if (count > 0 && !torch::equal(least, stacked.amin(0))) return "min";
  if (count > 0 && !torch::equal(most, stacked.amax(0))) return "max";

  const int root = group.world_size() - 1;
  const std::vector<torch::Tensor> sent = {mine.clone(), mine.clone()};
  group.broadcast(sent, root);
  for (const torch::Tensor& each : sent) {
    if (!torch::equal(each, all[static_cast<std::size_t>(root)])) return "broadcast";
  }
  const std::vector<torch::Tensor> gathered = group.all_gather(mine);
  if (!torch::equal(torch::stack(gathered), stacked)) return "all_gather";
  group.barrier();
  return "";
}

}  // namespace parallel_fixtures
