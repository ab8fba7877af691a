#include "mmtrain/train/train_step.h"

#include <torch/torch.h>

#include "catch.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/nn/dropout.h"
#include "mmtrain/nn/random_context.h"
#include "mmtrain/optim/adam.h"
#include "mmtrain/optim/clip.h"
#include "mmtrain/optim/param_groups.h"
#include "mmtrain/optim/sgd.h"
#include "train/step_graph.h"

using namespace mmtrain;

namespace {

constexpr std::int64_t kFeatures = 5, kClasses = 3;

struct NetImpl : torch::nn::Module {
  explicit NetImpl(double p = 0) {
    body = register_module("body", torch::nn::Sequential(torch::nn::Linear(kFeatures, 16), torch::nn::Tanh(),
                                                         nn::Dropout(p), torch::nn::Linear(16, kClasses)));
  }
  torch::Tensor forward(const torch::Tensor& x) { return body->forward(x); }
  torch::nn::Sequential body{nullptr};
};
TORCH_MODULE(Net);

Net make_net(double p = 0, torch::ScalarType dtype = torch::kDouble) {
  torch::manual_seed(3);
  Net net(p);
  net->to(dtype);
  return net;
}

Batch make_batch(std::int64_t rows, torch::ScalarType dtype = torch::kDouble) {
  at::Generator generator = at::detail::createCPUGenerator(11);
  Batch batch;
  batch.inputs.insert("x", torch::randn({rows, kFeatures}, generator).to(dtype));
  batch.target = torch::randint(kClasses, {rows}, generator, torch::kInt64);
  return batch;
}

std::shared_ptr<optim::SGD> sgd(const Net& net, double lr = 0.1) {
  return std::make_shared<optim::SGD>(optim::named_groups(*net), optim::SGDOptions(lr).momentum(0.9));
}

double difference(const Net& a, const Net& b) {
  const StateDict left = state_dict(*a), right = state_dict(*b);
  double largest = 0;
  for (const auto& item : left) {
    largest = std::max(largest, (item.value() - right[item.key()]).abs().max().item<double>());
  }
  return largest;
}

}  // namespace

TEST_CASE("Accumulated micro-batches equal their joined batch, whatever their sizes and weights", "[train][step]") {
  const double p = GENERATE(0.0, 0.4);  // dropout sees the same rows either way
  const nn::CrossEntropyOptions options{.class_weights = torch::tensor({0.2, 1.0, 3.0}, torch::kDouble),
                                        .label_smoothing = 0.1};
  const TrainStepOptions settings{.clip_norm = 0.3, .seed = 5};
  Net whole = make_net(p), parts = make_net(p);
  TrainStep one(as_model(whole), sgd(whole), cross_entropy_loss(options), settings);
  TrainStep many(as_model(parts), sgd(parts), cross_entropy_loss(options), settings);
  const Batch batch = make_batch(63);
  for (int k = 0; k < 5; ++k) {
    const StepResult expected = one.run(batch);
    many.accumulate(batch.narrow(0, 25));
    REQUIRE(many.is_accumulating());
    many.accumulate(batch.narrow(25, 25));
    const StepResult last = many.run(batch.narrow(50, 13));
    REQUIRE_FALSE(many.is_accumulating());
    REQUIRE(last.grad_norm.item<double>() == Approx(expected.grad_norm.item<double>()).epsilon(1e-12));
  }
  REQUIRE(difference(whole, parts) < 1e-10);
  REQUIRE(difference(whole, make_net(p)) > 1e-3);
  REQUIRE(many.step_count() == 5);
}

TEST_CASE("finish completes what was accumulated, and nothing otherwise", "[train][step]") {
  Net whole = make_net(), parts = make_net();
  TrainStep one(as_model(whole), sgd(whole), cross_entropy_loss());
  TrainStep many(as_model(parts), sgd(parts), cross_entropy_loss());
  many.finish();
  REQUIRE(many.step_count() == 0);
  const Batch batch = make_batch(20);
  one.run(batch);
  many.accumulate(batch.narrow(0, 13));
  many.accumulate(batch.narrow(13, 7));
  many.finish();
  REQUIRE(many.step_count() == 1);
  REQUIRE(difference(whole, parts) < 1e-12);
}

TEST_CASE("A batch whose rows all weigh nothing changes nothing", "[train][step]") {
  Net net = make_net();
  TrainStep step(as_model(net), std::make_shared<optim::SGD>(net->parameters(), optim::SGDOptions(0.1)),
                 cross_entropy_loss());
  Batch batch = make_batch(4);
  batch.weights = torch::zeros({4}, torch::kDouble);
  step.run(batch);
  REQUIRE(difference(net, make_net()) == 0);
}

TEST_CASE("Gradients are unscaled before they are clipped, clipped before the step", "[train][step][amp]") {
  const Batch batch = make_batch(16, torch::kFloat32);
  Net plain = make_net(0, torch::kFloat32), scaled = make_net(0, torch::kFloat32);
  TrainStep first(as_model(plain), sgd(plain), cross_entropy_loss(), {.clip_norm = 0.05});
  amp::MixedPrecision fp16{.autocast = false, .scaler = true};  // the scaler alone: the numbers stay comparable
  TrainStep second(as_model(scaled), sgd(scaled), cross_entropy_loss(), {.precision = fp16, .clip_norm = 0.05});
  for (int k = 0; k < 3; ++k) {
    const torch::Tensor norm = first.run(batch).grad_norm;
    REQUIRE(norm.item<float>() > 0.05F);  // the norm before clipping
    REQUIRE(second.run(batch).grad_norm.item<float>() == Approx(norm.item<float>()).epsilon(1e-5));
  }
  REQUIRE(difference(plain, scaled) < 1e-6);
}

TEST_CASE("A step that overflows is left out by weights, state and average, and the scale falls",
          "[train][step][amp]") {
  const bool clip = GENERATE(false, true);
  Net net = make_net(0, torch::kFloat32);
  auto adam = std::make_shared<optim::Adam>(optim::named_groups(*net), optim::AdamOptions(0.01));
  auto schedule = std::make_shared<optim::ScheduledLR>(*adam, optim::exponential_lr(0.5));
  TrainStep step(as_model(net), adam, cross_entropy_loss(),
                 {.precision = {.scaler = true},
                  .clip_norm = clip ? 1.0 : 0.0,
                  .ema = optim::EmaOptions{.decay = 0.5},
                  .scheduler = schedule});
  Batch good = make_batch(8, torch::kFloat32), bad = make_batch(8, torch::kFloat32);
  bad.inputs["x"][3][1] = std::numeric_limits<float>::infinity();
  REQUIRE(step.run(good).skipped.item<float>() == 0);
  const StateDict weights = step.state_dict().optimizer;
  StateDict before;
  for (const auto& item : state_dict(*net)) before.insert(item.key(), item.value().clone());
  StateDict average;
  for (const auto& item : step.ema()->state_dict()) average.insert(item.key(), item.value().clone());
  const StepResult result = step.run(bad);
  REQUIRE(result.skipped.item<float>() == 1);
  REQUIRE(step.scaler().get_scale() == 32768);
  for (const auto& item : before) REQUIRE(state_dict(*net)[item.key()].equal(item.value()));
  for (const auto& item : average) REQUIRE(step.ema()->state_dict()[item.key()].equal(item.value()));
  REQUIRE(step.state_dict().optimizer["body.0.weight/step"].item<float>() == 1);
  REQUIRE(schedule->step_count() == 2);  // the schedule goes on regardless
  REQUIRE(step.run(good).skipped.item<float>() == 0);
}

TEST_CASE("bfloat16 training comes to the loss of float32, and float16 recovers from overflow", "[train][step][amp]") {
  const auto train = [](amp::MixedPrecision precision) {
    torch::manual_seed(4);
    torch::nn::Sequential net(torch::nn::Linear(kFeatures, 64), torch::nn::ReLU(), torch::nn::Linear(64, kClasses));
    TrainStep step(as_model(net), std::make_shared<optim::Adam>(net->parameters(), optim::AdamOptions(0.01)),
                   cross_entropy_loss(), {.precision = precision, .scaler = {.init_scale = 1e30}});
    Batch batch = make_batch(64, torch::kFloat32);
    batch.target = batch.inputs[0].value().narrow(1, 0, kClasses).argmax(1);
    double loss = 0;
    std::int64_t skipped = 0;
    for (int k = 0; k < 150; ++k) {
      const StepResult result = step.run(batch);
      loss = (result.loss_sum / result.weight).item<double>();
      if (result.skipped.defined()) skipped += result.skipped.item<float>() != 0;
    }
    return std::pair(loss, skipped);
  };
  const auto [exact, none] = train({});
  const auto [mixed, also_none] = train({.autocast = true, .dtype = torch::kBFloat16});
  const auto [half, skipped] = train({.autocast = true, .dtype = torch::kHalf, .scaler = true});
  REQUIRE(exact < 0.2);
  REQUIRE(none + also_none == 0);
  REQUIRE(std::abs(mixed - exact) <= 0.05 * exact + 1e-3);
  REQUIRE(skipped > 5);    // the first scale is too large by far
  REQUIRE(skipped < 120);  // it falls until steps are made
  REQUIRE(half < 0.7);
}

TEST_CASE("Dropout depends on seed and step, not on the generator", "[train][step][dropout]") {
  const auto losses = [](std::uint64_t seed, std::uint64_t generator) {
    Net net = make_net(0.5);
    TrainStep step(as_model(net), sgd(net), cross_entropy_loss(), {.seed = seed});
    torch::manual_seed(generator);
    std::vector<double> result;
    for (int k = 0; k < 3; ++k) {
      const StepResult outcome = step.run(make_batch(16));
      result.push_back(outcome.loss_sum.item<double>());
    }
    return result;
  };
  REQUIRE(losses(1, 1) == losses(1, 2));
  REQUIRE(losses(1, 1) != losses(2, 1));
}

TEST_CASE("A step goes on from a saved state bit for bit", "[train][step][checkpoint]") {
  const auto make = [](const Net& net) {
    auto adam = std::make_shared<optim::Adam>(optim::named_groups(*net), optim::AdamOptions(0.01));
    return TrainStep(as_model(net), adam, cross_entropy_loss(),
                     {.precision = {.scaler = true},
                      .scaler = {.growth_interval = 2},
                      .clip_norm = 1,
                      .scheduler = std::make_shared<optim::ScheduledLR>(*adam, optim::cosine_lr(10)),
                      .seed = 9});
  };
  const Batch batch = make_batch(16, torch::kFloat32);
  Net unbroken = make_net(0.3, torch::kFloat32), broken = make_net(0.3, torch::kFloat32);
  TrainStep whole = make(unbroken);
  for (int k = 0; k < 7; ++k) whole.run(batch);
  TrainStep::State state;
  {
    TrainStep first = make(broken);
    for (int k = 0; k < 3; ++k) first.run(batch);
    state = first.state_dict();
    state.values = Config::parse(state.values.dump());  // as a file brings it back
  }
  TrainStep second = make(broken);
  second.load_state_dict(state);
  REQUIRE(second.step_count() == 3);
  for (int k = 0; k < 4; ++k) second.run(batch);
  REQUIRE(difference(unbroken, broken) == 0);
  REQUIRE(whole.scaler().get_scale() == second.scaler().get_scale());
}

TEST_CASE("Options out of range are refused by name", "[train][step]") {
  Net net = make_net();
  const auto make = [&](TrainStepOptions options) {
    TrainStep(as_model(net), sgd(net), cross_entropy_loss(), options);
  };
  REQUIRE_THROWS_WITH(make({.clip_norm = -1}), Catch::Contains("clip_norm must not be negative, got -1"));
  REQUIRE_THROWS_AS(make({.clip_value = NAN}), ConfigError);
}

TEST_CASE("compile says plainly that nothing is compiled on a CPU, and trains all the same", "[train][step][graph]") {
  std::string said;
  log::set_sink([&](log::Level, std::string_view text) { said += text; });
  Net plain = make_net(), compiled = make_net();
  TrainStep first(as_model(plain), sgd(plain), cross_entropy_loss());
  TrainStep second(as_model(compiled), sgd(compiled), cross_entropy_loss(), {.compile = true});
  log::set_sink({});
  REQUIRE_THAT(said, Catch::Contains("nothing is compiled") && Catch::Contains("cpu"));
  for (int k = 0; k < 6; ++k) {
    first.run(make_batch(8));
    second.run(make_batch(8));
  }
  REQUIRE(difference(plain, compiled) == 0);
}

// Records by keeping the work, and replays by doing it again: what a device does, without its speed.
class RepeatingRecorder final : public mmtrain::detail::GraphRecorder {
 public:
  void warm_up(const std::function<void()>& work) override {
    ++warm_ups;
    work();
  }
  void capture(const std::function<void()>& work) override { work(); }
  void replay() override {
    ++replays;
    again();
  }
  std::function<void()> again;
  int warm_ups = 0, replays = 0;
};

TEST_CASE("A recorded step is replayed for batches of its shape and left aside for others", "[train][step][graph]") {
  auto recorder = std::make_unique<RepeatingRecorder>();
  RepeatingRecorder& seen = *recorder;
  mmtrain::detail::StepGraph graph(std::move(recorder));
  // The "device": reads the batch it was given when recorded, writes into the tensor it made then.
  torch::Tensor made, read;
  int direct = 0;
  const mmtrain::detail::StepGraph::Work work = [&](const Batch& batch) {
    ++direct;
    made = batch.inputs[0].value().sum().clone();
    read = batch.inputs[0].value();
    return StepResult{.loss_sum = made};
  };
  seen.again = [&] { made.copy_(read.sum()); };
  const auto batch_of = [](double value, std::int64_t rows) {
    Batch batch;
    batch.inputs.insert("x", torch::full({rows, 2}, value));
    batch.target = torch::zeros({rows}, torch::kInt64);
    return batch;
  };
  for (int k = 0; k < 3; ++k) REQUIRE(graph.run(batch_of(k, 4), work).loss_sum.item<double>() == 8 * k);
  REQUIRE(seen.warm_ups == 3);
  REQUIRE_FALSE(graph.is_recorded());
  for (int k = 3; k < 6; ++k) REQUIRE(graph.run(batch_of(k, 4), work).loss_sum.item<double>() == 8 * k);
  REQUIRE(graph.is_recorded());
  REQUIRE(direct == 4);  // three warm-ups and the recording
  REQUIRE(seen.replays == 3);
  const torch::Tensor recorded = made, reads = read;
  REQUIRE(graph.run(batch_of(7, 3), work).loss_sum.item<double>() == 42);  // the last batch of an epoch
  REQUIRE(direct == 5);
  REQUIRE(seen.replays == 3);
  made = recorded;
  read = reads;
  REQUIRE(graph.run(batch_of(9, 4), work).loss_sum.item<double>() == 72);
}

// ---- on a GPU: these run by `make gpu-check` alone

TEST_CASE("On CUDA a captured step equals the one run as it is", "[.][gpu][graph]") {
  const bool half = GENERATE(false, true);
  const auto train = [&](bool compile) {
    Net net = make_net(0.3, torch::kFloat32);
    net->to(torch::kCUDA);
    const auto adam = std::make_shared<optim::AdamW>(optim::named_groups(*net), optim::AdamWOptions(0.01));
    amp::MixedPrecision precision{.autocast = half, .dtype = half ? torch::kHalf : torch::kFloat, .scaler = half};
    TrainStep step(as_model(net), adam, cross_entropy_loss(),
                   {.precision = precision,
                    .clip_norm = 1,
                    .ema = optim::EmaOptions{.decay = 0.9},
                    .scheduler = std::make_shared<optim::ScheduledLR>(*adam, optim::cosine_lr(12)),
                    .compile = compile,
                    .seed = 3});
    REQUIRE(step.is_compiled() == compile);
    std::vector<double> losses;
    for (int k = 0; k < 12; ++k) {
      const Batch batch = make_batch(k == 7 ? 9 : 16, torch::kFloat32).to(torch::kCUDA);  // one of odd size
      const StepResult result = step.run(batch);
      losses.push_back((result.loss_sum / result.weight).item<double>());
    }
    return losses;
  };
  const std::vector<double> eager = train(false), captured = train(true);
  for (std::size_t k = 0; k < eager.size(); ++k) REQUIRE(captured[k] == Approx(eager[k]).epsilon(half ? 1e-3 : 1e-5));
}

TEST_CASE("On CUDA bfloat16 and float16 come to the loss of float32", "[.][gpu][amp]") {
  const auto train = [](amp::MixedPrecision precision) {
    torch::manual_seed(4);
    torch::nn::Sequential net(torch::nn::Linear(kFeatures, 64), torch::nn::ReLU(), torch::nn::Linear(64, kClasses));
    net->to(torch::kCUDA);
    TrainStep step(as_model(net), std::make_shared<optim::Adam>(net->parameters(), optim::AdamOptions(0.01)),
                   cross_entropy_loss(), {.precision = precision});
    Batch batch = make_batch(64, torch::kFloat32);
    batch.target = batch.inputs[0].value().narrow(1, 0, kClasses).argmax(1);
    batch = batch.to(torch::kCUDA);
    StepResult result;
    for (int k = 0; k < 150; ++k) result = step.run(batch);
    return (result.loss_sum / result.weight).item<double>();
  };
  const double exact = train({});
  REQUIRE(exact < 0.2);
  REQUIRE(train({.autocast = true, .dtype = torch::kBFloat16}) == Approx(exact).epsilon(0.05).margin(2e-3));
  REQUIRE(train({.autocast = true, .dtype = torch::kHalf, .scaler = true}) == Approx(exact).epsilon(0.05).margin(2e-3));
}

TEST_CASE("On CUDA training gives the numbers of the CPU, dropout included", "[.][gpu]") {
  const auto train = [](torch::Device device) {
    Net net = make_net(0.4);
    net->to(device);
    TrainStep step(as_model(net), sgd(net), cross_entropy_loss(), {.clip_norm = 0.5, .seed = 8});
    for (int k = 0; k < 10; ++k) step.run(make_batch(32).to(device));
    net->to(torch::kCPU);
    return net;
  };
  REQUIRE(difference(train(torch::kCPU), train(torch::kCUDA)) < 1e-10);
}
