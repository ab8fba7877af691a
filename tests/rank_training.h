#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "mmtrain/nn/batch_norm.h"
#include "mmtrain/nn/dropout.h"
#include "mmtrain/optim/param_groups.h"
#include "mmtrain/train/train_step.h"

/// A small net trained by `TrainStep` on one rank's rows of joined batches, alike for threads, processes and one
/// device.
namespace rank_training {

using namespace mmtrain;

constexpr std::int64_t kFeatures = 6, kClasses = 3;

struct Setting {
  int replicas = 1;
  std::int64_t rows = 64;
  std::int64_t accumulation = 1;
  double dropout = 0;
  int steps = 5;
  double clip_norm = 0;
  bool joint_norm = false;  ///< batch norm in training mode, by the statistics of all ranks; else in evaluation mode
};

struct NetImpl : torch::nn::Module {
  explicit NetImpl(double p) {
    first = register_module("first", torch::nn::Linear(kFeatures, 16));
    norm = register_module("norm", nn::BatchNorm1d(16));
    drop = register_module("drop", nn::Dropout(p));
    last = register_module("last", torch::nn::Linear(16, kClasses));
    extra = register_module("extra", torch::nn::Linear(16, kClasses));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    if (!joint_norm) norm->eval();
    const torch::Tensor hidden = drop(torch::tanh(norm(first(x))));
    return use_extra ? last(hidden) + extra(hidden) : last(hidden);
  }
  torch::nn::Linear first{nullptr}, last{nullptr}, extra{nullptr};
  nn::BatchNorm1d norm{nullptr};
  nn::Dropout drop{nullptr};
  bool use_extra = true, joint_norm = false;
};
TORCH_MODULE(Net);

inline Net make_net(double dropout) {
  torch::manual_seed(5);
  Net net(dropout);
  net->to(torch::kDouble);
  net->norm->running_mean.uniform_(-1, 1);
  net->norm->running_var.uniform_(0.5, 2);
  return net;
}

inline Batch make_batch(std::int64_t rows, std::uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  Batch batch;
  batch.inputs.insert("x", torch::randn({rows, kFeatures}, generator, torch::kDouble));
  batch.target = torch::randint(kClasses, {rows}, generator, torch::kInt64);
  return batch;
}

/// Keeps the gradients that it stepped by.
class RecordingSGD : public torch::optim::SGD {
 public:
  using SGD::SGD;
  torch::Tensor step(LossClosure closure = nullptr) override {
    gradients.clear();
    for (const auto& group : param_groups()) {
      for (const torch::Tensor& parameter : group.params()) gradients.push_back(parameter.grad().clone());
    }
    return SGD::step(std::move(closure));
  }
  std::vector<torch::Tensor> gradients;
};

/// The rows of `group.rank()` in `whole`, and where they are.
inline std::pair<Batch, RowPlace> share_of(const Batch& whole, const parallel::ProcessGroup& group) {
  const std::vector<Batch> parts = whole.split(group.world_size());
  const auto rank = static_cast<std::size_t>(group.rank());
  RowPlace place{.total = whole.size()};
  for (std::size_t before = 0; before < rank; ++before) place.first += parts[before].size();
  Batch part = parts[rank];
  if (part.size() == 0) {  // takes part with a row that does not count
    part = whole.narrow(0, 1);
    part.weights = torch::zeros({1}, torch::kDouble);
  }
  return {std::move(part), place};
}

/// What a rank has after some steps by hand: parameters, buffers, and the gradients of the last step. Only rank 0
/// starts with the net's weights.
inline std::vector<torch::Tensor> train_rank(const Setting& setting, const parallel::ProcessGroup& group, Net net) {
  net->joint_norm = setting.joint_norm;
  if (group.rank() > 0) {
    torch::NoGradGuard guard;
    for (torch::Tensor& parameter : net->parameters()) parameter.zero_();
  }
  const auto sgd =
      std::make_shared<RecordingSGD>(net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9).weight_decay(0.01));
  const nn::CrossEntropyOptions loss{.class_weights = torch::tensor({0.2, 1.0, 3.0}, torch::kDouble)};
  TrainStep step(as_model(net), sgd, cross_entropy_loss(loss),
                 TrainStepOptions{
                     .clip_norm = setting.clip_norm, .seed = 4, .group = group, .sync_batchnorm = setting.joint_norm});
  net->train();
  for (int k = 0; k < setting.steps; ++k) {
    for (std::int64_t micro = 0; micro < setting.accumulation; ++micro) {
      const bool last = micro + 1 == setting.accumulation;
      const std::int64_t rows = last && micro > 0 ? (setting.rows + 1) / 2 : setting.rows;  // a short tail
      const auto [part, place] = share_of(make_batch(rows, static_cast<std::uint64_t>(100 * k + micro)), group);
      last ? step.run(part, place) : step.accumulate(part, place);
    }
  }
  std::vector<torch::Tensor> result;
  for (const torch::Tensor& parameter : net->parameters()) result.push_back(parameter.detach().clone());
  for (const torch::Tensor& buffer : net->buffers()) result.push_back(buffer.clone());
  for (const torch::Tensor& gradient : sgd->gradients) result.push_back(gradient);
  return result;
}

inline std::vector<torch::Tensor> train_alone(const Setting& setting) {
  return train_rank(setting, parallel::ProcessGroup(), make_net(setting.dropout));
}

inline double difference(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
  double largest = a.size() == b.size() ? 0 : 1e9;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, (a[i] - b[i]).abs().max().item<double>());
  }
  return largest;
}

/// What groups of processes are tried with.
inline std::vector<Setting> settings_of_processes() {
  return {{.rows = 64, .dropout = 0.4},
          {.rows = 7, .accumulation = 3, .dropout = 0.4, .clip_norm = 0.5},
          {.rows = 1, .accumulation = 1},
          {.rows = 63, .accumulation = 3, .joint_norm = true},
          {.rows = 10, .dropout = 0.3, .steps = 100}};
}

}  // namespace rank_training
