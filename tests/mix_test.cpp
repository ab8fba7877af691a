#include "catch.h"

#include <torch/torch.h>

#include <cmath>
#include <string>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/data/mix.h"
#include "mmtrain/nn/losses.h"

using namespace mmtrain;

namespace {

template <class Call>
std::string config_error(Call call) {
  try {
    call();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no ConfigError";
}

Batch image_batch(std::int64_t rows) {
  Batch batch;
  batch.inputs.insert("image", torch::rand({rows, 3, 12, 16}));
  batch.target = torch::arange(rows).remainder(4);
  batch.ids = torch::arange(rows);
  return batch;
}

std::vector<MixParameters> draws(const MixOptions& options, std::int64_t count) {
  std::vector<MixParameters> drawn;
  for (std::int64_t i = 0; i < count; ++i) {
    if (const auto one = draw_mix(options, 12, 16, /*seed=*/3, /*epoch=*/1, i)) drawn.push_back(*one);
  }
  return drawn;
}

}  // namespace

TEST_CASE("the share of the own row follows Beta(alpha, alpha)", "[data][mix]") {
  for (const double alpha : {0.2, 1.0, 3.0}) {
    double sum = 0, squares = 0;
    const auto drawn = draws({.alpha = alpha, .num_classes = 4}, 20000);
    REQUIRE(drawn.size() == 20000);
    for (const MixParameters& one : drawn) {
      REQUIRE(one.share >= 0);
      REQUIRE(one.share <= 1);
      sum += one.share;
      squares += one.share * one.share;
    }
    const double mean = sum / 20000, variance = squares / 20000 - mean * mean;
    CHECK(mean == Approx(0.5).margin(0.015));
    CHECK(variance == Approx(1 / (4 * (2 * alpha + 1))).epsilon(0.05));
  }
}

TEST_CASE("what a batch gets depends on seed, epoch and batch alone, and kinds and rates are as asked", "[data][mix]") {
  const MixOptions options{.kind = MixKind::either, .probability = 0.6, .num_classes = 4};
  const auto again = draws(options, 5000), drawn = draws(options, 5000);
  CHECK(static_cast<double>(drawn.size()) / 5000 == Approx(0.6).margin(0.03));
  double cut = 0;
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    REQUIRE(drawn[i].share == again[i].share);
    cut += drawn[i].kind == MixKind::cutmix ? 1 : 0;
  }
  CHECK(cut / static_cast<double>(drawn.size()) == Approx(0.5).margin(0.04));
  const MixOptions always{.num_classes = 4};
  const double share = draw_mix(always, 12, 16, 3, 1, 0)->share;
  CHECK(share != draw_mix(always, 12, 16, 4, 1, 0)->share);
  CHECK(share != draw_mix(always, 12, 16, 3, 2, 0)->share);
  CHECK(share != draw_mix(always, 12, 16, 3, 1, 1)->share);
}

TEST_CASE("boxes of cutmix lie in the image and their share is what they leave", "[data][mix]") {
  bool clipped = false;
  for (const MixParameters& one : draws({.kind = MixKind::cutmix, .num_classes = 4}, 2000)) {
    const MixBox& box = one.box;
    REQUIRE((0 <= box.top && box.top <= box.bottom && box.bottom <= 12));
    REQUIRE((0 <= box.left && box.left <= box.right && box.right <= 16));
    const auto area = static_cast<double>((box.bottom - box.top) * (box.right - box.left));
    REQUIRE(one.share == Approx(1 - area / (12 * 16)));
    clipped |= box.top == 0 && box.bottom > 0;
  }
  CHECK(clipped);
}

TEST_CASE("a mixed batch keeps its rows, ids and weights, and its loss is the mixture of two losses", "[data][mix]") {
  const Batch batch = image_batch(6);
  const torch::Tensor before = batch.inputs["image"].clone();
  const torch::Tensor logits = torch::randn({6, 4});
  for (const MixKind kind : {MixKind::mixup, MixKind::cutmix}) {
    const MixOptions options{.kind = kind, .num_classes = 4};
    const Batch mixed = mix(batch, options, 1, 0, 5);
    const MixParameters parameters = *draw_mix(options, 12, 16, 1, 0, 5);
    CHECK(mixed.ids.equal(batch.ids));
    CHECK(mixed.inputs["image"].sizes() == before.sizes());
    CHECK(mixed.target.sizes() == torch::IntArrayRef({6, 4}));
    CHECK(torch::allclose(mixed.target.sum(1), torch::ones({6})));
    const double soft = nn::cross_entropy(logits, mixed.target).sum.item<double>();
    const double own = nn::cross_entropy(logits, batch.target).sum.item<double>();
    const double other = nn::cross_entropy(logits, batch.target.roll(1, 0)).sum.item<double>();
    CHECK(soft == Approx(parameters.share * own + (1 - parameters.share) * other).epsilon(1e-6));
  }
  CHECK(batch.inputs["image"].equal(before));
  CHECK(batch.target.dim() == 1);
}

TEST_CASE("a batch that is left alone still has probabilities as target", "[data][mix]") {
  const Batch batch = image_batch(5);
  const Batch same = mix(batch, {.probability = 0, .num_classes = 4}, 1, 0, 0);
  CHECK(same.inputs["image"].is_same(batch.inputs["image"]));
  CHECK(same.target.argmax(1).equal(batch.target));
  CHECK(same.target.sum().item<float>() == 5);
}

TEST_CASE("cutmix takes bytes, mixup does not, and options are checked", "[data][mix]") {
  Batch batch = image_batch(4);
  batch.inputs["image"] = (batch.inputs["image"] * 255).to(torch::kByte);
  CHECK(mix(batch, {.kind = MixKind::cutmix, .num_classes = 4}, 1, 0, 0).inputs["image"].scalar_type() == torch::kByte);
  const auto fails = [&](const MixOptions& options, const std::string& part) {
    return config_error([&] { mix(batch, options, 1, 0, 0); }).find(part) != std::string::npos;
  };
  CHECK(fails({.num_classes = 4}, "floating-point images"));
  CHECK(fails({.alpha = 0, .num_classes = 4}, "alpha must be positive, got 0"));
  CHECK(fails({.probability = 1.5, .num_classes = 4}, "probability"));
  CHECK(fails({.kind = MixKind::cutmix}, "num_classes"));
}
