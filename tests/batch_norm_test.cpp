#include "catch.h"

#include <torch/torch.h>

#include <algorithm>
#include <barrier>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/nn/batch_norm.h"
#include "mmtrain/parallel/sync_batch_norm.h"

using namespace mmtrain;
using torch::Tensor;

namespace {

// Adds up in the order of the ranks, so that all get the same bits. A rank that throws takes part no more; as its
// failure is the test's, the numbers do not matter then.
class ThreadSum {
 public:
  explicit ThreadSum(std::size_t ranks) : parts_(ranks), barrier_(static_cast<std::ptrdiff_t>(ranks)) {}

  class Rank final : public nn::JointStatistics {
   public:
    Rank(ThreadSum& group, std::size_t rank) : group_(group), rank_(rank) {}
    Tensor sum(const Tensor& packed) override { return group_.sum(rank_, packed); }

   private:
    ThreadSum& group_;
    std::size_t rank_;
  };

  void leave() { barrier_.arrive_and_drop(); }

 private:
  Tensor sum(std::size_t rank, const Tensor& packed) {
    parts_[rank] = packed;
    barrier_.arrive_and_wait();
    Tensor total = parts_[0].clone();
    for (std::size_t other = 1; other < parts_.size(); ++other) total += parts_[other];
    barrier_.arrive_and_wait();
    return total;
  }

  std::vector<Tensor> parts_;
  std::barrier<> barrier_;
};

// Runs `rank_main(rank)` on a thread for each rank; rethrows the first exception.
void on_ranks(ThreadSum& group, std::size_t ranks, const std::function<void(std::size_t)>& rank_main) {
  std::vector<std::exception_ptr> errors(ranks);
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        rank_main(rank);
      } catch (...) {
        errors[rank] = std::current_exception();
      }
      group.leave();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

// All that a layer makes of a batch.
struct Results {
  Tensor output, input_gradient, weight_gradient, bias_gradient, running_mean, running_var, batches;
};

// Gives the layer other numbers than the ones it begins with.
template <class Layer>
void vary(Layer& layer, at::ScalarType dtype) {
  const torch::NoGradGuard no_grad;
  const auto channels = layer->options.num_features();
  if (layer->weight.defined()) {
    layer->weight.copy_(torch::linspace(0.5, 1.5, channels));
    layer->bias.copy_(torch::linspace(-1, 1, channels));
  }
  if (layer->running_mean.defined()) {
    layer->running_mean.copy_(torch::linspace(-0.3, 0.4, channels));
    layer->running_var.copy_(torch::linspace(0.6, 1.7, channels));
  }
  layer->to(dtype);
}

template <class Layer>
Results run(Layer& layer, const Tensor& input, const Tensor& output_gradient) {
  const Tensor x = input.detach().clone(at::MemoryFormat::Preserve).requires_grad_();
  Results results;
  results.output = layer->forward(x);
  results.output.backward(output_gradient);
  results.input_gradient = x.grad();
  if (layer->weight.defined()) {
    results.weight_gradient = layer->weight.grad();
    results.bias_gradient = layer->bias.grad();
  }
  if (layer->running_mean.defined()) {
    results.running_mean = layer->running_mean;
    results.running_var = layer->running_var;
    results.batches = layer->num_batches_tracked;
  }
  return results;
}

bool identical(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.scalar_type() == b.scalar_type() && a.strides() == b.strides() && a.equal(b);
}

bool identical(const Results& a, const Results& b) {
  return identical(a.output, b.output) && identical(a.input_gradient, b.input_gradient) &&
         identical(a.weight_gradient, b.weight_gradient) && identical(a.bias_gradient, b.bias_gradient) &&
         identical(a.running_mean, b.running_mean) && identical(a.running_var, b.running_var) &&
         identical(a.batches, b.batches);
}

double difference(const Tensor& a, const Tensor& b) {
  if (!a.defined() && !b.defined()) return 0;
  REQUIRE(a.sizes() == b.sizes());
  return (a.to(torch::kDouble) - b.to(torch::kDouble)).abs().max().item<double>();
}

std::vector<torch::nn::BatchNormOptions> all_options(std::int64_t channels) {
  using Options = torch::nn::BatchNormOptions;
  return {Options(channels), Options(channels).momentum(std::nullopt).eps(1e-3), Options(channels).affine(false),
          Options(channels).track_running_stats(false)};
}

template <class Ours, class Stock>
void compare_with_stock(const Tensor& input) {
  for (const torch::nn::BatchNormOptions& options : all_options(input.size(1))) {
    for (const bool training : {true, false}) {
      Ours ours(options);
      Stock stock(options);
      CHECK(ours->named_parameters().keys() == stock->named_parameters().keys());
      CHECK(ours->named_buffers().keys() == stock->named_buffers().keys());
      vary(ours, input.scalar_type());
      vary(stock, input.scalar_type());
      ours->train(training);
      stock->train(training);
      const Tensor gradient = torch::randn_like(input);
      for (int batch = 0; batch < 3; ++batch) {
        CHECK(identical(run(ours, input + batch, gradient), run(stock, input + batch, gradient)));
      }
    }
  }
}

// One batch through a layer of each rank, beside the whole batch through one stock layer. Returns the greatest
// difference in anything.
template <class Ours, class Stock>
double joint_difference(const torch::nn::BatchNormOptions& options, const Tensor& input,
                        const std::vector<std::int64_t>& rows, int batches = 3) {
  const std::size_t ranks = rows.size();
  Stock stock(options);
  vary(stock, input.scalar_type());
  std::vector<Ours> layers;
  ThreadSum group(ranks);
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    layers.push_back(Ours(options));
    vary(layers.back(), input.scalar_type());
    CHECK(parallel::convert_sync_batchnorm(*layers.back(), std::make_shared<ThreadSum::Rank>(group, rank)) == 1);
  }
  double worst = 0;
  const auto compare = [&](const Tensor& ours, const Tensor& theirs) {
    worst = std::max(worst, difference(ours, theirs));
  };
  std::vector<std::vector<Results>> found(static_cast<std::size_t>(batches), std::vector<Results>(ranks));
  std::vector<Tensor> inputs, gradients;
  for (int batch = 0; batch < batches; ++batch) {
    inputs.push_back(input * (batch + 1) + batch);
    gradients.push_back(torch::randn_like(input));
  }
  on_ranks(group, ranks, [&](std::size_t rank) {
    for (std::size_t batch = 0; batch < inputs.size(); ++batch) {
      const Tensor x = inputs[batch].split_with_sizes(rows)[rank];
      Results& results = found[batch][rank] = run(layers[rank], x, gradients[batch].split_with_sizes(rows)[rank]);
      for (Tensor* state : {&results.running_mean, &results.running_var, &results.weight_gradient,
                            &results.bias_gradient, &results.batches}) {
        if (state->defined()) *state = state->clone();
      }
      layers[rank]->zero_grad();
    }
  });
  for (std::size_t batch = 0; batch < inputs.size(); ++batch) {
    const Results wanted = run(stock, inputs[batch], gradients[batch]);
    std::vector<Tensor> outputs, input_gradients, weight_gradients, bias_gradients;
    for (const Results& results : found[batch]) {
      outputs.push_back(results.output);
      input_gradients.push_back(results.input_gradient);
      weight_gradients.push_back(results.weight_gradient);
      bias_gradients.push_back(results.bias_gradient);
      compare(results.running_mean, wanted.running_mean);
      compare(results.running_var, wanted.running_var);
      compare(results.batches, wanted.batches);
      CHECK(identical(results.running_mean, found[batch][0].running_mean));
      CHECK(identical(results.running_var, found[batch][0].running_var));
    }
    compare(torch::cat(outputs), wanted.output);
    compare(torch::cat(input_gradients), wanted.input_gradient);
    if (wanted.weight_gradient.defined()) {
      compare(torch::stack(weight_gradients).sum(0), wanted.weight_gradient);
      compare(torch::stack(bias_gradients).sum(0), wanted.bias_gradient);
    }
    stock->zero_grad();
  }
  return worst;
}

std::string text(const torch::nn::Module& module) {
  std::ostringstream stream;
  module.pretty_print(stream);
  return stream.str();
}

}  // namespace

TEST_CASE("batch norm is LibTorch's own bit for bit: output, gradients, statistics", "[nn][batch_norm]") {
  torch::manual_seed(1);
  for (const auto dtype : {torch::kFloat, torch::kDouble}) {
    compare_with_stock<nn::BatchNorm1d, torch::nn::BatchNorm1d>(torch::randn({9, 5}, dtype));
    compare_with_stock<nn::BatchNorm1d, torch::nn::BatchNorm1d>(torch::randn({4, 5, 7}, dtype));
    compare_with_stock<nn::BatchNorm2d, torch::nn::BatchNorm2d>(torch::randn({4, 3, 6, 5}, dtype));
    compare_with_stock<nn::BatchNorm2d, torch::nn::BatchNorm2d>(
        torch::randn({4, 3, 6, 5}, dtype).contiguous(at::MemoryFormat::ChannelsLast));
    compare_with_stock<nn::BatchNorm3d, torch::nn::BatchNorm3d>(torch::randn({2, 3, 2, 4, 3}, dtype));
  }
}

TEST_CASE("batch norm names itself, and refuses inputs of other dimensions", "[nn][batch_norm]") {
  CHECK(text(*nn::BatchNorm2d(8)) ==
        "mmtrain::nn::BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=true, track_running_stats=true)");
  nn::BatchNorm1d one(3);
  nn::BatchNorm2d two(3);
  nn::BatchNorm3d three(3);
  CHECK_THROWS_AS(one->forward(torch::ones({2, 3, 4, 5})), ConfigError);
  CHECK_THROWS_AS(two->forward(torch::ones({2, 3, 4})), ConfigError);
  CHECK_THROWS_AS(three->forward(torch::ones({2, 3, 4, 5})), ConfigError);
  CHECK_THROWS_AS(two->forward(torch::ones({1, 3, 1, 1})), c10::Error);  // as LibTorch's own
}

TEST_CASE("a clone of a batch norm has its own numbers and the same hook", "[nn][batch_norm]") {
  ThreadSum group(1);
  nn::BatchNorm2d layer(3);
  vary(layer, torch::kFloat);
  layer->set_joint_statistics(std::make_shared<ThreadSum::Rank>(group, 0));
  const auto copy = std::dynamic_pointer_cast<nn::BatchNorm2dImpl>(layer->clone());
  CHECK(copy->weight.equal(layer->weight));
  CHECK(copy->running_var.equal(layer->running_var));
  CHECK_FALSE(copy->running_var.is_alias_of(layer->running_var));
  CHECK(copy->joint_statistics() == layer->joint_statistics());
}

TEST_CASE("joint statistics over ranks are those of one layer on the joined batch", "[nn][batch_norm][joint]") {
  torch::manual_seed(2);
  const auto rows =
      GENERATE(as<std::vector<std::int64_t>>{}, std::vector<std::int64_t>{3, 2, 2}, std::vector<std::int64_t>{1, 1},
               std::vector<std::int64_t>{1, 1, 1, 1}, std::vector<std::int64_t>{9, 1, 4},
               std::vector<std::int64_t>{8, 8}, std::vector<std::int64_t>{7});
  const std::int64_t total = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
  CAPTURE(rows);
  for (const torch::nn::BatchNormOptions& options : all_options(5)) {
    if (total > 1) {
      CHECK(joint_difference<nn::BatchNorm1d, torch::nn::BatchNorm1d>(options, torch::randn({total, 5}, torch::kDouble),
                                                                      rows) < 1e-10);
    }
    const Tensor maps = torch::randn({total, 5, 4, 3}, torch::kDouble);
    CHECK(joint_difference<nn::BatchNorm2d, torch::nn::BatchNorm2d>(options, maps, rows) < 1e-10);
    CHECK(joint_difference<nn::BatchNorm2d, torch::nn::BatchNorm2d>(
              options, maps.contiguous(at::MemoryFormat::ChannelsLast), rows) < 1e-10);
  }
  CHECK(joint_difference<nn::BatchNorm3d, torch::nn::BatchNorm3d>(
            torch::nn::BatchNormOptions(2), torch::randn({total, 2, 2, 3, 2}, torch::kDouble), rows) < 1e-10);
}

TEST_CASE("joint statistics of float32 data far from zero are as exact as LibTorch's own", "[nn][batch_norm][joint]") {
  torch::manual_seed(3);
  for (const double mean : {0.0, 1e2, 1e4}) {
    const Tensor input = torch::randn({64, 6, 5, 5}) * 0.5 + mean;
    torch::nn::BatchNorm2d exact(6), stock(6);
    exact->to(torch::kDouble);
    const Tensor wanted = exact->forward(input.to(torch::kDouble));
    const double stock_error = difference(stock->forward(input), wanted);

    ThreadSum group(3);
    const std::vector<std::int64_t> rows{40, 3, 21};
    std::vector<Tensor> outputs(3), variances(3);
    on_ranks(group, 3, [&](std::size_t rank) {
      nn::BatchNorm2d layer(6);
      layer->set_joint_statistics(std::make_shared<ThreadSum::Rank>(group, rank));
      outputs[rank] = layer->forward(input.split_with_sizes(rows)[rank]);
      variances[rank] = layer->running_var;
    });
    CAPTURE(mean, stock_error);
    CHECK(outputs[0].scalar_type() == torch::kFloat);
    CHECK(difference(torch::cat(outputs), wanted) <= 2 * stock_error + 1e-6);
    CHECK(difference(variances[0], exact->running_var) <=
          2 * difference(stock->running_var, exact->running_var) + 1e-6);
  }
}

TEST_CASE("joint statistics take bfloat16 data with float32 or bfloat16 parameters", "[nn][batch_norm][joint]") {
  torch::manual_seed(4);
  const auto parameters = GENERATE(torch::kFloat, torch::kBFloat16);
  const Tensor input = torch::randn({16, 4, 6, 6}).to(torch::kBFloat16), gradient = torch::randn_like(input);
  torch::nn::BatchNorm2d exact(4);
  vary(exact, torch::kDouble);
  const Results wanted = run(exact, input.to(torch::kDouble), gradient.to(torch::kDouble));
  ThreadSum group(2);
  std::vector<Results> found(2);
  on_ranks(group, 2, [&](std::size_t rank) {
    nn::BatchNorm2d layer(4);
    vary(layer, parameters);
    layer->set_joint_statistics(std::make_shared<ThreadSum::Rank>(group, rank));
    found[rank] = run(layer, input.chunk(2)[rank], gradient.chunk(2)[rank]);
  });
  CHECK(found[0].output.scalar_type() == torch::kBFloat16);
  CHECK(found[0].input_gradient.scalar_type() == torch::kBFloat16);
  CHECK(found[0].weight_gradient.scalar_type() == parameters);
  // A value of 4 is rounded by up to 1/64.
  CHECK(difference(torch::cat({found[0].output, found[1].output}), wanted.output) < 0.04);
  CHECK(difference(torch::cat({found[0].input_gradient, found[1].input_gradient}), wanted.input_gradient) < 0.06);
  CHECK(difference(found[0].weight_gradient + found[1].weight_gradient, wanted.weight_gradient) < 0.5);
}

TEST_CASE("in evaluation mode nobody asks for joint statistics", "[nn][batch_norm][joint]") {
  struct Never final : nn::JointStatistics {
    Tensor sum(const Tensor&) override { throw std::logic_error("asked for joint statistics"); }
  };
  nn::BatchNorm2d layer(3);
  torch::nn::BatchNorm2d stock(3);
  vary(layer, torch::kFloat);
  vary(stock, torch::kFloat);
  layer->set_joint_statistics(std::make_shared<Never>());
  const Tensor input = torch::randn({2, 3, 4, 4}), gradient = torch::randn_like(input);
  CHECK_THROWS_AS(layer->forward(input), std::logic_error);
  layer->num_batches_tracked.zero_();
  layer->eval();
  stock->eval();
  CHECK(identical(run(layer, input, gradient), run(stock, input, gradient)));
}

TEST_CASE("a frozen input costs no sum in the backward pass", "[nn][batch_norm][joint]") {
  struct Counting final : nn::JointStatistics {
    int calls = 0;
    Tensor sum(const Tensor& packed) override {
      ++calls;
      return packed.clone();
    }
  };
  const auto counting = std::make_shared<Counting>();
  nn::BatchNorm1d layer(3);
  layer->set_joint_statistics(counting);
  layer->forward(torch::randn({4, 3})).square().sum().backward();
  CHECK(counting->calls == 1);
  CHECK(layer->weight.grad().defined());
  layer->forward(torch::randn({4, 3}).requires_grad_()).square().sum().backward();
  CHECK(counting->calls == 3);
}

TEST_CASE("joint statistics refuse a single value on all ranks together, and second derivatives",
          "[nn][batch_norm][joint]") {
  ThreadSum group(1);
  nn::BatchNorm1d layer(3);
  layer->set_joint_statistics(std::make_shared<ThreadSum::Rank>(group, 0));
  CHECK_THROWS_AS(layer->forward(torch::ones({1, 3})), ConfigError);
  const Tensor input = torch::randn({4, 3}).requires_grad_();
  const Tensor output = layer->forward(input).square().sum();
  CHECK_THROWS_AS(torch::autograd::grad({output}, {input}, {}, true, /*create_graph=*/true), ConfigError);
}

TEST_CASE("conversion reaches every batch norm, and names a stock one without changing anything",
          "[parallel][batch_norm]") {
  ThreadSum group(1);
  const auto joint = std::make_shared<ThreadSum::Rank>(group, 0);
  nn::BatchNorm2d first(4), second(4);
  torch::nn::Sequential inner(torch::nn::Conv2d(4, 4, 1), second);
  struct Net : torch::nn::Module {};
  Net net;  // owned by no shared_ptr
  net.register_module("first", first);
  net.register_module("inner", inner);
  CHECK(parallel::convert_sync_batchnorm(net, joint) == 2);
  CHECK(first->joint_statistics() == joint);
  CHECK(second->joint_statistics() == joint);
  CHECK(parallel::convert_sync_batchnorm(net, nullptr) == 2);
  CHECK(second->joint_statistics() == nullptr);

  inner->push_back(torch::nn::BatchNorm2d(4));
  try {
    parallel::convert_sync_batchnorm(net, joint);
    FAIL("a stock batch norm was let through");
  } catch (const ConfigError& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(message.find("layer 'inner.2' is a torch::nn::BatchNorm2d") != std::string::npos);
    CHECK(message.find("use mmtrain::nn::BatchNorm2d") != std::string::npos);
  }
  CHECK(first->joint_statistics() == nullptr);
}
