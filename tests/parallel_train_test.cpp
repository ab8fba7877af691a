// Training by several ranks gives what one device gives.
#include <ATen/record_function.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "data_fixtures.h"
#include "mmtrain/amp/autocast.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/optim/adam.h"
#include "mmtrain/optim/param_groups.h"
#include "mmtrain/optim/sgd.h"
#include "mmtrain/parallel/strategy.h"
#include "mmtrain/train/trainer.h"
#include "rank_training.h"

using namespace mmtrain;
using rank_training::difference;
using rank_training::kClasses;
using rank_training::kFeatures;
using rank_training::make_net;
using rank_training::Net;
using rank_training::Setting;

namespace {

using Tensors = std::vector<torch::Tensor>;

std::vector<c10::Device> cpus(int n) { return {static_cast<std::size_t>(n), c10::Device(c10::kCPU)}; }

std::shared_ptr<parallel::Strategy> strategy_of(int replicas) {
  if (replicas == 1) return std::make_shared<parallel::SingleDevice>(torch::kCPU);
  return std::make_shared<parallel::ReplicaStrategy>(cpus(replicas),
                                                     parallel::GroupOptions{.timeout = std::chrono::seconds(20)}, 1);
}

// What every rank has after some steps.
std::vector<Tensors> train(const Setting& setting) {
  const auto strategy = strategy_of(setting.replicas);
  const auto n = strategy->ranks().size();
  std::vector<Net> nets;  // made one after the other: they draw from one generator
  for (std::size_t i = 0; i < n; ++i) nets.push_back(make_net(setting.dropout));
  std::vector<Tensors> results(n);
  strategy->run(
      [&](std::size_t i) { results[i] = rank_training::train_rank(setting, strategy->ranks()[i].group, nets[i]); });
  strategy->shutdown();
  return results;
}

double difference_of(const StateDict& a, const StateDict& b) {
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
  const double clip_norm = GENERATE(0.0, 0.5);
  Setting setting{.rows = rows, .accumulation = accumulation, .dropout = dropout, .clip_norm = clip_norm};
  const Tensors expected = rank_training::train_alone(setting);
  setting.replicas = replicas;
  const std::vector<Tensors> ranks = train(setting);
  CAPTURE(replicas, rows, accumulation, dropout, clip_norm);
  REQUIRE(difference(ranks.front(), expected) < 1e-10);
  for (const Tensors& rank : ranks) REQUIRE(difference(rank, ranks.front()) == 0);
}

TEST_CASE("Joint batch normalization trains as one device on the same joined micro-batches", "[parallel][train]") {
  const int replicas = GENERATE(2, 3, 4);
  const std::int64_t rows = GENERATE(64, 63, 7);
  const std::int64_t accumulation = GENERATE(1, 3);
  Setting setting{.rows = rows, .accumulation = accumulation, .dropout = 0.4, .joint_norm = true};
  const Tensors expected = rank_training::train_alone(setting);
  setting.replicas = replicas;
  const std::vector<Tensors> ranks = train(setting);
  CAPTURE(replicas, rows, accumulation);
  REQUIRE(difference(ranks.front(), expected) < 1e-10);
  for (const Tensors& rank : ranks) REQUIRE(difference(rank, ranks.front()) == 0);
}

TEST_CASE("Parameters stay equal to the last bit on all ranks", "[parallel][train]") {
  const bool joint_norm = GENERATE(false, true);
  const std::vector<Tensors> ranks =
      train({.replicas = 3, .rows = 10, .dropout = 0.3, .steps = 100, .joint_norm = joint_norm});
  for (const Tensors& rank : ranks) REQUIRE(difference(rank, ranks.front()) == 0);
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
  bool joint_norm = false;
  std::int64_t epochs = 3;
  std::filesystem::path run_dir = {};
  bool resume = false;
};

FitResult fit(const TrainerSetting& setting, StateDict* weights = nullptr) {
  const auto data = std::make_shared<Points>();
  DataLoader train(data, std::make_shared<RandomSampler>(data->size(), 3), {.batch_size = 8, .seed = 3});
  DataLoader val(data, std::make_shared<SequentialSampler>(data->size()), {.batch_size = 8, .seed = 4});
  std::vector<Net> nets;
  const RankFactory make_rank = [&](torch::Device) {
    nets.push_back(make_net(0.3));
    nets.back()->use_extra = setting.use_extra || nets.size() == 1;
    nets.back()->joint_norm = setting.joint_norm;
    const auto adam = std::make_shared<optim::Adam>(optim::named_groups(*nets.back()), optim::AdamOptions(0.01));
    RankParts parts{as_model(nets.back()), adam, {}};
    parts.step.clip_norm = 1;
    parts.step.ema = optim::EmaOptions{.decay = 0.9};
    parts.step.seed = 6;
    parts.step.sync_batchnorm = setting.joint_norm;
    return parts;
  };
  Trainer trainer(strategy_of(setting.replicas), make_rank, setting.loss,
                  {.epochs = setting.epochs, .accumulation_steps = 2, .run_dir = setting.run_dir, .progress = false});
  if (setting.resume) trainer.resume(setting.run_dir / "checkpoints/last");
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

namespace {

void require_same_history(const FitResult& result, const FitResult& expected) {
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

}  // namespace

TEST_CASE("A trainer with replicas writes the history of one device", "[parallel][train]") {
  StateDict expected_weights, weights;
  const FitResult expected = fit({}, &expected_weights);
  const FitResult result = fit({.replicas = GENERATE(2, 3)}, &weights);
  REQUIRE(difference_of(weights, expected_weights) < 1e-10);
  require_same_history(result, expected);
}

TEST_CASE("A run is taken up by another number of replicas", "[parallel][train][resume]") {
  StateDict expected_weights, weights;
  const FitResult expected = fit({}, &expected_weights);
  const auto [before, after] = GENERATE(std::pair(2, 3), std::pair(3, 1), std::pair(1, 2));
  const fixtures::TempDir dir;
  fit({.replicas = before, .epochs = 1, .run_dir = dir.path()});
  const FitResult result = fit({.replicas = after, .run_dir = dir.path(), .resume = true}, &weights);
  REQUIRE(difference_of(weights, expected_weights) < 1e-10);
  require_same_history(result, expected);
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
  const bool others_wait = GENERATE(true, false);
  const auto released = std::make_shared<std::atomic<bool>>(false);
  const auto start = std::chrono::steady_clock::now();
  {
    parallel::ReplicaStrategy strategy(cpus(2), {.timeout = std::chrono::seconds(1)}, 1);
    REQUIRE_THROWS_WITH(strategy.run([&, released](std::size_t i) {
      if (i == 1) {
        while (!*released) std::this_thread::sleep_for(std::chrono::milliseconds(5));
        return;
      }
      parallel::ProcessGroup group = strategy.ranks()[i].group;
      if (others_wait) group.barrier();
    }),
                        Catch::Contains("[rank 1] did not come to"));
  }
  REQUIRE(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  *released = true;
}

TEST_CASE("Joint batch normalization needs a row on each rank, and says so", "[parallel][train][fault]") {
  const Silence silence;
  const FitResult result = fit({.replicas = 3, .joint_norm = true});  // the last batch has 5 rows
  REQUIRE(result.history.size() == 3);
  REQUIRE_THROWS_WITH(fit({.replicas = 6, .joint_norm = true}), Catch::Contains("5 rows for 6 replicas"));
}

TEST_CASE("What the caller has set for its thread reaches every rank", "[parallel][train]") {
  const auto strategy = strategy_of(3);
  const auto everywhere = [&](const std::function<bool()>& holds) {
    std::vector<char> seen(3, 0);
    strategy->run([&](std::size_t i) { seen[i] = holds() ? 1 : 0; });
    return std::count(seen.begin(), seen.end(), 1) == 3;
  };
  const auto product_type = [] { return torch::mm(torch::ones({2, 2}), torch::ones({2, 2})).scalar_type(); };
  REQUIRE(everywhere([&] {
    return torch::GradMode::is_enabled() && !c10::InferenceMode::is_enabled() && product_type() == torch::kFloat32;
  }));
  {
    const torch::NoGradGuard guard;
    REQUIRE(everywhere([] { return !torch::GradMode::is_enabled(); }));
  }
  {
    const c10::InferenceMode guard;
    REQUIRE(everywhere([] { return c10::InferenceMode::is_enabled(); }));
  }
  for (const torch::ScalarType type : {torch::kBFloat16, torch::kFloat16}) {
    const amp::Autocast autocast(torch::kCPU, type);
    REQUIRE(everywhere([&] { return product_type() == type; }));
  }
  {
    const c10::ScalarType former = c10::get_default_dtype_as_scalartype();
    c10::set_default_dtype(caffe2::TypeMeta::Make<double>());
    const bool reached = everywhere([] { return torch::ones({1}).scalar_type() == torch::kFloat64; });
    c10::set_default_dtype(c10::scalarTypeToTypeMeta(former));
    REQUIRE(reached);
  }
  REQUIRE(everywhere([&] { return torch::GradMode::is_enabled() && product_type() == torch::kFloat32; }));
}

// ---- what one device costs

namespace {

// Counts operators and memory of the calling thread and its backward pass while it lives.
class Profile {
 public:
  Profile() : scope_(c10::DebugInfoKind::PROFILER_STATE, std::make_shared<Allocations>(allocations_)) {
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback([](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
          current->operators_[function.name()] += 1;
          return nullptr;
        }).scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
    current = this;
  }
  ~Profile() { at::removeCallback(handle_); }
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  const std::map<std::string, int>& operators() const { return operators_; }
  const std::vector<std::int64_t>& allocations() const { return allocations_; }

 private:
  class Allocations final : public c10::MemoryReportingInfoBase {
   public:
    explicit Allocations(std::vector<std::int64_t>& list) : list_(list) {}
    bool memoryProfilingEnabled() const override { return true; }
    void reportMemoryUsage(void*, std::int64_t bytes, std::size_t, std::size_t, c10::Device) override {
      if (bytes > 0) list_.push_back(bytes);
    }

   private:
    std::vector<std::int64_t>& list_;
  };

  static inline Profile* current = nullptr;
  std::map<std::string, int> operators_;
  std::vector<std::int64_t> allocations_;
  c10::DebugInfoGuard scope_;
  at::CallbackHandle handle_;
};

}  // namespace

TEST_CASE("One device in the engine issues the operators and allocations of a loop by hand", "[parallel][train]") {
  const Batch batch = rank_training::make_batch(16, 1);
  Net net_by_hand = make_net(0);
  const Net net_in_engine = make_net(0);
  const auto sgd_for = [](const Net& net) {
    return std::make_shared<optim::SGD>(optim::named_groups(*net), optim::SGDOptions(0.1).momentum(0.9));
  };
  const auto sgd = sgd_for(net_by_hand);
  const Loss loss = cross_entropy_loss();
  const auto by_hand = [&] {
    const torch::Tensor output = net_by_hand->forward(batch.inputs["x"]);
    const LossValue value = loss(output, batch);
    const Tensors kept = {value.sum.detach(), value.weight.detach(), output.detach()};  // to count
    // A batch in which nothing counts must not give NaN: the one thing that few write by hand.
    (value.sum / at::where(value.weight.eq(0), 1, value.weight)).backward();
    sgd->step();
    for (torch::Tensor& parameter : net_by_hand->parameters()) parameter.mutable_grad().reset();
  };
  parallel::SingleDevice strategy(torch::kCPU);
  TrainStep step(as_model(net_in_engine), sgd_for(net_in_engine), loss, {.group = strategy.ranks()[0].group});
  const auto in_engine = [&] { strategy.run([&](std::size_t) { step.run(batch); }); };
  for (int k = 0; k < 2; ++k) {  // the first step makes the optimizer's state
    by_hand();
    in_engine();
  }
  const auto profile_of = [](const auto& run) {
    const Profile profile;
    run();
    return std::pair(profile.operators(), profile.allocations());
  };
  const auto [operators, allocations] = profile_of(by_hand);
  const auto [operators_in_engine, allocations_in_engine] = profile_of(in_engine);
  REQUIRE(operators.size() > 10);
  REQUIRE(allocations.size() > 10);
  CHECK(operators_in_engine == operators);
  CHECK(allocations_in_engine == allocations);
}
