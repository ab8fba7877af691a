#include "mmtrain/train/metrics.h"

#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <vector>

#include "catch.h"
#include "mmtrain/core/error.h"

using namespace mmtrain;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

torch::Tensor scalar(double value) { return torch::tensor(value, torch::kFloat64); }

torch::Tensor indices(std::vector<std::int64_t> values) { return torch::tensor(values, torch::kInt64); }

// Logits whose highest value is at the class given for each row.
torch::Tensor logits_for(const std::vector<std::int64_t>& predicted, std::int64_t classes) {
  return torch::one_hot(indices(predicted), classes).to(torch::kFloat32);
}

MetricValues metrics_of(const torch::Tensor& logits, const torch::Tensor& target) {
  ClassificationMetrics metrics(logits.size(1));
  metrics.add(logits, target, scalar(0), scalar(1));
  return metrics.compute();
}

void check_equal(const MetricValues& a, const MetricValues& b) {
  CHECK(a.loss == b.loss);
  CHECK(a.accuracy == b.accuracy);
  CHECK(a.top5 == b.top5);
  CHECK(a.f1_macro == b.f1_macro);
  CHECK(a.f1_weighted == b.f1_weighted);
  CHECK(a.rows == b.rows);
  CHECK(a.confusion == b.confusion);
}

struct Sample {
  torch::Tensor logits, target, weights, loss, weight;
};

Sample random_sample(std::int64_t rows, std::int64_t classes, torch::Device device = torch::kCPU) {
  return {torch::randn({rows, classes}).to(device), torch::randint(classes, {rows}, torch::kInt64).to(device),
          torch::randint(2, {rows}).to(torch::kFloat32).to(device), torch::rand({}).to(device),
          torch::full({}, static_cast<double>(rows)).to(device)};
}

void add(ClassificationMetrics& metrics, const Sample& sample) {
  metrics.add(sample.logits, sample.target, sample.loss, sample.weight, sample.weights);
}

}  // namespace

TEST_CASE("metrics of a small case are those computed by hand", "[metrics]") {
  ClassificationMetrics metrics(3);
  metrics.add(logits_for({0, 1, 1}, 3), indices({0, 0, 1}), scalar(3.0), scalar(2.0));
  metrics.add(logits_for({0}, 3), indices({1}), scalar(1.0), scalar(2.0));
  const MetricValues values = metrics.compute();
  CHECK(values.confusion == ConfusionMatrix{{1, 1, 0}, {1, 1, 0}, {0, 0, 0}});
  CHECK(values.rows == 4);
  CHECK(values.loss == 1.0);
  CHECK(values.accuracy == 0.5);
  CHECK(values.top5 == 1.0);
  CHECK(values.f1_macro == Approx(0.5));  // the third class never occurs and is left out
  CHECK(values.f1_weighted == Approx(0.5));
  REQUIRE(values.classes.size() == 3);
  CHECK(values.classes[0].precision == Approx(0.5));
  CHECK(values.classes[0].support == 2);
  CHECK(values.classes[2].precision == 0);
  CHECK(values.classes[2].recall == 0);
  CHECK(values.classes[2].f1 == 0);
  CHECK(values.classes[2].support == 0);
}

TEST_CASE("rows of weight 0 and negative targets count nowhere", "[metrics]") {
  ClassificationMetrics metrics(3);
  const auto weights = torch::tensor({1.0F, 0.0F, 0.25F, 1.0F});
  metrics.add(logits_for({0, 0, 1, 2}, 3), indices({0, 1, 1, -100}), scalar(0), scalar(1), weights);
  const MetricValues values = metrics.compute();
  CHECK(values.rows == 2);
  CHECK(values.accuracy == 1.0);
  CHECK(values.confusion == ConfusionMatrix{{1, 0, 0}, {0, 1, 0}, {0, 0, 0}});
}

TEST_CASE("the target is among the top 5 when fewer than 5 classes are better", "[metrics]") {
  const auto logits = torch::arange(7, 0, -1, torch::kFloat32).repeat({7, 1});
  const MetricValues values = metrics_of(logits, torch::arange(7));
  CHECK(values.top5 == Approx(5.0 / 7));
  CHECK(values.accuracy == Approx(1.0 / 7));
}

TEST_CASE("a model that says the same for every class is not credited with the top 5", "[metrics]") {
  const MetricValues values = metrics_of(torch::zeros({10, 10}), torch::arange(10));
  CHECK(values.accuracy == Approx(0.1));
  CHECK(values.top5 == Approx(0.5));
}

TEST_CASE("NaN logits are the highest, as in argmax, and infinite ones are compared", "[metrics]") {
  auto logits = torch::zeros({3, 8});
  logits[0].fill_(kNan);
  logits[1][3] = kNan;
  logits[1][7] = 5;
  logits[2].fill_(-std::numeric_limits<float>::infinity());
  logits[2][6] = std::numeric_limits<float>::infinity();
  const MetricValues values = metrics_of(logits, indices({7, 3, 6}));
  CHECK(values.confusion[7][0] == 1);
  CHECK(values.confusion[3][3] == 1);
  CHECK(values.confusion[6][6] == 1);
  CHECK(values.top5 == Approx(2.0 / 3));
}

TEST_CASE("any floating type of logits gives the same counts", "[metrics]") {
  torch::manual_seed(1);
  const auto logits = torch::randint(-8, 8, {64, 9}, torch::kFloat32), target = torch::randint(9, {64}, torch::kInt64);
  const MetricValues reference = metrics_of(logits, target);
  for (const auto dtype : {torch::kFloat64, torch::kBFloat16, torch::kFloat16}) {
    const MetricValues values = metrics_of(logits.to(dtype), target);
    CHECK(values.confusion == reference.confusion);
    CHECK(values.top5 == reference.top5);
  }
}

TEST_CASE("states of several accumulators add up to that of all their rows", "[metrics]") {
  torch::manual_seed(2);
  ClassificationMetrics all(6), first(6), second(6);
  for (int i = 0; i < 8; ++i) {
    const Sample sample = random_sample(5 + i, 6);
    add(all, sample);
    add(i % 3 == 0 ? first : second, sample);
  }
  const auto sum = first.state(), part = second.state();
  REQUIRE(sum.size() == part.size());
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i].add_(part[i]);
  const MetricValues expected = all.compute(), merged = first.compute();
  CHECK(merged.loss == Approx(expected.loss).epsilon(1e-14));
  CHECK(merged.confusion == expected.confusion);
  CHECK(merged.top5 == expected.top5);
}

TEST_CASE("reset forgets everything, and nothing counted gives zeros and no loss", "[metrics]") {
  ClassificationMetrics metrics(4);
  add(metrics, random_sample(16, 4));
  metrics.reset();
  const MetricValues values = metrics.compute();
  CHECK(values.rows == 0);
  CHECK(std::isnan(values.loss));
  CHECK(values.accuracy == 0);
  CHECK(values.top5 == 0);
  CHECK(values.f1_macro == 0);
  CHECK(values.f1_weighted == 0);
  CHECK(values.confusion == ClassificationMetrics(4).compute().confusion);
}

TEST_CASE("an empty batch adds its loss and no rows", "[metrics]") {
  ClassificationMetrics metrics(4);
  metrics.add(torch::empty({0, 4}), torch::empty({0}, torch::kInt64), scalar(2), scalar(4));
  CHECK(metrics.compute().rows == 0);
  CHECK(metrics.compute().loss == 0.5);
}

TEST_CASE("adding keeps no graph alive", "[metrics]") {
  ClassificationMetrics metrics(3);
  const auto logits = torch::randn({4, 3}).requires_grad_();
  const auto loss = logits.sum();
  metrics.add(logits, torch::zeros({4}, torch::kInt64), loss, scalar(4));
  for (const torch::Tensor& state : metrics.state()) CHECK_FALSE(state.requires_grad());
  CHECK(metrics.compute().loss == Approx(loss.item<double>() / 4));
}

TEST_CASE("tensors of the wrong shape or type are refused", "[metrics]") {
  ClassificationMetrics metrics(3);
  const auto logits = torch::zeros({4, 3}), target = torch::zeros({4}, torch::kInt64);
  CHECK_THROWS_AS(metrics.add(torch::zeros({4, 2}), target, scalar(0), scalar(1)), ConfigError);
  CHECK_THROWS_AS(metrics.add(torch::zeros({12}), target, scalar(0), scalar(1)), ConfigError);
  CHECK_THROWS_AS(metrics.add(logits, target.narrow(0, 0, 3), scalar(0), scalar(1)), ConfigError);
  CHECK_THROWS_AS(metrics.add(logits, target.to(torch::kFloat32), scalar(0), scalar(1)), ConfigError);
  CHECK_THROWS_AS(metrics.add(logits, target, scalar(0), scalar(1), torch::ones({3})), ConfigError);
  CHECK_THROWS_AS(ClassificationMetrics(0), ConfigError);
  CHECK_THROWS_AS(class_metrics({{1, 2}}), ConfigError);
  CHECK(metrics.compute().rows == 0);
}

TEST_CASE("a GPU counts as the CPU does", "[metrics][cuda]") {
  if (!torch::cuda::is_available()) return;
  torch::manual_seed(3);
  ClassificationMetrics host(20), gpu(20, torch::kCUDA);
  for (int i = 0; i < 4; ++i) {
    const Sample sample = random_sample(100, 20);
    add(host, sample);
    add(gpu,
        {sample.logits.cuda(), sample.target.cuda(), sample.weights.cuda(), sample.loss.cuda(), sample.weight.cuda()});
  }
  check_equal(gpu.compute(), host.compute());
}
