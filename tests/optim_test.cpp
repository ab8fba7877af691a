#include <ATen/record_function.h>
#include <torch/torch.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "mmtrain/core/error.h"
#include "mmtrain/io/tensor_file.h"
#include "mmtrain/optim/adam.h"
#include "mmtrain/optim/clip.h"
#include "mmtrain/optim/ema.h"
#include "mmtrain/optim/param_groups.h"
#include "mmtrain/optim/rmsprop.h"
#include "mmtrain/optim/schedule.h"
#include "mmtrain/optim/scheduler.h"
#include "mmtrain/optim/sgd.h"

using namespace mmtrain;
using torch::Tensor;
using Tensors = std::vector<Tensor>;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Tensor random(at::IntArrayRef shape, torch::ScalarType dtype = torch::kDouble) { return torch::randn(shape, dtype); }

// Leaves of odd sizes, so that vectorized kernels have remainders.
Tensors make_params(torch::ScalarType dtype = torch::kDouble) {
  torch::manual_seed(1);
  Tensors params{random({67}, dtype), random({5, 3}, dtype), random({}, dtype), random({4, 3, 3, 3}, dtype)};
  for (Tensor& param : params) param.set_requires_grad(true);
  return params;
}

Tensors copies(const Tensors& tensors) {
  Tensors result;
  for (const Tensor& tensor : tensors) {
    result.push_back(tensor.detach().clone().set_requires_grad(tensor.requires_grad()));
  }
  return result;
}

// The same gradients for a step whoever asks.
void set_grads(Tensors& params, int step) {
  torch::manual_seed(100 + step);
  for (Tensor& param : params) param.mutable_grad() = torch::randn_like(param.detach());
}

double distance(const Tensors& a, const Tensors& b) {
  REQUIRE(a.size() == b.size());
  double result = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    result = std::max(result, (a[i] - b[i]).detach().abs().max().to(torch::kDouble).item<double>());
  }
  return result;
}

bool equal(const Tensors& a, const Tensors& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Tensor& x, const Tensor& y) { return torch::equal(x.detach(), y.detach()); });
}

StateDict named(const Tensors& params) {
  StateDict names;
  for (std::size_t i = 0; i < params.size(); ++i) names.insert(std::string("p").append(std::to_string(i)), params[i]);
  return names;
}

Tensors clones(const StateDict& state) { return copies(state.values()); }

// The paths without a fused kernel, which otherwise only rare settings take.
template <class Base>
class Foreach : public Base {
 public:
  using Base::Base;

 protected:
  bool can_fuse(const torch::optim::OptimizerOptions&, torch::Device, torch::ScalarType) const override {
    return false;
  }
};

amp::StepScale found(bool inf, double scale = 0) {
  amp::StepScale result;
  result.found_inf = torch::full({}, inf ? 1.0 : 0.0);
  if (scale != 0) result.grad_scale = torch::full({}, scale);
  return result;
}

// One of every kind, made by `make(params)`.
using Maker = std::function<std::unique_ptr<optim::Optimizer>(Tensors)>;

template <class Kind, class Options>
Maker maker(Options options) {
  return [=](Tensors params) { return std::make_unique<Kind>(std::move(params), options); };
}

const std::map<std::string, Maker>& makers() {
  using namespace optim;
  const auto sgd = SGDOptions(0.05).momentum(0.9).weight_decay(0.01);
  const auto dampened = SGDOptions(0.05).momentum(0.9).dampening(0.3);
  const auto adam = AdamOptions(0.02).weight_decay(0.01);
  const auto adamw = AdamWOptions(0.02).weight_decay(0.1).amsgrad(true);
  const auto rmsprop = RMSpropOptions(0.01).momentum(0.5).centered(true).weight_decay(0.01);
  static const std::map<std::string, Maker> all{{"sgd", maker<SGD>(sgd)},
                                                {"sgd foreach", maker<Foreach<SGD>>(sgd)},
                                                {"dampened", maker<SGD>(dampened)},
                                                {"adam", maker<Adam>(adam)},
                                                {"adam foreach", maker<Foreach<Adam>>(adam)},
                                                {"adamw", maker<AdamW>(adamw)},
                                                {"adamw foreach", maker<Foreach<AdamW>>(adamw)},
                                                {"rmsprop", maker<RMSprop>(rmsprop)}};
  return all;
}

// Names of the operators called by `work` itself, not by other operators; with `nested` of all.
std::vector<std::string> operators_of(const std::function<void()>& work, bool nested = false) {
  static thread_local int depth;
  static thread_local bool record_nested;
  static thread_local std::vector<std::string>* names;
  std::vector<std::string> result;
  depth = 0;
  record_nested = nested;
  names = &result;
  const auto handle =
      at::addThreadLocalCallback(at::RecordFunctionCallback(
                                     [](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
                                       if (depth++ == 0 || record_nested) names->emplace_back(function.name());
                                       return nullptr;
                                     },
                                     [](const at::RecordFunction&, at::ObserverContext*) { --depth; })
                                     .scopes({at::RecordScope::FUNCTION}));
  work();
  at::removeCallback(handle);
  return result;
}

std::vector<double> sequence(optim::LRScheduler& scheduler, int steps) {
  std::vector<double> values{scheduler.lrs().front()};
  for (int i = 1; i < steps; ++i) {
    scheduler.step();
    values.push_back(scheduler.lrs().front());
  }
  return values;
}

torch::optim::SGD plain_sgd(double lr = 1.0) {
  return torch::optim::SGD({torch::zeros(1).set_requires_grad(true)}, lr);
}

struct NetImpl : torch::nn::Module {
  NetImpl() {
    encoder = register_module("visual_encoder", torch::nn::Linear(4, 3));
    norm = register_module("norm", torch::nn::BatchNorm1d(3));
    head = register_module("head", torch::nn::Linear(3, 2));
  }
  Tensor forward(const Tensor& x) { return head(norm(encoder(x))); }
  torch::nn::Linear encoder{nullptr}, head{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
};
TORCH_MODULE(Net);

}  // namespace

// ---- optimizers

TEST_CASE("Our optimizers and LibTorch's give the same weights in float64", "[optim]") {
  struct Pair {
    std::string name;
    std::function<std::unique_ptr<torch::optim::Optimizer>(Tensors)> theirs, ours;
  };
  const auto pair = [](std::string name, auto theirs, auto ours, auto options) {
    using Theirs = typename decltype(theirs)::type;
    using Ours = typename decltype(ours)::type;
    return Pair{std::move(name), [=](Tensors p) { return std::make_unique<Theirs>(std::move(p), options); },
                [=](Tensors p) { return std::make_unique<Ours>(std::move(p), options); }};
  };
  using std::type_identity;
  using namespace torch::optim;
  const type_identity<torch::optim::SGD> sgd;
  const type_identity<torch::optim::Adam> adam;
  const type_identity<torch::optim::AdamW> adamw;
  const type_identity<torch::optim::RMSprop> rmsprop;
  const std::vector<Pair> pairs{
      pair("sgd", sgd, type_identity<optim::SGD>(), SGDOptions(0.1)),
      pair("momentum", sgd, type_identity<optim::SGD>(), SGDOptions(0.1).momentum(0.9).weight_decay(0.02)),
      pair("nesterov", sgd, type_identity<optim::SGD>(), SGDOptions(0.1).momentum(0.9).nesterov(true)),
      pair("nesterov foreach", sgd, type_identity<Foreach<optim::SGD>>(), SGDOptions(0.1).momentum(0.9).nesterov(true)),
      pair("dampening", sgd, type_identity<optim::SGD>(), SGDOptions(0.1).momentum(0.9).dampening(0.4)),
      pair("adam", adam, type_identity<optim::Adam>(), AdamOptions(0.01).weight_decay(0.02)),
      pair("adam foreach", adam, type_identity<Foreach<optim::Adam>>(), AdamOptions(0.01).weight_decay(0.02)),
      pair("amsgrad", adam, type_identity<optim::Adam>(), AdamOptions(0.01).amsgrad(true)),
      pair("amsgrad foreach", adam, type_identity<Foreach<optim::Adam>>(), AdamOptions(0.01).amsgrad(true)),
      pair("adamw", adamw, type_identity<optim::AdamW>(), AdamWOptions(0.01)),
      pair("adamw foreach", adamw, type_identity<Foreach<optim::AdamW>>(), AdamWOptions(0.01)),
      pair("rmsprop", rmsprop, type_identity<optim::RMSprop>(), RMSpropOptions(0.01).weight_decay(0.02)),
      pair("rmsprop centered", rmsprop, type_identity<optim::RMSprop>(),
           RMSpropOptions(0.01).centered(true).momentum(0.5)),
      pair("rmsprop centered only", rmsprop, type_identity<optim::RMSprop>(), RMSpropOptions(0.01).centered(true)),
  };
  for (const Pair& test : pairs) {
    INFO(test.name);
    Tensors a = make_params(), b = copies(a);
    const auto theirs = test.theirs(a), ours = test.ours(b);
    for (int step = 0; step < 20; ++step) {
      set_grads(a, step);
      set_grads(b, step);
      theirs->step();
      ours->step();
    }
    CHECK(distance(a, b) < 1e-12);
    CHECK(distance(a, make_params()) > 1e-3);
  }
}

TEST_CASE("Parameters in half precision are trained on the CPU", "[optim]") {
  for (const auto dtype : {torch::kBFloat16, torch::kHalf}) {
    for (const auto& [name, make] : makers()) {
      INFO(name << " " << c10::toString(dtype));
      // Adam's eps vanishes in float16 arithmetic, in Python's foreach kernels too; the fused ones compute in float32.
      if (dtype == torch::kHalf && name.starts_with("adam") && name.ends_with("foreach")) continue;
      Tensors half = make_params(dtype), full = make_params(torch::kFloat);
      for (std::size_t i = 0; i < full.size(); ++i) full[i].set_data(half[i].detach().to(torch::kFloat));
      const auto optimizer_half = make(half), optimizer_full = make(full);
      for (int step = 0; step < 3; ++step) {
        set_grads(full, step);
        for (std::size_t i = 0; i < half.size(); ++i) half[i].mutable_grad() = full[i].grad().to(dtype);
        optimizer_half->step();
        optimizer_full->step();
      }
      Tensors start = make_params(torch::kFloat);
      const double moved = distance(full, start);
      CHECK(moved > 0.02);
      CHECK(distance(half, full) < 0.05);
    }
  }
}

TEST_CASE("Parameters without gradient are left out and joined later", "[optim]") {
  for (const auto& [name, make] : makers()) {
    INFO(name);
    Tensors params = make_params(), alone{params[1].detach().clone().set_requires_grad(true)};
    const Tensor frozen = params[0].detach().clone();
    const auto optimizer = make(params), optimizer_alone = make(alone);
    for (int step = 0; step < 6; ++step) {
      set_grads(params, step);
      if (step < 3) {
        for (Tensor& param : params) param.mutable_grad() = Tensor();
        params[2].mutable_grad() = torch::ones({}, torch::kDouble);
      }
      params[0].mutable_grad() = Tensor();
      if (step >= 3) {
        alone[0].mutable_grad() = params[1].grad().clone();
        optimizer_alone->step();
      }
      optimizer->step();
    }
    CHECK(torch::equal(params[0].detach(), frozen));
    CHECK(distance({params[1]}, alone) < 1e-15);
    const StateDict state = optimizer->state_dict(named(params));
    for (const auto& item : state) CHECK(item.key().substr(0, 3) != "p0/");
  }
}

TEST_CASE("Weights and gradients may lie in memory as they like", "[optim]") {
  for (const auto& [name, make] : makers()) {
    INFO(name);
    Tensors rows = make_params(), columns = copies(rows);
    const auto expected = make(rows), optimizer = make(columns);
    for (int step = 0; step < 6; ++step) {
      // The same tensor is moved to another layout after its state was made, as to_channels_last does.
      if (step == 2) columns[3].set_data(columns[3].detach().contiguous(torch::MemoryFormat::ChannelsLast));
      set_grads(rows, step);
      for (std::size_t i = 0; i < rows.size(); ++i) columns[i].mutable_grad() = rows[i].grad().clone();
      if (step == 4) {
        columns[3].mutable_grad() = columns[3].grad().contiguous(torch::MemoryFormat::ChannelsLast);
      }
      expected->step();
      optimizer->step();
    }
    CHECK(distance(rows, columns) < 1e-14);
  }
}

TEST_CASE("Parameters that are views with gaps are trained and their neighbors are not", "[optim]") {
  for (const auto& [name, make] : makers()) {
    INFO(name);
    const Tensor storage = torch::zeros({6, 4}, torch::kDouble);
    Tensors gaps{storage.narrow(1, 0, 2).detach()}, dense{torch::zeros({6, 2}, torch::kDouble)};
    for (Tensor* tensor : {&gaps[0], &dense[0]}) tensor->set_requires_grad(true);
    const auto optimizer = make(gaps), expected = make(dense);
    for (int step = 0; step < 4; ++step) {
      torch::manual_seed(step);
      dense[0].mutable_grad() = random({6, 2});
      gaps[0].mutable_grad() = dense[0].grad().clone();
      const bool inf = step == 1;
      optimizer->scaled_step(found(inf));
      expected->scaled_step(found(inf));
    }
    CHECK(distance(gaps, dense) < 1e-14);
    CHECK(storage.narrow(1, 2, 2).abs().max().item<double>() == 0);
  }
}

TEST_CASE("A step with an infinite gradient changes neither weights nor state nor counts", "[optim][amp]") {
  for (const auto& [name, make] : makers()) {
    for (const auto dtype : {torch::kDouble, torch::kFloat}) {
      INFO(name << " " << c10::toString(dtype));
      // The first step too: no state may come of it.
      Tensors params = make_params(dtype), expected = copies(params);
      const auto optimizer = make(params), unscaled = make(expected);
      for (int step = 0; step < 8; ++step) {
        const bool inf = step == 0 || step == 4;
        set_grads(params, step);
        if (inf) {
          params[0].mutable_grad()[3] = kNan;
          params[1].mutable_grad()[0][0] = std::numeric_limits<double>::infinity();
          const Tensors before = copies(params), state = clones(optimizer->state_dict(named(params)));
          optimizer->scaled_step(found(inf));
          CHECK(equal(params, before));
          CHECK(equal(clones(optimizer->state_dict(named(params))), state));
        } else {
          optimizer->scaled_step(found(inf));
          set_grads(expected, step);
          unscaled->step();
        }
      }
      CHECK(equal(params, expected));
      CHECK(equal(clones(optimizer->state_dict(named(params))), clones(unscaled->state_dict(named(expected)))));
    }
  }
}

TEST_CASE("A step divides scaled gradients by their scale", "[optim][amp]") {
  for (const auto& [name, make] : makers()) {
    INFO(name);
    Tensors params = make_params(), expected = copies(params);
    const auto optimizer = make(params), unscaled = make(expected);
    for (int step = 0; step < 5; ++step) {
      set_grads(params, step);
      set_grads(expected, step);
      for (Tensor& param : params) param.mutable_grad().mul_(1024);
      optimizer->scaled_step(found(false, 1024));
      unscaled->step();
    }
    CHECK(distance(params, expected) < 1e-14);
  }
}

TEST_CASE("A step issues one operator for all parameters and frees the gradients", "[optim]") {
  Tensors params;
  for (int i = 0; i < 50; ++i) params.push_back(torch::randn({7}).set_requires_grad(true));
  const auto check = [&](optim::Optimizer& optimizer, const std::string& kernel) {
    set_grads(params, 0);
    optimizer.step();
    const std::vector<std::string> operators = operators_of([&] { optimizer.step(); });
    CHECK(operators == std::vector<std::string>{"aten::add_", kernel});
    for (const Tensor& param : params) CHECK(param.grad().use_count() == 1);
    optimizer.zero_grad();
    for (const Tensor& param : params) CHECK_FALSE(param.grad().defined());
  };
  optim::SGD sgd(params, optim::SGDOptions(0.1).momentum(0.9));
  check(sgd, "aten::_fused_sgd_");
  optim::Adam adam(params);
  check(adam, "aten::_fused_adam_");
  optim::AdamW adamw(params);
  check(adamw, "aten::_fused_adamw_");
}

TEST_CASE("A scaled step without fused kernel asks the device for nothing", "[optim][amp]") {
  Tensors params = make_params(torch::kFloat);
  optim::RMSprop rmsprop(params);
  Foreach<optim::AdamW> adamw(params);
  for (optim::Optimizer* optimizer : std::vector<optim::Optimizer*>{&rmsprop, &adamw}) {
    set_grads(params, 0);
    optimizer->step();
    set_grads(params, 1);
    for (const std::string& name : operators_of([&] { optimizer->scaled_step(found(false, 2)); }, /*nested=*/true)) {
      CHECK(name != "aten::item");
      CHECK(name != "aten::_local_scalar_dense");
    }
  }
}

TEST_CASE("State saved by name continues a run bit for bit, whatever the order of parameters", "[optim]") {
  const std::string path = (std::filesystem::temp_directory_path() / "mmtrain-optim-state.safetensors").string();
  for (const auto& [name, make] : makers()) {
    INFO(name);
    Tensors params = make_params(torch::kFloat);
    const auto optimizer = make(params);
    for (int step = 0; step < 4; ++step) {
      set_grads(params, step);
      params[2].mutable_grad() = Tensor();
      optimizer->step();
    }
    save_safetensors(path, optimizer->state_dict(named(params)));
    Tensors resumed = copies(params);
    const auto second = make({resumed[3], resumed[1], resumed[2], resumed[0]});
    second->load_state_dict(load_safetensors(path), named(resumed));
    for (int step = 4; step < 8; ++step) {
      set_grads(params, step);
      set_grads(resumed, step);
      optimizer->step();
      second->step();
    }
    CHECK(equal(params, resumed));
  }
  std::filesystem::remove(path);
}

TEST_CASE("Names and types of the state are Python's", "[optim]") {
  Tensors params = make_params();
  const auto names_of = [&](optim::Optimizer& optimizer) {
    set_grads(params, 0);
    params[1].mutable_grad() = Tensor();
    optimizer.step();
    std::set<std::string> names;
    for (const auto& item : optimizer.state_dict(named(params))) {
      if (item.key().starts_with("p0/")) names.insert(item.key().substr(3));
      if (item.key().ends_with("/step")) {
        CHECK(item.value().scalar_type() == torch::kFloat);
        CHECK(item.value().dim() == 0);
        CHECK(item.value().item<float>() == 1);
      }
    }
    return names;
  };
  using Names = std::set<std::string>;
  optim::SGD sgd(params, optim::SGDOptions(0.1).momentum(0.9));
  CHECK(names_of(sgd) == Names{"momentum_buffer"});
  optim::SGD plain(params, optim::SGDOptions(0.1));
  CHECK(names_of(plain).empty());
  optim::AdamW adamw(params, optim::AdamWOptions().amsgrad(true));
  CHECK(names_of(adamw) == Names{"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step"});
  optim::RMSprop rmsprop(params, optim::RMSpropOptions().momentum(0.1).centered(true));
  CHECK(names_of(rmsprop) == Names{"square_avg", "momentum_buffer", "grad_avg", "step"});
}

TEST_CASE("A state that does not fit is refused whole", "[optim]") {
  Tensors params = make_params();
  optim::Adam adam(params);
  set_grads(params, 0);
  adam.step();
  const StateDict names = named(params);
  StateDict good;
  for (const auto& item : adam.state_dict(names)) good.insert(item.key(), item.value().clone());
  const auto without = [&](const std::string& key) {
    StateDict state;
    for (const auto& item : good) {
      if (item.key() != key) state.insert(item.key(), item.value());
    }
    return state;
  };
  const auto refused = [&](const StateDict& state) {
    const Tensors before = clones(adam.state_dict(names));
    CHECK_THROWS_AS(adam.load_state_dict(state, names), DataError);
    CHECK(equal(clones(adam.state_dict(names)), before));
  };
  refused(without("p1/exp_avg_sq"));
  refused(without("p1/step"));
  StateDict unexpected = good;
  unexpected.insert("other.weight/exp_avg", torch::zeros({1}));
  refused(unexpected);
  StateDict misshaped = without("p0/exp_avg");
  misshaped.insert("p0/exp_avg", torch::zeros({66}));
  refused(misshaped);

  SECTION("while one of LibTorch's names and int64 counts is taken") {
    StateDict integers;
    for (const auto& item : good) {
      integers.insert(item.key(), item.key().ends_with("/step") ? item.value().to(torch::kLong) + 6 : item.value());
    }
    adam.load_state_dict(integers, names);
    CHECK(adam.state_dict(names)["p3/step"].item<float>() == 7);
  }
  SECTION("while parameters without entries begin anew") {
    adam.load_state_dict(StateDict(), names);
    CHECK(adam.state_dict(names).is_empty());
  }
}

TEST_CASE("torch::save and torch::load carry state and options", "[optim]") {
  for (const auto& [name, make] : makers()) {
    INFO(name);
    Tensors params = make_params();
    const auto optimizer = make(params);
    for (int step = 0; step < 3; ++step) {
      set_grads(params, step);
      optimizer->step();
    }
    optimizer->param_groups()[0].options().set_lr(0.123);
    std::stringstream stream;
    torch::save(*optimizer, stream);
    Tensors other = copies(params);
    const auto second = make(other);
    torch::load(*second, stream);
    CHECK(second->param_groups()[0].options().get_lr() == 0.123);
    set_grads(params, 3);
    set_grads(other, 3);
    optimizer->step();
    second->step();
    CHECK(equal(params, other));
  }
}

TEST_CASE("Groups are made by prefix of the names, with their own settings", "[optim]") {
  Net net;
  const auto groups = optim::named_groups(*net, {{"visual_encoder.", 0.5}, {"head.", {}, 0.25}});
  REQUIRE(groups.size() == 3);
  CHECK(groups[0].name == "visual_encoder");
  CHECK(groups[0].parameters.keys() == std::vector<std::string>{"visual_encoder.weight", "visual_encoder.bias"});
  CHECK(groups[2].name == "default");
  CHECK(groups[2].parameters.keys() == std::vector<std::string>{"norm.weight", "norm.bias"});

  optim::AdamW optimizer(groups, optim::AdamWOptions(0.1).weight_decay(0.01));
  CHECK(optimizer.group_names() == std::vector<std::string>{"visual_encoder", "head", "default"});
  const auto options = [&](std::size_t group) {
    return static_cast<const torch::optim::AdamWOptions&>(optimizer.param_groups()[group].options());
  };
  CHECK(options(0).lr() == 0.5);
  CHECK(options(0).weight_decay() == 0.01);
  CHECK(options(1).lr() == 0.1);
  CHECK(options(1).weight_decay() == 0.25);
  CHECK(options(2).lr() == 0.1);
  for (Tensor& param : net->parameters()) param.mutable_grad() = torch::ones_like(param);
  optimizer.step();
  CHECK(optimizer.state_dict().contains("visual_encoder.weight/exp_avg"));
  CHECK(optimizer.state_dict().size() == 6 * 3);

  CHECK_THROWS_WITH(optim::named_groups(*net, {{"visual.", 0.5}}), Catch::Contains("'visual.'"));
  CHECK_THROWS_AS(optim::named_groups(*net, {{"", 0.5}, {"head.", 0.1}}), ConfigError);
  CHECK(optim::named_groups(*net, {{"", 0.5}}).size() == 1);
  optim::AdamW unnamed(net->parameters());
  CHECK_THROWS_WITH(unnamed.state_dict(), Catch::Contains("named_parameters"));
}

TEST_CASE("A group added later takes part", "[optim]") {
  Tensors params = make_params();
  optim::AdamW optimizer({params[0], params[1]}, optim::AdamWOptions(0.1));
  optim::ScheduledLR scheduler(optimizer, optim::exponential_lr(0.5));
  set_grads(params, 0);
  optimizer.step();
  scheduler.step();
  optimizer.add_param_group({{params[2]}, std::make_unique<optim::AdamWOptions>(0.8)});
  optimizer.param_groups()[0].params().push_back(params[3]);
  const Tensors before = copies(params);
  optimizer.step();
  scheduler.step();
  for (std::size_t i = 0; i < params.size(); ++i) CHECK(distance({params[i]}, {before[i]}) > 1e-4);
  const StateDict state = optimizer.state_dict(named(params));
  CHECK(state["p0/step"].item<float>() == 2);
  CHECK(state["p2/step"].item<float>() == 1);
  CHECK(scheduler.lrs() == std::vector<double>{0.025, 0.2});
}

TEST_CASE("Parameters that change their type keep their state", "[optim]") {
  Tensors params = make_params(torch::kFloat), reference = copies(params);
  optim::Adam optimizer(params), expected(reference);
  for (int step = 0; step < 4; ++step) {
    if (step == 2) {
      for (Tensor& param : params) {
        param.mutable_grad() = Tensor();
        param.set_data(param.detach().to(torch::kDouble));
      }
    }
    set_grads(reference, step);
    for (std::size_t i = 0; i < params.size(); ++i) {
      params[i].mutable_grad() = reference[i].grad().to(params[i].scalar_type());
    }
    optimizer.step();
    expected.step();
  }
  CHECK(distance(params, reference) < 1e-6);
  CHECK(optimizer.state_dict(named(params))["p0/step"].item<float>() == 4);
}

TEST_CASE("A closure is evaluated with gradients and its loss returned", "[optim]") {
  Tensors params = make_params();
  optim::SGD optimizer(params, optim::SGDOptions(0.1));
  const torch::NoGradGuard no_grad;
  const Tensor loss = optimizer.step([&] {
    optimizer.zero_grad();
    const Tensor value = params[0].pow(2).sum();
    value.backward();
    return value;
  });
  const Tensor start = make_params()[0].detach();
  CHECK(loss.item<double>() == Approx(start.pow(2).sum().item<double>()));
  CHECK(torch::allclose(params[0], start * 0.8));
}

TEST_CASE("Capturable optimizers read the learning rate that was refreshed last", "[optim]") {
  Tensors params = make_params(torch::kFloat), expected = copies(params);
  optim::AdamW adamw(params, optim::AdamWOptions(0.5)), reference(expected, optim::AdamWOptions(0.5));
  adamw.set_capturable(true);
  for (int step = 0; step < 3; ++step) {
    const double lr = 0.5 / (step + 1);
    adamw.param_groups()[0].options().set_lr(lr);
    reference.param_groups()[0].options().set_lr(lr);
    adamw.refresh_lr();
    adamw.param_groups()[0].options().set_lr(100);  // as if changed after a capture
    set_grads(params, step);
    set_grads(expected, step);
    adamw.step();
    reference.step();
  }
  CHECK(distance(params, expected) < 1e-6);
}

TEST_CASE("Settings and parameters that make no sense are refused", "[optim]") {
  const Tensors params = make_params();
  CHECK_THROWS_WITH(optim::SGD(params, optim::SGDOptions(-1)),
                    Catch::Contains("[SGD] lr must not be negative, got -1"));
  CHECK_THROWS_AS(optim::SGD(params, optim::SGDOptions(0.1).nesterov(true)), ConfigError);
  CHECK_THROWS_AS(optim::SGD(params, optim::SGDOptions(0.1).momentum(0.9).dampening(0.1).nesterov(true)), ConfigError);
  CHECK_THROWS_AS(optim::Adam(params, optim::AdamOptions().betas({0.9, 1.0})), ConfigError);
  CHECK_THROWS_AS(optim::RMSprop(params, optim::RMSpropOptions().alpha(-0.1)), ConfigError);
  CHECK_THROWS_WITH(optim::AdamW({{"a", named(params), -2.0}}, {}), Catch::Contains("[AdamW] lr"));
  CHECK_THROWS_WITH(optim::Adam(Tensors{params[0], params[0]}), Catch::Contains("twice"));
  CHECK_THROWS_AS(optim::Adam(Tensors{torch::zeros({2}, torch::kComplexFloat).set_requires_grad(true)}), ConfigError);

  optim::AdamW wrong(params);
  wrong.add_param_group({{torch::zeros(2).set_requires_grad(true)}, std::make_unique<optim::SGDOptions>(0.1)});
  wrong.param_groups()[1].params()[0].mutable_grad() = torch::ones(2);
  CHECK_THROWS_AS(wrong.step(), ConfigError);

  torch::nn::Embedding embedding(torch::nn::EmbeddingOptions(5, 3).sparse(true));
  optim::SGD sparse(embedding->parameters(), optim::SGDOptions(0.1));
  embedding(torch::tensor({1, 2})).sum().backward();
  CHECK_THROWS_WITH(sparse.step(), Catch::Contains("sparse"));
}

TEST_CASE("LibTorch's schedulers drive our optimizers", "[optim]") {
  optim::SGD optimizer(make_params(), optim::SGDOptions(1.0));
  torch::optim::StepLR scheduler(optimizer, 2, 0.5);
  for (int i = 0; i < 5; ++i) scheduler.step();  // LibTorch counts its first call as step 0
  CHECK(optimizer.param_groups()[0].options().get_lr() == 0.25);
}

// ---- schedules

TEST_CASE("Schedules have the values of their formulas", "[optim][schedule]") {
  const auto values = [](const optim::Schedule& schedule, std::vector<std::int64_t> steps) {
    std::vector<double> result;
    for (const std::int64_t step : steps) result.push_back(schedule.lr(2.0, step));
    return result;
  };
  const auto check = [&](const optim::Schedule& schedule, std::vector<std::int64_t> steps,
                         std::vector<double> expected) {
    const std::vector<double> found = values(schedule, steps);
    for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == Approx(expected[i]).margin(1e-15));
  };
  check(optim::constant_lr(0.5), {0, 9}, {1, 1});
  check(optim::step_lr(3, 0.5), {0, 2, 3, 6}, {2, 2, 1, 0.5});
  check(optim::multistep_lr({5, 2, 5}, 0.5), {1, 2, 4, 5}, {2, 1, 1, 0.25});
  check(optim::exponential_lr(0.5), {0, 3}, {2, 0.25});
  check(optim::cosine_lr(10, 0.2), {0, 5, 10, 20}, {2, 1.1, 0.2, 2});
  check(optim::cosine_restarts_lr(4), {0, 2, 4, 6}, {2, 1, 2, 1});
  check(optim::cosine_restarts_lr(2, 3), {1, 2, 5, 8, 17}, {1, 2, 1, 2, 1});
  check(optim::linear_lr(4, 0.5), {0, 2, 4, 9}, {1, 1.5, 2, 2});
  check(optim::polynomial_lr(4, 2), {0, 2, 4, 9}, {2, 0.5, 0, 0});
  check(optim::warmup_lr(4, optim::step_lr(2, 0.1), 0.5), {0, 2, 4, 5, 6}, {1, 1.5, 2, 2, 0.2});
  check(optim::sequential_lr({optim::constant_lr(0.1), optim::constant_lr(0.2), optim::constant_lr(0.3)}, {2, 5}),
        {1, 2, 4, 5}, {0.2, 0.4, 0.4, 0.6});

  const optim::Schedule cycle = optim::one_cycle_lr({.total_steps = 11, .pct_start = 0.5, .div_factor = 4});
  check(cycle, {0, 10, 11, 50}, {0.5, 0.5e-4, 0.5e-4, 0.5e-4});
  CHECK(cycle.momentum(0) == Approx(0.95));
  CHECK(cycle.momentum(50) == Approx(0.95));
  const optim::Schedule straight =
      optim::one_cycle_lr({.total_steps = 9, .pct_start = 5.0 / 9, .cosine = false, .cycle_momentum = false});
  check(straight, {0, 4, 6}, {2 / 25.0, 2, 2 + (2e-4 / 25 - 2) / 2});
  CHECK_FALSE(straight.momentum);
}

TEST_CASE("Momentum goes on in a sequence and stays where a part leaves it", "[optim][schedule]") {
  const optim::Schedule cycle = optim::one_cycle_lr({.total_steps = 10});
  const optim::Schedule chain = optim::sequential_lr({optim::constant_lr(), cycle, optim::constant_lr()}, {5, 15});
  CHECK(chain.momentum(0) == cycle.momentum(0));
  CHECK(chain.momentum(7) == cycle.momentum(2));
  CHECK(chain.momentum(20) == cycle.momentum(9));
}

TEST_CASE("Schedules that make no sense are refused", "[optim][schedule]") {
  CHECK_THROWS_AS(optim::step_lr(0), ConfigError);
  CHECK_THROWS_AS(optim::cosine_lr(0), ConfigError);
  CHECK_THROWS_AS(optim::cosine_restarts_lr(3, 0), ConfigError);
  CHECK_THROWS_AS(optim::linear_lr(5, 0.0), ConfigError);
  CHECK_THROWS_AS(optim::one_cycle_lr({}), ConfigError);
  CHECK_THROWS_AS(optim::one_cycle_lr({.total_steps = 5, .pct_start = 1.5}), ConfigError);
  CHECK_THROWS_AS(optim::sequential_lr({optim::constant_lr()}, {3}), ConfigError);
  CHECK_THROWS_AS(optim::sequential_lr({optim::constant_lr(), optim::constant_lr(), optim::constant_lr()}, {4, 2}),
                  ConfigError);
}

TEST_CASE("A scheduler's state continues its sequence, through JSON text", "[optim][schedule]") {
  const auto make = [] { return optim::warmup_lr(5, optim::cosine_restarts_lr(7, 2, 0.01), 0.1); };
  auto whole_optimizer = plain_sgd(0.8), first_optimizer = plain_sgd(0.8), second_optimizer = plain_sgd(0.123);
  optim::ScheduledLR whole(whole_optimizer, make()), first(first_optimizer, make()), second(second_optimizer, make());
  std::vector<double> expected = sequence(whole, 40), found = sequence(first, 17);
  second.load_state_dict(Config::parse(first.state_dict().dump()));
  CHECK(second.step_count() == 16);
  CHECK(second.lrs() == first.lrs());
  const std::vector<double> rest = sequence(second, 24);
  found.insert(found.end(), rest.begin() + 1, rest.end());
  CHECK(found == expected);

  CHECK_THROWS_WITH(second.load_state_dict(Config::parse("{\"step_count\": 3}")), Catch::Contains("base_lrs"));
  CHECK_THROWS_WITH(second.load_state_dict(Config::parse("{\"step_count\": 3, \"base_lrs\": [1, 2], \"lrs\": [1, 2]}")),
                    Catch::Contains("2 parameter groups"));
}

TEST_CASE("Every group follows from its own learning rate", "[optim][schedule]") {
  Net net;
  optim::SGD optimizer(optim::named_groups(*net, {{"head.", 0.4}}), optim::SGDOptions(0.1).momentum(0.5));
  optim::ScheduledLR scheduler(optimizer, optim::one_cycle_lr({.total_steps = 20}));
  const auto momentum = [&](std::size_t group) {
    return static_cast<torch::optim::SGDOptions&>(optimizer.param_groups()[group].options()).momentum();
  };
  for (int i = 0; i < 20; ++i) {
    CHECK(scheduler.lrs()[0] == Approx(4 * scheduler.lrs()[1]));
    CHECK(momentum(0) == momentum(1));
    CHECK(momentum(0) >= 0.85);
    scheduler.step();
  }
  torch::optim::Adam adam({torch::zeros(1).set_requires_grad(true)}, torch::optim::AdamOptions().betas({0.5, 0.99}));
  optim::ScheduledLR on_adam(adam, optim::one_cycle_lr({.total_steps = 20}));
  CHECK(static_cast<torch::optim::AdamOptions&>(adam.param_groups()[0].options()).betas() ==
        std::make_tuple(0.95, 0.99));
  torch::optim::Adagrad adagrad({torch::zeros(1).set_requires_grad(true)});
  CHECK_THROWS_WITH(optim::ScheduledLR(adagrad, optim::one_cycle_lr({.total_steps = 20})),
                    Catch::Contains("cycle_momentum"));
}

TEST_CASE("A plateau lowers the learning rate after patience, with cooldown and a floor", "[optim][schedule]") {
  auto optimizer = plain_sgd(1.0);
  optim::PlateauLR plateau(optimizer, {.factor = 0.5, .patience = 1, .cooldown = 1, .min_lr = 0.2});
  const auto after = [&](double metric) {
    plateau.step(metric);
    return plateau.lrs().front();
  };
  CHECK(after(3) == 1);
  CHECK(after(2.9999) == 1);  // not better by the threshold
  CHECK(after(kNan) == 0.5);
  CHECK(after(5) == 0.5);  // cooling down
  CHECK(after(5) == 0.5);
  CHECK(after(5) == 0.25);
  CHECK(after(1) == 0.25);
  CHECK(plateau.best() == 1);
  for (int i = 0; i < 10; ++i) after(5);
  CHECK(plateau.lrs().front() == 0.2);
  CHECK_THROWS_WITH(plateau.step(), Catch::Contains("metric"));
  CHECK_THROWS_AS(optim::PlateauLR(optimizer, {.factor = 1.0}), ConfigError);
}

TEST_CASE("A plateau's state continues, before the first metric too", "[optim][schedule]") {
  const optim::PlateauOptions options{.mode = optim::PlateauOptions::Mode::max, .patience = 2, .warmup_steps = 2};
  for (const int cut : {0, 1, 3, 6}) {
    auto a = plain_sgd(), b = plain_sgd(), c = plain_sgd(0.5);
    optim::PlateauLR whole(a, options), first(b, options), second(c, options);
    const std::vector<double> metrics{9, 9, 0.1, 0.2, 0.2, 0.1, 0.2, 0.15, 0.1, 0.0};
    for (int i = 0; i < 10; ++i) {
      whole.step(metrics[i]);
      if (i < cut) first.step(metrics[i]);
      if (i == cut) second.load_state_dict(Config::parse(first.state_dict().dump()));
      if (i >= cut) second.step(metrics[i]);
    }
    CHECK(second.lrs() == whole.lrs());
    CHECK(second.lrs().front() == Approx(0.01));
  }
}

// ---- clipping

TEST_CASE("Clipping scales all gradients to the norm and returns what it was", "[optim][clip]") {
  for (const double order : {1.0, 2.0, 3.0, std::numeric_limits<double>::infinity()}) {
    INFO(order);
    Tensors params = make_params();
    params.push_back(torch::zeros({3, 2}).set_requires_grad(true));  // another dtype
    params.push_back(torch::zeros({2}).set_requires_grad(true));
    set_grads(params, 0);
    params.back().mutable_grad() = Tensor();
    Tensors flat;
    for (const Tensor& param : params) {
      if (param.grad().defined()) flat.push_back(param.grad().flatten().to(torch::kDouble));
    }
    const double expected = torch::cat(flat).norm(order).item<double>();
    const Tensor norm = optim::clip_grad_norm(params, expected / 4, order);
    CHECK(norm.item<double>() == Approx(expected));
    CHECK(optim::grad_norm(params, order).item<double>() == Approx(expected / 4).epsilon(1e-5));
    const Tensors before{params[0].grad().clone()};
    optim::clip_grad_norm(params, expected, order);
    CHECK(equal({params[0].grad()}, before));
  }
  CHECK(optim::clip_grad_norm({torch::zeros(2)}, 1.0).item<float>() == 0);
}

TEST_CASE("Clipping asks the device for nothing unless told to", "[optim][clip]") {
  Tensors params = make_params(torch::kFloat);
  set_grads(params, 0);
  for (const std::string& name : operators_of([&] { optim::clip_grad_norm(params, 0.1); }, /*nested=*/true)) {
    CHECK(name != "aten::item");
    CHECK(name != "aten::_local_scalar_dense");
  }
}

TEST_CASE("A norm that is no number is reported", "[optim][clip]") {
  Tensors params = make_params();
  set_grads(params, 0);
  params[1].mutable_grad()[2][1] = kNan;
  const Tensor before = params[0].grad().clone();
  CHECK_THROWS_WITH(optim::clip_grad_norm(params, 1.0, 2.0, /*error_if_nonfinite=*/true), Catch::Contains("nan"));
  CHECK(torch::equal(params[0].grad(), before));
  CHECK(std::isnan(optim::clip_grad_norm(params, 1.0).item<double>()));
  CHECK_THROWS_AS(optim::clip_grad_norm(params, 0.0), ConfigError);
  CHECK_THROWS_AS(optim::clip_grad_norm(params, 1.0, -1.0), ConfigError);
}

TEST_CASE("Clipping by value limits every element", "[optim][clip]") {
  Tensors params = make_params();
  set_grads(params, 0);
  const Tensor expected = params[0].grad().clamp(-0.3, 0.3);
  optim::clip_grad_value(params, 0.3);
  CHECK(torch::equal(params[0].grad(), expected));
  CHECK_THROWS_AS(optim::clip_grad_value(params, -1), ConfigError);
}

// ---- moving average

TEST_CASE("The average follows the weights by timm's rule and copies buffers", "[optim][ema]") {
  Net net;
  optim::Ema ema(*net, {.decay = 0.9, .min_decay = 0.3, .update_after_step = 2, .warmup = true});
  CHECK(ema.decay_at(1) == 0);
  CHECK(ema.decay_at(3) == 0);
  CHECK(ema.decay_at(4) == Approx(1 - std::pow(2.0, -2.0 / 3)));
  CHECK(ema.decay_at(1000) == 0.9);
  const torch::NoGradGuard no_grad;
  Tensor expected;
  for (int update = 1; update <= 12; ++update) {
    net->head->weight.normal_();
    net->norm->running_mean.normal_();
    net->norm->num_batches_tracked += 1;
    const Tensor weight = net->head->weight.detach().clone();
    const double decay = ema.decay_at(update);
    expected = expected.defined() ? expected * decay + weight * (1 - decay) : weight;
    ema.update();
    CHECK(torch::allclose(ema.state_dict()["head.weight"], expected, 1e-6, 1e-6));
    CHECK(torch::equal(ema.state_dict()["norm.running_mean"], net->norm->running_mean));
    CHECK(ema.state_dict()["norm.num_batches_tracked"].item<std::int64_t>() == update);
  }
  CHECK(ema.updates() == 12);
  CHECK_FALSE(torch::equal(ema.state_dict()["head.weight"], net->head->weight));
}

TEST_CASE("The average stays where a step was left out, and the device is asked for nothing", "[optim][ema]") {
  Net net, twin;
  load_state_dict(*twin, state_dict(*net));
  optim::Ema ema(*net, {.decay = 0.5}), other(*twin, {.decay = 0.5});
  const torch::NoGradGuard no_grad;
  const Tensor zero = torch::zeros({}), one = torch::ones({});
  for (int update = 0; update < 6; ++update) {
    net->head->weight.normal_();
    twin->head->weight.copy_(net->head->weight);
    const auto operators = operators_of([&] { ema.update(zero); }, /*nested=*/true);
    CHECK(std::find(operators.begin(), operators.end(), "aten::item") == operators.end());
    other.update();
    CHECK(torch::allclose(ema.state_dict()["head.weight"], other.state_dict()["head.weight"]));
  }
  const Tensor before = ema.state_dict()["head.weight"].clone();
  net->head->weight.normal_();
  ema.update(one);
  CHECK(torch::equal(ema.state_dict()["head.weight"], before));
}

TEST_CASE("A scope evaluates with the averaged weights and puts the others back", "[optim][ema]") {
  Net net;
  optim::Ema ema(*net);
  const Tensor average = net->head->weight.detach().clone();
  const Tensor weights = torch::randn_like(average);
  {
    const torch::NoGradGuard no_grad;
    net->head->weight.copy_(weights);
  }
  const auto version = net->head->weight._version();
  {
    const optim::EmaScope scope(ema);
    CHECK(torch::equal(net->head->weight.detach(), average));
    CHECK(net->head->weight._version() > version);  // replicas see that they are stale
  }
  CHECK(torch::equal(net->head->weight.detach(), weights));
  try {
    const optim::EmaScope scope(ema);
    throw Error("evaluation failed");
  } catch (const Error&) {
  }
  CHECK(torch::equal(net->head->weight.detach(), weights));
}

TEST_CASE("The average is saved and put back by name", "[optim][ema]") {
  Net net, other;
  optim::Ema ema(*net), second(*other);
  StateDict saved;
  for (const auto& item : ema.state_dict()) saved.insert(item.key(), item.value().clone());
  second.load_state_dict(saved, 7);
  CHECK(second.updates() == 7);
  CHECK(equal(second.state_dict().values(), ema.state_dict().values()));
  load_state_dict(*other, ema.state_dict());  // the names are the module's
  StateDict missing = saved, misshaped;
  missing.erase("head.bias");
  CHECK_THROWS_WITH(second.load_state_dict(missing, 1), Catch::Contains("head.bias"));
  for (const auto& item : saved) {
    misshaped.insert(item.key(), item.key() == "head.bias" ? torch::zeros({5}) : item.value());
  }
  CHECK_THROWS_AS(second.load_state_dict(misshaped, 1), DataError);
  saved.insert("tail.bias", torch::zeros({1}));
  CHECK_THROWS_AS(second.load_state_dict(saved, 1), DataError);
  CHECK(second.updates() == 7);
  CHECK_THROWS_AS(optim::Ema(*net, {.decay = 1.5}), ConfigError);
}
