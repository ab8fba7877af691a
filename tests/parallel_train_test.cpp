// Training by several ranks gives what one device gives.
#include <torch/torch.h>

#include <chrono>
#include <memory>
#include <vector>

#include "catch.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/nn/dropout.h"
#include "mmtrain/optim/adam.h"
#include "mmtrain/optim/param_groups.h"
#include "mmtrain/optim/sgd.h"
#include "mmtrain/parallel/strategy.h"
#include "mmtrain/train/trainer.h"

using namespace mmtrain;

namespace {

constexpr std::int64_t kFeatures = 6, kClasses = 3;

struct NetImpl : torch::nn::Module {
  explicit NetImpl(double p) {
    first = register_module("first", torch::nn::Linear(kFeatures, 16));
    norm = register_module("norm", torch::nn::BatchNorm1d(16));
    drop = register_module("drop", nn::Dropout(p));
    last = register_module("last", torch::nn::Linear(16, kClasses));
    extra = register_module("extra", torch::nn::Linear(16, kClasses));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    norm->eval();  // running statistics, which all ranks share
    const torch::Tensor hidden = drop(torch::tanh(norm(first(x))));
    return use_extra ? last(hidden) + extra(hidden) : last(hidden);
  }
  torch::nn::Linear first{nullptr}, last{nullptr}, extra{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  nn::Dropout drop{nullptr};
  bool use_extra = true;
};
TORCH_MODULE(Net);

Net make_net(double p) {
  torch::manual_seed(5);
  Net net(p);
  net->to(torch::kDouble);
  net->norm->running_mean.uniform_(-1, 1);
  net->norm->running_var.uniform_(0.5, 2);
  return net;
}

Batch make_batch(std::int64_t rows, std::uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  Batch batch;
  batch.inputs.insert("x", torch::randn({rows, kFeatures}, generator, torch::kDouble));
  batch.target = torch::randint(kClasses, {rows}, generator, torch::kInt64);
  return batch;
}

struct Setting {
  int replicas = 1;
  std::int64_t rows = 64;
  std::int64_t accumulation = 1;
  double dropout = 0;
  int steps = 5;
  double clip_norm = 0;
};

std::vector<c10::Device> cpus(int n) { return {static_cast<std::size_t>(n), c10::Device(c10::kCPU)}; }

std::shared_ptr<parallel::Strategy> strategy_of(int replicas) {
  if (replicas == 1) return std::make_shared<parallel::SingleDevice>(torch::kCPU);
  return std::make_shared<parallel::ReplicaStrategy>(cpus(replicas),
                                                     parallel::GroupOptions{.timeout = std::chrono::seconds(20)}, 1);
}

// Parameters of every rank after some steps by hand.
std::vector<StateDict> train(const Setting& setting) {
  const auto strategy = strategy_of(setting.replicas);
  const auto n = strategy->ranks().size();
  std::vector<Net> nets;
  for (std::size_t i = 0; i < n; ++i) nets.push_back(make_net(setting.dropout));
  for (std::size_t i = 1; i < n; ++i) {  // the ranks take over what rank 0 has
    torch::NoGradGuard guard;
    for (torch::Tensor& parameter : nets[i]->parameters()) parameter.zero_();
  }
  const nn::CrossEntropyOptions loss{.class_weights = torch::tensor({0.2, 1.0, 3.0}, torch::kDouble)};
  std::vector<std::unique_ptr<TrainStep>> steps(n);
  strategy->run([&](std::size_t i) {
    const auto sgd = std::make_shared<optim::SGD>(optim::named_groups(*nets[i]), optim::SGDOptions(0.1).momentum(0.9));
    steps[i] = std::make_unique<TrainStep>(
        as_model(nets[i]), sgd, cross_entropy_loss(loss),
        TrainStepOptions{.clip_norm = setting.clip_norm, .seed = 4, .group = strategy->ranks()[i].group});
    nets[i]->train();
  });
  for (int k = 0; k < setting.steps; ++k) {
    // The last micro-batch of a step is shorter.
    for (std::int64_t micro = 0; micro < setting.accumulation; ++micro) {
      const bool last = micro + 1 == setting.accumulation;
      const std::int64_t rows = last && micro > 0 ? (setting.rows + 1) / 2 : setting.rows;
      const Batch whole = make_batch(rows, static_cast<std::uint64_t>(100 * k + micro));
      const std::vector<Batch> parts = whole.split(static_cast<std::int64_t>(n));
      strategy->run([&](std::size_t i) {
        Batch part = parts[i];
        RowPlace place{.first = 0, .total = rows};
        for (std::size_t before = 0; before < i; ++before) place.first += parts[before].size();
        if (part.size() == 0) {
          part = whole.narrow(0, 1);
          part.weights = torch::zeros({1}, torch::kDouble);
        }
        last ? steps[i]->run(part, place) : steps[i]->accumulate(part, place);
      });
    }
  }
  std::vector<StateDict> result;
  for (const Net& net : nets) result.push_back(state_dict(*net));
  return result;
}

double difference(const StateDict& a, const StateDict& b) {
  double largest = 0;
  for (const auto& item : a) {
    largest = std::max(largest, (item.value() - b[item.key()]).abs().max().item<double>());
  }
  return largest;
}

}  // namespace

TEST_CASE("Replicas train as one device on the joined batch", "[parallel][train]") {
  const int replicas = GENERATE(2, 3, 4);
  const std::int64_t rows = GENERATE(64, 63, 7, 1);
  const std::int64_t accumulation = GENERATE(1, 3);
  const double dropout = GENERATE(0.0, 0.4);
  Setting setting{.replicas = 1, .rows = rows, .accumulation = accumulation, .dropout = dropout, .clip_norm = 0.5};
  const StateDict expected = train(setting).front();
  setting.replicas = replicas;
  const std::vector<StateDict> ranks = train(setting);
  CAPTURE(replicas, rows, accumulation, dropout);
  REQUIRE(difference(ranks.front(), expected) < 1e-10);
  for (const StateDict& rank : ranks) REQUIRE(difference(rank, ranks.front()) == 0);
}

TEST_CASE("Parameters stay equal to the last bit on all ranks", "[parallel][train]") {
  const std::vector<StateDict> ranks = train({.replicas = 3, .rows = 10, .dropout = 0.3, .steps = 100});
  for (const StateDict& rank : ranks) REQUIRE(difference(rank, ranks.front()) == 0);
}

// ---- the Trainer

namespace {

class Points final : public Dataset {
 public:
  DatasetSpec spec() const override { return {{{"x", {kFeatures}, torch::kFloat64}}, {"target", {}, torch::kInt64}}; }
  std::int64_t size() const override { return 53; }
  void write(std::int64_t index, SampleSlot& slot) const override {
    for (double& value : slot.input<double>(0)) value = slot.random().normal();
    slot.input<double>(0)[static_cast<std::size_t>(index % kClasses)] += 2;
    slot.target<std::int64_t>()[0] = index % kClasses;
  }
  std::vector<std::string> class_names() const override { return {"a", "b", "c"}; }
};

struct TrainerSetting {
  int replicas = 1;
  Loss loss = cross_entropy_loss();
  bool use_extra = true;
  std::chrono::seconds timeout{20};
};

FitResult fit(const TrainerSetting& setting, StateDict* weights = nullptr) {
  const auto data = std::make_shared<Points>();
  DataLoader train(data, std::make_shared<RandomSampler>(data->size(), 3), {.batch_size = 8, .seed = 3});
  DataLoader val(data, std::make_shared<SequentialSampler>(data->size()), {.batch_size = 8, .seed = 4});
  std::vector<Net> nets;
  const RankFactory make_rank = [&](torch::Device) {
    nets.push_back(make_net(0.3));
    nets.back()->use_extra = setting.use_extra || nets.size() == 1;
    const auto adam = std::make_shared<optim::Adam>(optim::named_groups(*nets.back()), optim::AdamOptions(0.01));
    RankParts parts{as_model(nets.back()), adam, {}};
    parts.step.clip_norm = 1;
    parts.step.ema = optim::EmaOptions{.decay = 0.9};
    parts.step.seed = 6;
    return parts;
  };
  Trainer trainer(strategy_of(setting.replicas), make_rank, setting.loss,
                  {.epochs = 3, .accumulation_steps = 2, .progress = false});
  FitResult result = trainer.fit(train, val);
  if (weights != nullptr) *weights = state_dict(*nets.front());
  return result;
}

class Silence {
 public:
  Silence() {
    log::set_sink([](log::Level, std::string_view) {});
  }
  ~Silence() { log::set_sink({}); }
};

}  // namespace

TEST_CASE("A trainer with replicas writes the history of one device", "[parallel][train]") {
  StateDict expected_weights, weights;
  const FitResult expected = fit({}, &expected_weights);
  const FitResult result = fit({.replicas = GENERATE(2, 3)}, &weights);
  REQUIRE(difference(weights, expected_weights) < 1e-10);
  REQUIRE(result.history.size() == expected.history.size());
  for (std::size_t k = 0; k < expected.history.size(); ++k) {
    REQUIRE(result.history[k].train_loss == Approx(expected.history[k].train_loss).epsilon(1e-10));
    REQUIRE(result.history[k].train_acc == expected.history[k].train_acc);
    REQUIRE(result.history[k].val_loss == Approx(expected.history[k].val_loss).epsilon(1e-10));
    REQUIRE(result.history[k].val_acc == expected.history[k].val_acc);
    REQUIRE(result.history[k].global_step == expected.history[k].global_step);
    REQUIRE(result.history[k].grad_norm == Approx(expected.history[k].grad_norm).epsilon(1e-8));
  }
}

TEST_CASE("An error on one rank ends training on all, by that error", "[parallel][train][fault]") {
  const Silence silence;
  const auto start = std::chrono::steady_clock::now();
  const auto calls = std::make_shared<std::atomic<int>>(0);
  const bool in_backward = GENERATE(false, true);
  const Loss broken = [calls, in_backward](const torch::Tensor& output, const Batch& batch) {
    LossValue value = nn::cross_entropy(output, batch.target, batch.weights);
    if (output.requires_grad() && ++*calls == 5) {
      if (!in_backward) throw DataError("the planted fault");
      value.sum.register_hook([](const torch::Tensor&) -> torch::Tensor { throw DataError("the planted fault"); });
    }
    return value;
  };
  REQUIRE_THROWS_WITH(fit({.replicas = 3, .loss = broken}), Catch::Contains("the planted fault"));
  REQUIRE(std::chrono::steady_clock::now() - start < std::chrono::seconds(15));
}

TEST_CASE("A parameter without gradient on one rank is named", "[parallel][train][fault]") {
  const Silence silence;
  REQUIRE_THROWS_WITH(fit({.replicas = 2, .use_extra = false}),
                      Catch::Contains("extra.weight") && Catch::Contains("find_unused_parameters"));
}

TEST_CASE("Ranks with different nets are told where they differ", "[parallel][train][fault]") {
  const Silence silence;
  const auto strategy = strategy_of(2);
  REQUIRE_THROWS_WITH(strategy->run([&](std::size_t i) {
    torch::nn::Linear net(3, i == 0 ? 4 : 5);
    const parallel::GradientReducer reducer(*net, strategy->ranks()[i].group);
  }),
                      Catch::Contains("weight [5,3]") && Catch::Contains("weight [4,3]"));
}

TEST_CASE("A rank that does not answer makes the others throw within the timeout", "[parallel][train][fault]") {
  const Silence silence;
  const auto released = std::make_shared<std::atomic<bool>>(false);
  const auto start = std::chrono::steady_clock::now();
  {
    parallel::ReplicaStrategy strategy(cpus(2), {.timeout = std::chrono::seconds(1)}, 1);
    REQUIRE_THROWS_AS(strategy.run([&, released](std::size_t i) {
      if (i == 1) {
        while (!*released) std::this_thread::sleep_for(std::chrono::milliseconds(5));
        return;
      }
      parallel::ProcessGroup group = strategy.ranks()[i].group;
      group.barrier();
    }),
                      DistributedError);
  }
  REQUIRE(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  *released = true;
}

TEST_CASE("What the caller has set for its thread reaches every rank", "[parallel][train]") {
  const auto strategy = strategy_of(3);
  std::vector<int> seen(3, -1);
  {
    const torch::NoGradGuard guard;
    strategy->run([&](std::size_t i) { seen[i] = torch::GradMode::is_enabled() ? 1 : 0; });
  }
  REQUIRE(seen == std::vector<int>{0, 0, 0});
  {
    const c10::InferenceMode guard;
    strategy->run([&](std::size_t i) { seen[i] = c10::InferenceMode::is_enabled() ? 1 : 0; });
  }
  REQUIRE(seen == std::vector<int>{1, 1, 1});
}
