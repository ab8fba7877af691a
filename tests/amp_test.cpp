#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "mmtrain/amp/autocast.h"
#include "mmtrain/amp/grad_scaler.h"
#include "mmtrain/amp/policy.h"
#include "mmtrain/core/error.h"
#include "mmtrain/optim/adam.h"
#include "mmtrain/optim/sgd.h"

using namespace mmtrain;
using torch::Tensor;

namespace {

torch::ScalarType product_type() {
  const Tensor a = torch::ones({4, 4});
  return torch::mm(a, a).scalar_type();
}

// A parameter and, after `overflow_next`, gradients that are infinite.
struct Problem {
  Tensor weight = torch::ones({5}).set_requires_grad(true);
  void backward(amp::GradScaler& scaler, double gradient) {
    weight.mutable_grad() = Tensor();
    scaler.scale((weight * gradient).sum()).backward();
  }
};

constexpr double kOverflow = 1e38;  // times any scale above 3.4: infinite

DeviceInfo gpu(int major, int minor) {
  return {.device = torch::Device(torch::kCUDA, 0),
          .name = "NVIDIA Test",
          .capability_major = major,
          .capability_minor = minor};
}

const DeviceInfo kCpu{.device = torch::kCPU, .name = "CPU"};

double never_measured() { throw Error("the probe was run"); }

// Loss of a small net after `steps` steps on a task it can learn.
double trained_loss(const std::function<Tensor(torch::nn::Sequential&, const Tensor&, const Tensor&)>& loss_of,
                    amp::GradScaler& scaler, int steps) {
  torch::manual_seed(3);
  torch::nn::Sequential net(torch::nn::Linear(16, 32), torch::nn::ReLU(), torch::nn::Linear(32, 3));
  optim::AdamW optimizer(net->parameters(), optim::AdamWOptions(3e-3));
  const Tensor inputs = torch::randn({192, 16});
  const Tensor targets = inputs.narrow(1, 0, 3).argmax(1);
  for (int step = 0; step < steps; ++step) {
    optimizer.zero_grad();
    const Tensor loss = loss_of(net, inputs, targets);
    scaler.scale(loss).backward();
    scaler.step(optimizer);
    scaler.update();
  }
  const torch::NoGradGuard no_grad;
  return torch::cross_entropy_loss(net->forward(inputs), targets).item<double>();
}

Tensor full_loss(torch::nn::Sequential& net, const Tensor& inputs, const Tensor& targets) {
  return torch::cross_entropy_loss(net->forward(inputs), targets);
}

}  // namespace

TEST_CASE("Autocast holds in its scope and restores what was before, on exceptions too", "[amp]") {
  REQUIRE(product_type() == torch::kFloat);
  {
    const amp::Autocast outer(torch::kCPU, torch::kBFloat16);
    CHECK(product_type() == torch::kBFloat16);
    {
      const amp::Autocast island(torch::kCPU, torch::kBFloat16, /*enabled=*/false);
      CHECK(product_type() == torch::kFloat);
    }
    try {
      const amp::Autocast inner(torch::kCPU, torch::kHalf, true, /*cache=*/false);
      CHECK(product_type() == torch::kHalf);
      CHECK_FALSE(at::autocast::is_autocast_cache_enabled());
      throw Error("forward failed");
    } catch (const Error&) {
    }
    CHECK(product_type() == torch::kBFloat16);
    CHECK(at::autocast::is_autocast_cache_enabled());
  }
  CHECK(product_type() == torch::kFloat);
  CHECK(at::autocast::get_autocast_dtype(torch::kCPU) == torch::kBFloat16);
}

TEST_CASE("Autocast belongs to its thread", "[amp]") {
  const amp::Autocast here(torch::kCPU);
  torch::ScalarType elsewhere{}, with_scope{};
  std::thread([&] {
    elsewhere = product_type();
    const amp::Autocast scope(torch::kCPU, torch::kHalf);
    with_scope = product_type();
  }).join();
  CHECK(elsewhere == torch::kFloat);
  CHECK(with_scope == torch::kHalf);
  CHECK(product_type() == torch::kBFloat16);
}

TEST_CASE("Weights converted in a scope are used again in it and not after it", "[amp]") {
  Tensor weight = torch::ones({4, 4}).set_requires_grad(true);
  const Tensor input = torch::ones({4, 4});
  Tensor first, second;
  {
    const amp::Autocast scope(torch::kCPU);
    first = torch::mm(input, weight);
    second = torch::mm(input, weight);
  }
  {
    const torch::NoGradGuard no_grad;
    weight.fill_(3);
  }
  const amp::Autocast scope(torch::kCPU);
  CHECK(torch::mm(input, weight)[0][0].item<float>() == 12);
  (first + second).sum().backward();
  CHECK(weight.grad()[0][0].item<float>() == 8);
}

TEST_CASE("Autocast refuses types and devices it cannot serve, and changes nothing then", "[amp]") {
  CHECK_THROWS_WITH(amp::Autocast(torch::kCPU, torch::kFloat), Catch::Contains("Half or BFloat16, got Float"));
  CHECK_THROWS_AS(amp::Autocast(torch::kMeta), ConfigError);
  CHECK(product_type() == torch::kFloat);
  CHECK_NOTHROW(amp::Autocast(torch::kCPU, torch::kFloat, /*enabled=*/false));
}

TEST_CASE("The scale grows after an interval, backs off and skips on overflow", "[amp][scaler]") {
  Problem problem;
  optim::SGD optimizer({problem.weight}, optim::SGDOptions(0.5));
  amp::GradScaler scaler({.init_scale = 8, .growth_interval = 2});
  CHECK(scaler.get_scale() == 8);
  const std::vector<double> gradients{1, 1, kOverflow, 1, 1, 1};
  const std::vector<double> scales{8, 16, 8, 8, 16, 16}, weights{0.5, 0, 0, -0.5, -1, -1.5};
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    problem.backward(scaler, gradients[i]);
    scaler.step(optimizer);
    const Tensor found = scaler.found_inf(optimizer);
    scaler.update();
    CHECK(scaler.get_scale() == scales[i]);
    CHECK(problem.weight[0].item<float>() == Approx(weights[i]));
    CHECK(scaler.last_step_skipped() == (gradients[i] == kOverflow));
    CHECK((found.item<float>() == 1) == scaler.last_step_skipped());
    CHECK(torch::equal(scaler.found_inf(optimizer), found));
  }
}

TEST_CASE("An optimizer of LibTorch is stepped or left out just so", "[amp][scaler]") {
  Problem problem;
  torch::optim::SGD optimizer({problem.weight}, torch::optim::SGDOptions(0.5));
  amp::GradScaler scaler({.init_scale = 1024});
  problem.backward(scaler, 1);
  scaler.step(optimizer);
  scaler.update();
  CHECK(problem.weight[0].item<float>() == 0.5);
  problem.backward(scaler, kOverflow);
  scaler.step(optimizer);
  scaler.update();
  CHECK(problem.weight[0].item<float>() == 0.5);
  CHECK(scaler.get_scale() == 512);
}

TEST_CASE("Unscaled gradients are seen before the step and not unscaled again", "[amp][scaler]") {
  Problem problem;
  optim::SGD optimizer({problem.weight}, optim::SGDOptions(1));
  amp::GradScaler scaler({.init_scale = 3});
  problem.backward(scaler, 0.25);
  CHECK(problem.weight.grad()[0].item<float>() == 0.75);
  scaler.unscale_(optimizer);
  CHECK(problem.weight.grad()[0].item<float>() == Approx(0.25));
  scaler.step(optimizer);
  CHECK(problem.weight[0].item<float>() == Approx(0.75));
}

TEST_CASE("Several optimizers share a scale and skip each for itself", "[amp][scaler]") {
  Problem good, bad;
  optim::AdamW first({good.weight}, optim::AdamWOptions(0.1));
  torch::optim::SGD second({bad.weight}, torch::optim::SGDOptions(0.1));
  amp::GradScaler scaler({.init_scale = 64});
  good.backward(scaler, 1);
  bad.backward(scaler, kOverflow);
  scaler.step(first);
  scaler.step(second);
  scaler.update();
  CHECK(good.weight[0].item<float>() != 1);
  CHECK(bad.weight[0].item<float>() == 1);
  CHECK(scaler.found_inf(first).item<float>() == 0);
  CHECK(scaler.found_inf(second).item<float>() == 1);
  CHECK(scaler.last_step_skipped());
  CHECK(scaler.get_scale() == 32);
}

TEST_CASE("Several outputs are scaled alike", "[amp][scaler]") {
  amp::GradScaler scaler({.init_scale = 4});
  const auto scaled = scaler.scale(std::vector<Tensor>{torch::ones({2}), torch::full({1}, 3.0)});
  CHECK(scaled[0][1].item<float>() == 4);
  CHECK(scaled[1].item<float>() == 12);
  CHECK(scaler.scale_tensor().item<float>() == 4);
}

TEST_CASE("Calls out of order are refused", "[amp][scaler]") {
  Problem problem;
  optim::SGD optimizer({problem.weight}, optim::SGDOptions(1));
  amp::GradScaler scaler;
  CHECK_THROWS_WITH(scaler.step(optimizer), Catch::Contains("scale(loss)"));
  CHECK_THROWS_AS(scaler.update(), ConfigError);
  problem.backward(scaler, 1);
  CHECK_THROWS_WITH(scaler.update(), Catch::Contains("step"));
  scaler.unscale_(optimizer);
  CHECK_THROWS_WITH(scaler.unscale_(optimizer), Catch::Contains("twice"));
  scaler.step(optimizer);
  CHECK_THROWS_WITH(scaler.step(optimizer), Catch::Contains("twice"));
  CHECK_THROWS_WITH(scaler.unscale_(optimizer), Catch::Contains("before step"));
  scaler.update();
  optimizer.zero_grad();
  CHECK_THROWS_WITH(scaler.step(optimizer), Catch::Contains("gradient"));

  Tensor half = torch::ones({2}, torch::kHalf).set_requires_grad(true);
  half.mutable_grad() = torch::ones_like(half.detach());
  torch::optim::SGD on_half({half}, torch::optim::SGDOptions(1));
  CHECK_THROWS_WITH(scaler.unscale_(on_half), Catch::Contains("float16"));

  CHECK_THROWS_AS(amp::GradScaler({.growth_factor = 1}), ConfigError);
  CHECK_THROWS_AS(amp::GradScaler({.backoff_factor = 1}), ConfigError);
  CHECK_THROWS_AS(amp::GradScaler({.init_scale = 0}), ConfigError);
  CHECK_THROWS_AS(amp::GradScaler({.growth_interval = 0}), ConfigError);
}

TEST_CASE("A disabled scaler passes everything through", "[amp][scaler]") {
  Problem problem;
  optim::SGD optimizer({problem.weight}, optim::SGDOptions(1));
  amp::GradScaler scaler({.enabled = false});
  const Tensor loss = torch::ones({});
  CHECK(scaler.scale(loss).is_same(loss));
  problem.backward(scaler, 0.5);
  scaler.unscale_(optimizer);
  scaler.step(optimizer);
  scaler.update();
  CHECK(problem.weight[0].item<float>() == 0.5);
  CHECK(scaler.get_scale() == 1);
  CHECK(scaler.state_dict().keys().empty());
  CHECK_FALSE(scaler.last_step_skipped());
  CHECK_FALSE(scaler.found_inf(optimizer).defined());
  CHECK_NOTHROW(scaler.load_state_dict(Config()));
}

TEST_CASE("A scale can be set, and a state saved and put back", "[amp][scaler]") {
  Problem problem;
  optim::SGD optimizer({problem.weight}, optim::SGDOptions(1));
  amp::GradScaler scaler({.init_scale = 16, .growth_interval = 3});
  for (int i = 0; i < 2; ++i) {
    problem.backward(scaler, 1);
    scaler.step(optimizer);
    scaler.update();
  }
  const std::string text = scaler.state_dict().dump(-1);
  CHECK(text == R"({"scale":16.0,"growth_factor":2.0,"backoff_factor":0.5,"growth_interval":3,"_growth_tracker":2})");
  amp::GradScaler fresh, used({.init_scale = 4});
  used.scale(torch::ones({}));
  for (amp::GradScaler* other : {&fresh, &used}) {
    other->load_state_dict(Config::parse(text));
    CHECK(other->get_scale() == 16);
    problem.backward(*other, 1);
    other->step(optimizer);
    other->update();
    CHECK(other->get_scale() == 32);
  }
  CHECK_THROWS_WITH(fresh.load_state_dict(Config::parse("{\"scale\": 2.0}")), Catch::Contains("growth_factor"));
  CHECK(fresh.get_scale() == 32);
  fresh.update(5.0);
  CHECK(fresh.get_scale() == 5);
  fresh.update(torch::full({1}, 6.0));
  CHECK(fresh.get_scale() == 6);
  CHECK_THROWS_AS(fresh.update(torch::ones({2})), ConfigError);
}

TEST_CASE("Precision is read from its names", "[amp][policy]") {
  CHECK(amp::parse_precision("auto") == amp::Precision::automatic);
  CHECK(amp::parse_precision("off") == amp::Precision::off);
  CHECK(amp::parse_precision("fp16") == amp::Precision::fp16);
  CHECK(amp::parse_precision("bf16") == amp::Precision::bf16);
  CHECK_THROWS_WITH(amp::parse_precision("half"), Catch::Contains("auto, off, fp16 or bf16, got 'half'"));
}

TEST_CASE("The precision follows from the device and says why", "[amp][policy]") {
  using amp::Precision;
  const auto automatic = [](const DeviceInfo& device, double speedup) {
    return amp::decide_precision(Precision::automatic, device, [=] { return speedup; });
  };
  const amp::Decision ampere = amp::decide_precision(Precision::automatic, gpu(8, 6), never_measured);
  CHECK(ampere.autocast);
  CHECK(ampere.dtype == torch::kBFloat16);
  CHECK_FALSE(ampere.scaler);
  CHECK(ampere.reason == "bfloat16: NVIDIA Test has compute capability 8.6");
  const amp::Decision volta = amp::decide_precision(Precision::automatic, gpu(7, 0), never_measured);
  CHECK(volta.dtype == torch::kHalf);
  CHECK(volta.scaler);
  CHECK_FALSE(amp::decide_precision(Precision::automatic, gpu(6, 1), never_measured).autocast);

  CHECK(automatic(kCpu, 1.8).dtype == torch::kBFloat16);
  CHECK_FALSE(automatic(kCpu, 1.05).autocast);
  const amp::Decision slow = automatic(kCpu, 0.02);
  CHECK_FALSE(slow.autocast);
  CHECK(slow.dtype == torch::kFloat);
  CHECK(slow.reason.find("50.0 times slower") != std::string::npos);

  const amp::Decision demanded = amp::decide_precision(Precision::fp16, kCpu, never_measured);
  CHECK(demanded.dtype == torch::kHalf);
  CHECK(demanded.scaler);
  CHECK(amp::decide_precision(Precision::bf16, gpu(7, 5)).reason.find("emulates") != std::string::npos);
  CHECK_FALSE(amp::decide_precision(Precision::off, gpu(9, 0), never_measured).autocast);
}

TEST_CASE("The probe of this CPU gives one answer", "[amp][policy]") {
  const double speedup = amp::cpu_bf16_speedup();
  CHECK(speedup > 0);
  CHECK(std::isfinite(speedup));
  CHECK(amp::cpu_bf16_speedup() == speedup);
  const amp::Decision decision = amp::decide_precision(amp::Precision::automatic, torch::Device(torch::kCPU));
  CHECK(decision.autocast == (speedup >= 1.1));
}

TEST_CASE("A bfloat16 run reaches the loss of float32", "[amp]") {
  amp::GradScaler off({.enabled = false});
  const double full = trained_loss(full_loss, off, 120);
  const double mixed = trained_loss(
      [](torch::nn::Sequential& net, const Tensor& inputs, const Tensor& targets) {
        const amp::Autocast scope(torch::kCPU, torch::kBFloat16);
        return full_loss(net, inputs, targets);
      },
      off, 120);
  CHECK(full < 0.5);
  CHECK(mixed == Approx(full).epsilon(0.05));
}

TEST_CASE("A float16 run overflows at its first scale, recovers and learns", "[amp][scaler]") {
  amp::GradScaler off({.enabled = false});
  const double full = trained_loss(full_loss, off, 120);
  // A scale at which gradients of float16 activations overflow for certain.
  amp::GradScaler scaler({.init_scale = 16777216.0});
  int skipped = 0;
  const double mixed = trained_loss(
      [&](torch::nn::Sequential& net, const Tensor& inputs, const Tensor& targets) {
        skipped += scaler.last_step_skipped() ? 1 : 0;
        const amp::Autocast scope(torch::kCPU, torch::kHalf);
        return full_loss(net, inputs, targets);
      },
      scaler, 120);
  CHECK(skipped > 0);
  CHECK(skipped < 20);
  CHECK(scaler.get_scale() < 16777216.0);
  CHECK(mixed == Approx(full).epsilon(0.2));
}
