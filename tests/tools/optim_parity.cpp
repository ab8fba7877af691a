// C++ side of tests/python/optim_parity.py: optimizers, schedules, clipping and moving averages on numbers that Python
// wrote. With `--bench FOLDER` instead it times optimizer steps on demand, to be measured in turn with Python's.

#include <torch/torch.h>

#include <chrono>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/io/tensor_file.h"
#include "mmtrain/optim/adam.h"
#include "mmtrain/optim/clip.h"
#include "mmtrain/optim/ema.h"
#include "mmtrain/optim/rmsprop.h"
#include "mmtrain/optim/schedule.h"
#include "mmtrain/optim/scheduler.h"
#include "mmtrain/optim/sgd.h"
#include "parity_case.h"

namespace {

using namespace mmtrain;
using torch::Tensor;

StateDict weights_of(const parity::Case& test) {
  StateDict weights = load_safetensors(test.path("weights.safetensors"));
  for (auto& item : weights) item.value().set_requires_grad(true);
  return weights;
}

StateDict clones(const StateDict& tensors) {
  StateDict result;
  for (const auto& item : tensors) result.insert(item.key(), item.value().detach().clone());
  return result;
}

// Two groups: names that begin with `encoder.` have settings of their own.
std::vector<optim::ParamGroup> groups_of(const parity::Case& test, const StateDict& weights) {
  std::vector<optim::ParamGroup> groups(2);
  groups[0] = {"encoder", StateDict(), test.number("encoder_lr"), test.number("encoder_weight_decay")};
  groups[1] = {"head", StateDict(), {}, {}};
  for (const auto& item : weights) {
    groups[item.key().starts_with("encoder.") ? 0 : 1].parameters.insert(item.key(), item.value());
  }
  return groups;
}

std::unique_ptr<optim::Optimizer> make_optimizer(const parity::Case& test, const StateDict& weights) {
  const auto groups = groups_of(test, weights);
  const std::string& name = test.text("optimizer");
  const double lr = test.number("lr"), weight_decay = test.number("weight_decay");
  if (name == "SGD") {
    return std::make_unique<optim::SGD>(groups, optim::SGDOptions(lr)
                                                    .weight_decay(weight_decay)
                                                    .momentum(test.number("momentum"))
                                                    .dampening(test.number("dampening"))
                                                    .nesterov(test.number("nesterov") != 0));
  }
  if (name == "RMSprop") {
    return std::make_unique<optim::RMSprop>(groups, optim::RMSpropOptions(lr)
                                                        .weight_decay(weight_decay)
                                                        .momentum(test.number("momentum"))
                                                        .centered(test.number("centered") != 0));
  }
  const bool amsgrad = test.number("amsgrad") != 0;
  if (name == "Adam") {
    return std::make_unique<optim::Adam>(groups, optim::AdamOptions(lr).weight_decay(weight_decay).amsgrad(amsgrad));
  }
  if (name == "AdamW") {
    return std::make_unique<optim::AdamW>(groups, optim::AdamWOptions(lr).weight_decay(weight_decay).amsgrad(amsgrad));
  }
  throw ConfigError("[optim_parity] unknown optimizer " + name);
}

// From step `start` to the end; in the middle everything is saved and made anew.
void run_optimizer(const parity::Case& test) {
  StateDict weights = weights_of(test);
  const auto steps = static_cast<std::int64_t>(test.number("steps")), middle = steps / 2;
  auto optimizer = make_optimizer(test, weights);
  auto scheduler = std::make_unique<optim::ScheduledLR>(*optimizer, optim::cosine_lr(steps, 1e-3));
  const auto start = static_cast<std::int64_t>(test.number("start"));
  if (start > 0) {
    optimizer->load_state_dict(load_safetensors(test.path("state.safetensors")));
    for (std::int64_t step = 0; step < start; ++step) scheduler->step();
  }
  for (std::int64_t step = start; step < steps; ++step) {
    if (step == middle && start == 0) {
      save_safetensors(test.path("middle_weights.safetensors"), weights);
      save_safetensors(test.path("middle_state.safetensors"), optimizer->state_dict());
      const std::string text = scheduler->state_dict().dump();
      weights = clones(weights);
      for (auto& item : weights) item.value().set_requires_grad(true);
      optimizer = make_optimizer(test, weights);
      optimizer->load_state_dict(load_safetensors(test.path("middle_state.safetensors")));
      scheduler = std::make_unique<optim::ScheduledLR>(*optimizer, optim::cosine_lr(steps, 1e-3));
      scheduler->load_state_dict(Config::parse(text));
    }
    for (auto& item : weights) {
      const bool present = test.input("present." + item.key())[step].item<bool>();
      item.value().mutable_grad() = present ? test.input("grad." + item.key())[step] : Tensor();
    }
    optimizer->step();
    scheduler->step();
  }
  save_safetensors(test.path("result.safetensors"), weights);
}

optim::Schedule make_schedule(const parity::Case& test) {
  const std::string& name = test.text("schedule");
  const auto whole = [&](const char* key) { return static_cast<std::int64_t>(test.number(key)); };
  if (name == "step") return optim::step_lr(whole("step_size"), test.number("gamma"));
  if (name == "multistep") return optim::multistep_lr({70, 20, 150, 150}, test.number("gamma"));
  if (name == "exponential") return optim::exponential_lr(test.number("gamma"));
  if (name == "cosine") return optim::cosine_lr(whole("t_max"), test.number("eta_min"));
  if (name == "restarts") return optim::cosine_restarts_lr(whole("t_0"), whole("t_mult"), test.number("eta_min"));
  if (name == "linear") {
    return optim::linear_lr(whole("total"), test.number("start_factor"), test.number("end_factor"));
  }
  if (name == "polynomial") return optim::polynomial_lr(whole("total"), test.number("power"));
  if (name == "one_cycle") {
    return optim::one_cycle_lr({.total_steps = whole("total"),
                                .pct_start = test.number("pct_start"),
                                .cosine = test.text("anneal") == "cos",
                                .three_phase = test.number("three_phase") != 0});
  }
  if (name == "warmup_cosine") return optim::warmup_lr(whole("warmup"), optim::cosine_lr(whole("t_max")), 0.01);
  if (name == "sequence") {
    return optim::sequential_lr({optim::linear_lr(10, 0.1), optim::cosine_restarts_lr(15, 2, 1e-3),
                                 optim::exponential_lr(0.97), optim::polynomial_lr(40, 2.0)},
                                {10, 60, 120});
  }
  throw ConfigError("[optim_parity] unknown schedule " + name);
}

// An optimizer of two groups that is only there to have learning rates.
struct TwoGroups {
  explicit TwoGroups(const parity::Case& test)
      : optimizer({optim::ParamGroup{"a", one("a"), test.number("lr_a"), {}}, {"b", one("b"), test.number("lr_b"), {}}},
                  optim::SGDOptions(1.0).momentum(0.5)) {}
  static StateDict one(const std::string& name) {
    StateDict result;
    result.insert(name, torch::zeros(1).set_requires_grad(true));
    return result;
  }
  double momentum() { return static_cast<optim::SGDOptions&>(optimizer.param_groups()[0].options()).momentum(); }
  optim::SGD optimizer;
};

std::unique_ptr<optim::LRScheduler> make_scheduler(const parity::Case& test, optim::Optimizer& optimizer) {
  if (test.text("schedule") != "plateau") return std::make_unique<optim::ScheduledLR>(optimizer, make_schedule(test));
  using Options = optim::PlateauOptions;
  return std::make_unique<optim::PlateauLR>(
      optimizer, Options{.mode = test.text("mode") == "min" ? Options::Mode::min : Options::Mode::max,
                         .factor = test.number("factor"),
                         .patience = static_cast<int>(test.number("patience")),
                         .threshold = test.number("threshold"),
                         .threshold_mode = test.text("threshold_mode") == "rel" ? Options::Threshold::relative
                                                                                : Options::Threshold::absolute,
                         .cooldown = static_cast<int>(test.number("cooldown")),
                         .min_lr = test.number("min_lr")});
}

void run_schedule(const parity::Case& test) {
  constexpr std::int64_t kCut = 77;  // where the state goes through JSON into a new scheduler
  const Tensor metrics = test.input("metrics");
  std::vector<double> lrs, momenta;
  auto groups = std::make_unique<TwoGroups>(test);
  auto scheduler = make_scheduler(test, groups->optimizer);
  for (std::int64_t step = 0; step < metrics.size(0); ++step) {
    if (step == kCut) {
      const std::string text = scheduler->state_dict().dump();
      groups = std::make_unique<TwoGroups>(test);
      scheduler = make_scheduler(test, groups->optimizer);
      scheduler->load_state_dict(Config::parse(text));
    }
    for (const double lr : scheduler->lrs()) lrs.push_back(lr);
    momenta.push_back(groups->momentum());
    scheduler->step(metrics[step].item<double>());
  }
  StateDict output;
  output.insert("lrs", torch::tensor(lrs, torch::kDouble).view({-1, 2}));
  output.insert("momenta", torch::tensor(momenta, torch::kDouble));
  save_safetensors(test.path("result.safetensors"), output);
}

void run_clip(const parity::Case& test) {
  const StateDict weights = weights_of(test);
  for (const auto& item : weights) Tensor(item.value()).mutable_grad() = test.input("grad." + item.key()).clone();
  StateDict output;
  if (test.text("by") == "value") {
    optim::clip_grad_value(weights.values(), test.number("limit"));
  } else {
    const std::string& order = test.text("norm_type");
    const double norm_type = order == "inf" ? std::numeric_limits<double>::infinity() : std::stod(order);
    output.insert("norm", optim::clip_grad_norm(weights.values(), test.number("limit"), norm_type).reshape({1}));
  }
  for (const auto& item : weights) output.insert(item.key(), item.value().grad());
  save_safetensors(test.path("result.safetensors"), output);
}

void run_ema(const parity::Case& test) {
  torch::nn::Sequential net(torch::nn::Linear(4, 3), torch::nn::BatchNorm1d(3));
  load_state_dict(*net, load_safetensors(test.path("weights.safetensors")));
  const auto whole = [&](const char* key) { return static_cast<std::int64_t>(test.number(key)); };
  optim::Ema ema(*net, {.decay = test.number("decay"),
                        .min_decay = test.number("min_decay"),
                        .update_after_step = whole("update_after_step"),
                        .warmup = test.number("warmup") != 0,
                        .warmup_gamma = test.number("warmup_gamma"),
                        .warmup_power = test.number("warmup_power")});
  std::vector<double> decays;
  const StateDict names = clones(state_dict(*net));
  for (std::int64_t step = 0; step < whole("steps"); ++step) {
    StateDict weights;
    for (const auto& item : names) weights.insert(item.key(), test.input("step." + item.key())[step]);
    load_state_dict(*net, weights);
    ema.update();
    decays.push_back(ema.decay_at(step + 1));
    if (step == whole("steps") / 2) {  // a round trip of the state
      optim::Ema other(*net, {.decay = test.number("decay")});
      other.load_state_dict(clones(ema.state_dict()), ema.updates());
      ema.load_state_dict(clones(other.state_dict()), other.updates());
    }
  }
  StateDict output = clones(ema.state_dict());
  output.insert("decays", torch::tensor(decays, torch::kDouble));
  save_safetensors(test.path("result.safetensors"), output);
}

void run(const parity::Case& test) {
  const std::string& kind = test.text("kind");
  if (kind == "optimizer") return run_optimizer(test);
  if (kind == "schedule") return run_schedule(test);
  if (kind == "clip") return run_clip(test);
  if (kind == "ema") return run_ema(test);
  throw ConfigError("[optim_parity] unknown kind " + kind);
}

// Answers each line `N` on stdin with the milliseconds of one step, on average of N.
int bench(const parity::Case& test) {
  torch::set_num_threads(static_cast<int>(test.number("threads")));
  StateDict weights = weights_of(test);
  const auto optimizer = make_optimizer(test, weights);
  for (auto& item : weights) item.value().mutable_grad() = torch::randn_like(item.value().detach()) * 1e-3;
  for (int step = 0; step < 3; ++step) optimizer->step();
  for (int count; std::cin >> count;) {
    const auto start = std::chrono::steady_clock::now();
    for (int step = 0; step < count; ++step) optimizer->step();
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
    std::cout << elapsed.count() / count << std::endl;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--bench") return bench(parity::Case(argv[2]));
  return parity::run_cases(argc, argv, run);
}
