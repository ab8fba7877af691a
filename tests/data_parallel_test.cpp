#include "catch.h"

#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "mmtrain/amp/autocast.h"
#include "mmtrain/batch/model.h"
#include "mmtrain/core/error.h"
#include "mmtrain/nn/batch_norm.h"
#include "mmtrain/nn/checkpoint.h"
#include "mmtrain/nn/dropout.h"
#include "mmtrain/nn/random_context.h"
#include "mmtrain/parallel/data_parallel.h"
#include "mmtrain/parallel/scatter_gather.h"

using namespace mmtrain;
using parallel::cpu_replicas;
using parallel::DataParallel;
using torch::Tensor;

namespace {

// A net with what makes replicas differ from one device if anything is wrong: dropout, and two inputs and outputs.
class PairNetImpl : public torch::nn::Cloneable<PairNetImpl> {
 public:
  explicit PairNetImpl(double dropout) : dropout_(dropout) { PairNetImpl::reset(); }
  void reset() override {
    left = register_module("left", torch::nn::Linear(6, 10));
    right = register_module("right", torch::nn::Linear(4, 10));
    drop = register_module("drop", nn::Dropout(dropout_));
    head = register_module("head", torch::nn::Linear(10, 3));
  }
  std::pair<Tensor, Tensor> forward(const Tensor& a, const Tensor& b) {
    const Tensor hidden = drop(torch::tanh(left(a) + right(b)));
    return {head(hidden), hidden.square().mean(1)};
  }

  torch::nn::Linear left{nullptr}, right{nullptr}, head{nullptr};
  nn::Dropout drop{nullptr};

 private:
  double dropout_;
};
TORCH_MODULE(PairNet);

// One input, one output, batch norm in the middle.
class NormNetImpl : public torch::nn::Cloneable<NormNetImpl> {
 public:
  NormNetImpl() { NormNetImpl::reset(); }
  void reset() override {
    first = register_module("first", torch::nn::Linear(5, 8));
    norm = register_module("norm", nn::BatchNorm1d(8));
    last = register_module("last", torch::nn::Linear(8, 2));
  }
  Tensor forward(const Tensor& x) { return last(torch::relu(norm(first(x)))); }

  torch::nn::Linear first{nullptr}, last{nullptr};
  nn::BatchNorm1d norm{nullptr};
};
TORCH_MODULE(NormNet);

// What cannot be cloned.
struct PlainNetImpl : torch::nn::Module {
  explicit PlainNetImpl(std::int64_t features) {
    linear = register_module("linear", torch::nn::Linear(features, 2));
    scale = register_buffer("scale", torch::full({2}, 3.0));
  }
  Tensor forward(const Tensor& x) { return linear(x) * scale; }
  torch::nn::Linear linear{nullptr};
  Tensor scale;
};
TORCH_MODULE(PlainNet);

PairNet pair_net(double dropout = 0) {
  torch::manual_seed(5);
  PairNet net(dropout);
  net->to(torch::kDouble);
  nn::assign_dropout_layers(*net);
  return net;
}

double difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  return a.numel() == 0 ? 0.0 : (a - b).abs().max().item<double>();
}

double difference(const torch::nn::Module& a, const torch::nn::Module& b) {
  const std::vector<Tensor> x = a.parameters(), y = b.parameters();
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, difference(x[i].detach(), y[i].detach()));
  return worst;
}

// Text of the error of kind `Kind` that `call` throws.
template <class Kind, class Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const Kind& error) {
    return error.what();
  }
  return "no such error";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Waits until `count` threads are here; false if they do not come.
class MeetingPoint {
 public:
  explicit MeetingPoint(int count) : missing_(count) {}
  bool meet() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (--missing_ == 0) all_here_.notify_all();
    return all_here_.wait_for(lock, std::chrono::seconds(60), [this] { return missing_ <= 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable all_here_;
  int missing_;
};

// Calls `look()` on the thread of each of three replicas.
template <class Look>
auto seen_by_replicas(Look look) {
  using Seen = decltype(look());
  torch::nn::Linear net(2, 2);
  std::mutex mutex;
  std::vector<Seen> seen;
  DataParallel probe(net, cpu_replicas(3), [&](auto& replica, const Tensor& x) {
    const Tensor y = replica->forward(x);
    const std::lock_guard<std::mutex> lock(mutex);
    seen.push_back(look());
    return y;
  });
  probe.forward(torch::ones({3, 2}));
  REQUIRE(seen.size() == 3);
  return seen;
}

template <class Seen>
bool all_are(const std::vector<Seen>& seen, const Seen& wanted) {
  return std::all_of(seen.begin(), seen.end(), [&](const Seen& one) { return one == wanted; });
}

}  // namespace

// ----------------------------------------------------------------------------------------------- scatter, gather

TEST_CASE("scatter shares rows evenly, the longer parts first, and leaves out idle parts", "[parallel][scatter]") {
  const auto counts = [](std::int64_t rows, std::int64_t parts) {
    std::vector<std::int64_t> sizes;
    for (const Tensor& piece : parallel::scatter(torch::arange(rows), parts)) sizes.push_back(piece.size(0));
    return sizes;
  };
  CHECK(counts(9, 4) == std::vector<std::int64_t>{3, 2, 2, 2});
  CHECK(counts(36, 7) == std::vector<std::int64_t>{6, 5, 5, 5, 5, 5, 5});
  CHECK(counts(2, 4) == std::vector<std::int64_t>{1, 1});
  CHECK(counts(0, 3) == std::vector<std::int64_t>{0});
  CHECK(torch::cat(parallel::scatter(torch::arange(11), 3)).equal(torch::arange(11)));
  CHECK_THROWS_AS(parallel::scatter(torch::arange(3), 0), ConfigError);
  CHECK_THROWS_AS(parallel::scatter(torch::tensor(1.0), 2), ConfigError);
}

TEST_CASE("scatter cuts batches with all they have", "[parallel][scatter]") {
  Batch batch;
  batch.inputs.insert("image", torch::arange(10).view({5, 2}));
  batch.inputs.insert("audio", torch::arange(5));
  batch.target = torch::arange(5) * 10;
  batch.ids = torch::arange(5) + 100;
  const std::vector<Batch> pieces = parallel::scatter(batch, cpu_replicas(2));
  REQUIRE(pieces.size() == 2);
  CHECK(pieces[1].input("audio").equal(torch::tensor({3, 4})));
  CHECK(pieces[1].input("image").equal(batch.input("image").narrow(0, 3, 2)));
  CHECK(pieces[0].target.equal(torch::tensor({0, 10, 20})));
  CHECK(pieces[1].ids.equal(torch::tensor({103, 104})));
  CHECK_FALSE(pieces[0].weights.defined());
  CHECK(parallel::scatter(batch.inputs, 3)[2]["audio"].equal(torch::tensor({4})));
}

TEST_CASE("gather joins rows and numbers, and gradients flow through both ways", "[parallel][gather]") {
  const Tensor whole = torch::randn({7, 3}, torch::kDouble).requires_grad_();
  std::vector<Tensor> pieces = parallel::scatter(whole, cpu_replicas(3));
  for (std::size_t i = 0; i < pieces.size(); ++i) pieces[i] = pieces[i] * static_cast<double>(i + 1);
  const Tensor joined = parallel::gather(pieces, c10::kCPU);
  CHECK(joined.sizes() == whole.sizes());
  joined.sum().backward();
  CHECK(whole.grad().sum(1).equal(torch::tensor({3.0, 3.0, 3.0, 6.0, 6.0, 9.0, 9.0}, torch::kDouble)));
  CHECK(parallel::gather({torch::tensor(1.0), torch::tensor(2.0)}, c10::kCPU).equal(torch::tensor({1.0, 2.0})));
  CHECK_FALSE(parallel::gather({Tensor(), Tensor()}, c10::kCPU).defined());
  CHECK_THROWS_AS(parallel::gather({Tensor(), torch::ones(2)}, c10::kCPU), ConfigError);
}

// ----------------------------------------------------------------------------------------------------- replicate

TEST_CASE("replicas equal the module in all but memory, and the generator does not move", "[parallel][replicate]") {
  torch::manual_seed(1);
  torch::nn::Sequential net(torch::nn::Linear(3, 4), nn::BatchNorm1d(4), nn::Dropout(0.5), torch::nn::Linear(4, 2));
  net->to(torch::kDouble);
  nn::assign_dropout_layers(*net);
  net[1]->as<nn::BatchNorm1d>()->eval();
  net[1]->as<nn::BatchNorm1d>()->running_mean.fill_(2);
  net[3]->as<torch::nn::Linear>()->weight.requires_grad_(false);

  torch::manual_seed(9);
  const Tensor untouched = torch::rand(3);
  torch::manual_seed(9);
  const auto clones = parallel::replicate(net, cpu_replicas(2));
  const auto built = parallel::replicate(net, cpu_replicas(2), [] {
    return torch::nn::Sequential(torch::nn::Linear(3, 4), nn::BatchNorm1d(4), nn::Dropout(0.5),
                                 torch::nn::Linear(4, 2));
  });
  CHECK(torch::rand(3).equal(untouched));

  for (const auto& replicas : {clones, built}) {
    REQUIRE(replicas.size() == 2);
    for (torch::nn::Sequential replica : replicas) {
      const auto own = net->named_parameters(), others = replica->named_parameters();
      for (const auto& parameter : own) {
        const Tensor& other = others[parameter.key()];
        CHECK(other.equal(parameter.value()));
        CHECK(other.scalar_type() == torch::kDouble);
        CHECK(other.requires_grad() == parameter.value().requires_grad());
        CHECK_FALSE(other.is_alias_of(parameter.value()));
      }
      CHECK(replica->named_buffers()["1.running_mean"].equal(net->named_buffers()["1.running_mean"]));
      CHECK(replica->is_training());
      CHECK_FALSE(replica[1]->as<nn::BatchNorm1d>()->is_training());
      CHECK(replica[2]->as<nn::Dropout>()->random_layer() == net[2]->as<nn::Dropout>()->random_layer());
    }
  }
}

TEST_CASE("a module that cannot be cloned needs a factory, which builds the same net", "[parallel][replicate]") {
  const PlainNet net(3);
  const std::string message = error_of<ConfigError>([&] { parallel::replicate(net, cpu_replicas(1)); });
  CAPTURE(message);
  CHECK(contains(message, "factory"));
  CHECK(contains(message, "torch::nn::Cloneable"));
  const auto replicas = parallel::replicate(net, cpu_replicas(2), [] { return PlainNet(3); });
  CHECK(replicas[1]->linear->weight.equal(net->linear->weight));

  const auto shape =
      error_of<ConfigError>([&] { parallel::replicate(net, cpu_replicas(1), [] { return PlainNet(4); }); });
  CHECK(contains(shape, "'linear.weight' is [2,3] in the module and [2,4] in the replica"));
  const std::shared_ptr<torch::nn::Module> base = net.ptr();
  const auto names = error_of<ConfigError>(
      [&] { parallel::replicate(base, cpu_replicas(1), [] { return torch::nn::Linear(3, 2).ptr(); }); });
  CHECK(contains(names, "'weight' is in the replica only"));
}

TEST_CASE("the engine's models are replicated by their factory", "[parallel][replicate]") {
  const ModelFactory factory = [] { return as_model(PlainNet(3)); };
  const auto model = factory();
  const auto replicas = parallel::replicate(*model, cpu_replicas(2), factory);
  NamedTensors inputs;
  inputs.insert("x", torch::randn({4, 3}));
  CHECK(replicas[0]->forward(inputs).equal(model->forward(inputs)));
  CHECK(replicas[1]->forward(inputs).equal(model->forward(inputs)));
  CHECK_THROWS_AS(parallel::replicate(*model, cpu_replicas(2), nullptr), ConfigError);
}

// -------------------------------------------------------------------------------------------------- DataParallel

TEST_CASE("twenty steps of a user's own SGD on replicas equal those on one device", "[parallel][data_parallel]") {
  const auto count = GENERATE(std::size_t{2}, std::size_t{3}, std::size_t{4});
  const auto rows = GENERATE(std::int64_t{64}, std::int64_t{63}, std::int64_t{7}, std::int64_t{1});
  CAPTURE(count, rows);
  PairNet reference = pair_net(0.3), net = pair_net(0.3);
  DataParallel replicas(net, cpu_replicas(count));
  const auto sgd = torch::optim::SGDOptions(0.05).momentum(0.9).weight_decay(1e-3);
  torch::optim::SGD reference_optimizer(reference->parameters(), sgd), optimizer(net->parameters(), sgd);
  torch::manual_seed(17);
  const Tensor start = net->head->weight.detach().clone();
  for (std::int64_t step = 0; step < 20; ++step) {
    const Tensor a = torch::randn({rows, 6}, torch::kDouble), b = torch::randn({rows, 4}, torch::kDouble);
    const auto train = [&](auto& model, torch::optim::SGD& with) {
      const nn::RandomContext random(nn::StepContext{.seed = 3, .step = step, .rows = rows, .first_sample = 5});
      const auto [logits, energy] = model.forward(a, b);
      with.zero_grad();
      const Tensor loss = logits.square().mean() + energy.mean();
      loss.backward();
      with.step();
      return loss.template item<double>();
    };
    CHECK(train(*reference, reference_optimizer) == Approx(train(replicas, optimizer)).margin(1e-10));
    CHECK(difference(*reference, *net) < 1e-10);
  }
  CHECK(difference(start, net->head->weight.detach()) > 1e-3);
}

TEST_CASE("dropout masks of replicas are those of one device, call after call", "[parallel][data_parallel]") {
  torch::manual_seed(2);
  nn::Dropout drop(0.5);
  nn::assign_dropout_layers(*drop);
  DataParallel replicas(drop, cpu_replicas(3));
  const Tensor ones = torch::ones({10, 50});
  const std::vector<std::vector<std::int64_t>> places{{}, {9, 3, 4, 70, 1, 0, 12, 13, 14, 15}};
  for (const auto& samples : places) {
    const nn::StepContext step{.seed = 1, .step = 4, .rows = 10, .first_sample = 30, .samples = samples};
    std::vector<Tensor> wanted;
    {
      const nn::RandomContext context(step);
      for (int call = 0; call < 3; ++call) wanted.push_back(drop(ones));
    }
    CHECK_FALSE(wanted[0].equal(wanted[1]));
    const nn::RandomContext context(step);
    CHECK(replicas.forward(ones).equal(wanted[0]));
    CHECK(replicas.forward(ones).equal(wanted[1]));
    CHECK(drop(ones).equal(wanted[2]));
  }
  const nn::RandomContext counts_other_rows(nn::StepContext{.rows = 5});
  CHECK_THROWS_AS(replicas.forward(ones), ConfigError);
}

TEST_CASE("without a context LibTorch's generator governs the masks, whatever the number of replicas",
          "[parallel][data_parallel]") {
  nn::Dropout drop(0.5);
  DataParallel two(drop, cpu_replicas(2)), four(drop, cpu_replicas(4));
  const Tensor ones = torch::ones({9, 20});
  torch::manual_seed(6);
  const Tensor first = two.forward(ones), second = two.forward(ones);
  CHECK_FALSE(first.equal(second));
  torch::manual_seed(6);
  CHECK(four.forward(ones).equal(first));
  CHECK(four.forward(ones).equal(second));
}

TEST_CASE("inputs and outputs may be of many kinds", "[parallel][data_parallel]") {
  torch::nn::Linear net(3, 2);
  const Tensor x = torch::randn({5, 3}), y = net(x);
  NamedTensors inputs;
  inputs.insert("x", x);

  DataParallel named(net, cpu_replicas(2), [](auto& linear, const NamedTensors& in) {
    NamedTensors out;
    out.insert("y", linear->forward(in["x"]));
    return out;
  });
  CHECK(torch::allclose(named.forward(inputs)["y"], y));

  Batch batch;
  batch.inputs = inputs;
  batch.target = torch::arange(5);
  DataParallel lists(net, cpu_replicas(3),
                     [](auto& linear, const Batch& part, double factor, const Tensor& shift, const Tensor& nothing,
                        const std::string& text) {
                       if (nothing.defined() || text != "all the same") throw std::logic_error("arguments got lost");
                       const Tensor out = linear->forward(part.input("x")) * factor + shift;
                       return std::vector<Tensor>{out, part.target * 2, out.detach().sum()};
                     });
  const std::vector<Tensor> out = lists.forward(batch, 2.0, torch::tensor(1.0), Tensor(), std::string("all the same"));
  REQUIRE(out.size() == 3);
  CHECK(torch::allclose(out[0], y * 2 + 1));
  CHECK(out[1].equal(torch::arange(5) * 2));
  CHECK(out[2].sizes() == torch::IntArrayRef{3});
  CHECK(out[2].sum().item<float>() == Approx(out[0].sum().item<float>()));

  DataParallel nested(net, cpu_replicas(2), [](auto& linear, const Tensor& in) {
    return std::tuple(linear->forward(in), std::pair(in, std::vector<Tensor>{in + 1}));
  });
  const auto [first, rest] = nested.forward(x);
  CHECK(torch::allclose(first, y));
  CHECK(rest.first.equal(x));
  CHECK(rest.second.at(0).equal(x + 1));
  CHECK(std::get<0>(nested.forward(x.narrow(0, 0, 0))).sizes() == torch::IntArrayRef{0, 2});
}

TEST_CASE("inputs that cannot be shared out are refused", "[parallel][data_parallel]") {
  PairNet net = pair_net();
  DataParallel replicas(net, cpu_replicas(2));
  const auto rows = error_of<ConfigError>([&] {
    replicas.forward(torch::ones({4, 6}, torch::kDouble), torch::ones({3, 4}, torch::kDouble));
  });
  CHECK(contains(rows, "equally many rows, got 4 and 3"));
  DataParallel whole(net, cpu_replicas(2), [](auto&, const Tensor& x) { return x; });
  CHECK_THROWS_AS(whole.forward(torch::tensor(1.0)), ConfigError);
  CHECK_THROWS_AS((DataParallel(net, {})), ConfigError);
  CHECK_THROWS_AS((DataParallel(net, {c10::Device(c10::kCPU), c10::Device(c10::kMeta)})), ConfigError);
  CHECK_THROWS_AS((DataParallel(PlainNet(3), cpu_replicas(2))), ConfigError);
  struct Never final : nn::JointStatistics {
    Tensor sum(const Tensor& packed) override { return packed; }
  };
  NormNet normed;
  normed->norm->set_joint_statistics(std::make_shared<Never>());
  CHECK_THROWS_AS((DataParallel(normed, cpu_replicas(2))), ConfigError);
}

TEST_CASE("a net that cannot be cloned runs with a factory", "[parallel][data_parallel]") {
  PlainNet net(3);
  DataParallel replicas(net, cpu_replicas(3), parallel::NaturalForward(), [] { return PlainNet(3); });
  const Tensor x = torch::randn({8, 3});
  CHECK(torch::allclose(replicas.forward(x), net(x)));
}

TEST_CASE("replicas run at the same time, each on a thread of its own that stays", "[parallel][data_parallel]") {
  torch::nn::Linear net(2, 2);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  MeetingPoint first(3), second(3);
  DataParallel replicas(net, cpu_replicas(3), [&](auto& linear, const Tensor& x, MeetingPoint* all) {
    if (!all->meet()) throw std::logic_error("the others do not come");
    const std::lock_guard<std::mutex> lock(mutex);
    threads.insert(std::this_thread::get_id());
    return linear->forward(x);
  });
  replicas.forward(torch::ones({6, 2}), &first);
  replicas.forward(torch::ones({6, 2}), &second);
  CHECK(threads.size() == 3);
  CHECK(threads.count(std::this_thread::get_id()) == 0);
}

TEST_CASE("CPU replicas share the parameters' memory and follow the module", "[parallel][data_parallel]") {
  NormNet net;
  std::mutex mutex;
  std::set<const void*> weights, statistics;
  DataParallel replicas(net, cpu_replicas(3), [&](auto& replica, const Tensor& x) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      weights.insert(replica->first->weight.data_ptr());
      statistics.insert(replica->norm->running_mean.data_ptr());
    }
    return replica->forward(x);
  });
  const Tensor x = torch::randn({9, 5});
  net->eval();
  const auto follows = [&] { return torch::allclose(replicas.forward(x), net(x), 1e-5, 1e-6); };
  CHECK(follows());
  CHECK(weights == std::set<const void*>{net->first->weight.data_ptr()});
  CHECK(statistics.size() == 3);
  {
    const torch::NoGradGuard no_grad;
    net->first->weight.mul_(2);
    net->norm->running_mean.add_(1);
    net->last->bias.set_data(torch::ones({2}));
  }
  CHECK(follows());
  net->first->weight.set_data(net->first->weight.detach().t().contiguous().t());
  CHECK(follows());

  net->first->weight.requires_grad_(false);
  replicas.forward(x).sum().backward();
  CHECK_FALSE(net->first->weight.grad().defined());
  CHECK(net->last->weight.grad().defined());
  net->first->weight.requires_grad_(true);
  replicas.forward(x).sum().backward();
  CHECK(net->first->weight.grad().defined());

  net->to(torch::kDouble);
  net->zero_grad();
  CHECK(torch::allclose(replicas.forward(x.to(torch::kDouble)), net(x.to(torch::kDouble))));
  replicas.forward(x.to(torch::kDouble)).sum().backward();
  CHECK(net->first->weight.grad().scalar_type() == torch::kDouble);
}

TEST_CASE("running statistics of the module are those of replica 0", "[parallel][data_parallel]") {
  torch::manual_seed(3);
  NormNet net, alone;
  {
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < net->parameters().size(); ++i) alone->parameters()[i].copy_(net->parameters()[i]);
  }
  DataParallel replicas(net, cpu_replicas(2));
  const Tensor x = torch::randn({8, 5});
  for (int step = 0; step < 3; ++step) {
    replicas.forward(x + step);
    alone->forward((x + step).narrow(0, 0, 4));
  }
  CHECK(torch::allclose(net->norm->running_mean, alone->norm->running_mean));
  CHECK(torch::allclose(net->norm->running_var, alone->norm->running_var));
  CHECK(net->norm->num_batches_tracked.item<std::int64_t>() == 3);
  net->eval();
  CHECK(torch::allclose(replicas.forward(x), net(x), 1e-5, 1e-6));
}

TEST_CASE("several passes may wait for one backward pass, which sees changes in between", "[parallel][data_parallel]") {
  PairNet net = pair_net(), reference = pair_net();
  DataParallel replicas(net, cpu_replicas(3));
  const Tensor a = torch::randn({7, 6}, torch::kDouble), b = torch::randn({7, 4}, torch::kDouble);
  const auto loss_of = [&](auto& model) {
    const Tensor first = model.forward(a, b).first, second = model.forward(a * 2, b + 1).first;
    return (first * second).sum();
  };
  loss_of(replicas).backward();
  loss_of(*reference).backward();
  for (std::size_t i = 0; i < net->parameters().size(); ++i) {
    CHECK(difference(net->parameters()[i].grad(), reference->parameters()[i].grad()) < 1e-10);
  }
  const Tensor loss = replicas.forward(a, b).first.sum();
  {
    const torch::NoGradGuard no_grad;
    net->left->weight.mul_(2);
    net->head->weight.mul_(2);
  }
  CHECK_THROWS_AS(loss.backward(), c10::Error);  // LibTorch's, for a change in place
}

TEST_CASE("gradients flow to the inputs, through checkpoints, and a second time", "[parallel][data_parallel]") {
  PairNet net = pair_net(0.4), reference = pair_net(0.4);
  const auto checkpointed = [](auto& model, const Tensor& a, const Tensor& b) {
    return nn::checkpoint(*model, a, [model, b](const Tensor& x) mutable { return model->forward(x, b).first; });
  };
  DataParallel replicas(net, cpu_replicas(2), checkpointed);
  const Tensor b = torch::randn({5, 4}, torch::kDouble);
  const Tensor a = torch::randn({5, 6}, torch::kDouble).requires_grad_(), same = a.detach().clone().requires_grad_();
  const nn::StepContext step{.seed = 8, .rows = 5};
  {
    const nn::RandomContext random(step);
    replicas.forward(a, b).square().sum().backward();
  }
  {
    const nn::RandomContext random(step);
    reference->forward(same, b).first.square().sum().backward();
  }
  CHECK(difference(a.grad(), same.grad()) < 1e-10);
  CHECK(difference(net->left->weight.grad(), reference->left->weight.grad()) < 1e-10);

  DataParallel plain(net, cpu_replicas(2));
  net->eval();
  reference->eval();
  const auto second = [&](auto& model, PairNet& parameters) {
    const Tensor loss = model.forward(a.detach(), b).first.square().sum();
    const Tensor weight = parameters->left->weight;
    const Tensor gradient = torch::autograd::grad({loss}, {weight}, {}, true, /*create_graph=*/true)[0];
    return torch::autograd::grad({gradient.square().sum()}, {weight})[0];
  };
  CHECK(difference(second(plain, net), second(*reference, reference)) < 1e-9);
}

// --------------------------------------------------------------------------------------------------- thread state

TEST_CASE("grad mode and inference mode reach every replica", "[parallel][data_parallel][state]") {
  CHECK(all_are(seen_by_replicas([] { return torch::GradMode::is_enabled(); }), true));
  torch::nn::Linear net(2, 2);
  DataParallel replicas(net, cpu_replicas(3));
  const Tensor x = torch::ones({3, 2});
  {
    const torch::NoGradGuard no_grad;
    CHECK(all_are(seen_by_replicas([] { return torch::GradMode::is_enabled(); }), false));
    CHECK_FALSE(replicas.forward(x).requires_grad());
  }
  {
    const c10::InferenceMode inference;
    CHECK(all_are(seen_by_replicas([] { return c10::InferenceMode::is_enabled(); }), true));
    CHECK(replicas.forward(x).is_inference());
  }
  CHECK(all_are(seen_by_replicas([] { return c10::InferenceMode::is_enabled(); }), false));
  CHECK(replicas.forward(x).requires_grad());
}

TEST_CASE("replicas made or used in inference mode can be trained afterwards", "[parallel][data_parallel][state]") {
  PairNet net = pair_net();
  std::optional<DataParallel<PairNet>> replicas;
  const Tensor a = torch::randn({4, 6}, torch::kDouble), b = torch::randn({4, 4}, torch::kDouble);
  {
    const c10::InferenceMode inference;
    replicas.emplace(net, cpu_replicas(2));
    replicas->forward(a, b);
  }
  replicas->forward(a, b).first.sum().backward();
  PairNet reference = pair_net();
  reference->forward(a, b).first.sum().backward();
  CHECK(difference(net->left->weight.grad(), reference->left->weight.grad()) < 1e-12);
}

TEST_CASE("a net made in inference mode serves too", "[parallel][data_parallel][state]") {
  const c10::InferenceMode inference;
  PairNet net = pair_net();
  DataParallel replicas(net, cpu_replicas(2));
  const Tensor a = torch::randn({4, 6}, torch::kDouble), b = torch::randn({4, 4}, torch::kDouble);
  CHECK(difference(replicas.forward(a, b).first, net->forward(a, b).first) < 1e-12);
  net->left->weight.mul_(3);
  CHECK(difference(replicas.forward(a, b).first, net->forward(a, b).first) < 1e-12);
}

TEST_CASE("autocast, its type and its cache reach every replica", "[parallel][data_parallel][state]") {
  torch::nn::Linear net(2, 2);
  DataParallel replicas(net, cpu_replicas(3));
  const Tensor x = torch::ones({3, 2});
  const auto autocast = [] {
    return std::tuple(at::autocast::is_autocast_enabled(at::kCPU), at::autocast::get_autocast_dtype(at::kCPU),
                      at::autocast::is_autocast_cache_enabled());
  };
  CHECK(all_are(seen_by_replicas(autocast), autocast()));
  CHECK(replicas.forward(x).scalar_type() == torch::kFloat);
  for (const auto dtype : {torch::kBFloat16, torch::kHalf}) {
    for (const bool cache : {true, false}) {
      const amp::Autocast scope(c10::kCPU, dtype, true, cache);
      CHECK(all_are(seen_by_replicas(autocast), std::tuple(true, dtype, cache)));
      const Tensor y = replicas.forward(x);
      CHECK(y.scalar_type() == dtype);
      const amp::Autocast island(c10::kCPU, std::nullopt, false);
      CHECK(replicas.forward(x).scalar_type() == torch::kFloat);
    }
  }
}

TEST_CASE("a change of weights is seen by autocast scopes within the net", "[parallel][data_parallel][state]") {
  torch::nn::Linear net(2, 2);
  DataParallel replicas(net, cpu_replicas(2), [](auto& linear, const Tensor& x) {
    const amp::Autocast scope(c10::kCPU, torch::kBFloat16);
    return linear->forward(x);
  });
  const Tensor x = torch::ones({4, 2});
  const Tensor before = replicas.forward(x).detach();
  {
    const torch::NoGradGuard no_grad;
    net->weight.add_(1);
  }
  CHECK((replicas.forward(x).detach() - before).to(torch::kFloat).min().item<float>() > 1.5F);
}

TEST_CASE("the default type reaches every replica", "[parallel][data_parallel][state]") {
  struct Restore {
    caffe2::TypeMeta before = torch::get_default_dtype();
    ~Restore() { torch::set_default_dtype(before); }
  } restore;
  const auto default_type = [] { return torch::ones({1}).scalar_type(); };
  CHECK(all_are(seen_by_replicas(default_type), torch::kFloat));
  torch::set_default_dtype(caffe2::TypeMeta::fromScalarType(torch::kDouble));
  CHECK(all_are(seen_by_replicas(default_type), torch::kDouble));
}

TEST_CASE("replicas share the caller's CPU threads", "[parallel][data_parallel][state]") {
  const int before = at::get_num_threads();
  at::set_num_threads(6);
  CHECK(all_are(seen_by_replicas([] { return at::get_num_threads(); }), 2));
  at::set_num_threads(1);
  CHECK(all_are(seen_by_replicas([] { return at::get_num_threads(); }), 1));
  at::set_num_threads(before);
}

// --------------------------------------------------------------------------------------------------------- faults

TEST_CASE("an exception in a replica is thrown again when all have ended, and the next call works",
          "[parallel][data_parallel][faults]") {
  torch::nn::Linear net(2, 2);
  std::atomic<int> running{0}, ended{0};
  const auto failing = [&](auto& linear, const Tensor& x, int kind) -> Tensor {
    ++running;
    const auto row = x[0][0].template item<int>();
    if (row >= 2 && kind == 1) throw std::runtime_error("broken at row " + std::to_string(row));
    if (row == 4 && kind == 2) throw DataError("[Net] no data");
    if (row == 4 && kind == 3) TORCH_CHECK(false, "a check of LibTorch");
    if (row == 4 && kind == 4) throw 42;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ++ended;
    return linear->forward(x);
  };
  DataParallel replicas(net, cpu_replicas(3), failing);
  const Tensor x = torch::arange(6).view({6, 1}).expand({6, 2}).to(torch::kFloat);
  const auto works = [&] { return torch::allclose(replicas.forward(x, 0), net(x)); };
  CHECK(works());

  running = ended = 0;
  const auto first = error_of<DistributedError>([&] { replicas.forward(x, 1); });
  CHECK(first == "[DataParallel] replica 1 on cpu failed: broken at row 2");
  CHECK(running == 3);
  CHECK(ended == 1);
  CHECK(works());
  CHECK(error_of<DataError>([&] { replicas.forward(x, 2); }) ==
        "[DataParallel] replica 2 on cpu failed: [Net] no data");
  CHECK(contains(error_of<DistributedError>([&] { replicas.forward(x, 3); }), "replica 2 on cpu failed: a check"));
  CHECK(contains(error_of<DistributedError>([&] { replicas.forward(x, 4); }), "no std::exception"));
  CHECK(works());

  try {
    replicas.forward(x, 1);
    FAIL("no exception");
  } catch (const std::exception& error) {
    CHECK_THROWS_AS(std::rethrow_if_nested(error), std::runtime_error);
  }
  // One replica alone runs on the caller's thread: the same rules.
  CHECK(error_of<DistributedError>([&] { replicas.forward(x.narrow(0, 3, 1), 1); }) ==
        "[DataParallel] replica 0 on cpu failed: broken at row 3");
}

TEST_CASE("an exception in a backward pass leaves replicas usable", "[parallel][data_parallel][faults]") {
  struct FailsBackward : torch::autograd::Function<FailsBackward> {
    static Tensor forward(torch::autograd::AutogradContext*, const Tensor& x) { return x * 1; }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext*, torch::autograd::variable_list) {
      throw std::runtime_error("broken on the way back");
    }
  };
  torch::nn::Linear net(2, 2);
  DataParallel replicas(net, cpu_replicas(2), [](auto& linear, const Tensor& x, bool fails) {
    const Tensor y = linear->forward(x);
    return fails && x[0][0].template item<float>() > 0 ? FailsBackward::apply(y) : y;
  });
  const Tensor x = torch::tensor({{0.0, 1.0}, {1.0, 1.0}}, torch::kFloat);
  CHECK_THROWS_AS(replicas.forward(x, true).sum().backward(), std::runtime_error);
  net->zero_grad();
  replicas.forward(x, false).sum().backward();
  CHECK(net->weight.grad().equal(x.sum(0).expand({2, 2})));
}

TEST_CASE("callers on several threads take turns", "[parallel][data_parallel]") {
  PairNet net = pair_net();
  DataParallel replicas(net, cpu_replicas(2));
  const Tensor a = torch::randn({6, 6}, torch::kDouble), b = torch::randn({6, 4}, torch::kDouble);
  const Tensor wanted = net->forward(a, b).first.detach();
  std::atomic<int> right{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      const torch::NoGradGuard no_grad;
      for (int call = 0; call < 25; ++call) {
        if (torch::allclose(replicas.forward(a, b).first, wanted)) ++right;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(right == 100);
}

TEST_CASE("replicas on one GPU train as one device does", "[parallel][data_parallel][cuda]") {
  if (!torch::cuda::is_available()) return;
  const std::vector<c10::Device> devices(2, c10::Device(c10::kCUDA, 0));
  PairNet reference = pair_net(0.3), net = pair_net(0.3);
  reference->to(devices[0]);
  DataParallel elsewhere(net, devices);
  const Tensor row = torch::zeros({2, 10}, torch::kDouble);
  CHECK(contains(error_of<ConfigError>([&] { elsewhere.forward(row.narrow(1, 0, 6), row.narrow(1, 0, 4)); }),
                 "'left.weight' is on cpu"));
  net->to(devices[0]);
  DataParallel replicas(net, devices);
  torch::optim::SGD reference_optimizer(reference->parameters(), 0.05), optimizer(net->parameters(), 0.05);
  for (std::int64_t step = 0; step < 5; ++step) {
    const Tensor a = torch::randn({9, 6}, torch::kDouble), b = torch::randn({9, 4}, torch::kDouble);
    const auto train = [&](auto& model, torch::optim::SGD& with, const Tensor& x, const Tensor& y) {
      const nn::RandomContext random(nn::StepContext{.seed = 3, .step = step, .rows = 9});
      const auto [logits, energy] = model.forward(x, y);
      with.zero_grad();
      (logits.square().mean() + energy.mean()).backward();
      with.step();
    };
    train(*reference, reference_optimizer, a.to(devices[0]), b.to(devices[0]));
    train(replicas, optimizer, a, b);
    CHECK(difference(*reference, *net) < 1e-10);
  }
}
