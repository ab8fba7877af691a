#include "catch.h"

#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "mmtrain/core/cpu_features.h"
#include "mmtrain/core/error.h"
#include "mmtrain/nn/attention.h"
#include "mmtrain/nn/batch_norm.h"
#include "mmtrain/nn/checkpoint.h"
#include "mmtrain/nn/conv1d.h"
#include "mmtrain/nn/dropout.h"
#include "mmtrain/nn/gru.h"
#include "mmtrain/nn/losses.h"
#include "mmtrain/nn/random_context.h"
#include "mmtrain/nn/spectral.h"
#include "mmtrain/nn/transformer.h"
#include "nn/context_key.h"
#include "nn/keep_mask.h"
#include "nn/kernels.h"
#include "nn/random_draw.h"

using namespace mmtrain;
using nn::RandomContext;
using nn::StepContext;

namespace {

torch::Tensor ones(torch::IntArrayRef shape) { return torch::ones(shape); }

// What dropout makes of ones in a context.
torch::Tensor mask_in(const StepContext& step, torch::IntArrayRef shape, double p = 0.3, std::uint64_t layer = 7) {
  const RandomContext context(step);
  return nn::dropout(ones(shape), p, layer);
}

double correlation(const torch::Tensor& a, const torch::Tensor& b) {
  const torch::Tensor x = a.flatten().to(torch::kDouble), y = b.flatten().to(torch::kDouble);
  return (((x - x.mean()) * (y - y.mean())).mean() / (x.std() * y.std())).item<double>();
}

double relative_difference(const torch::Tensor& a, const torch::Tensor& reference) {
  return ((a - reference).abs().max() / reference.abs().max()).item<double>();
}

std::vector<SimdLevel> available_levels() {
  std::vector<SimdLevel> levels;
  for (const SimdLevel level : {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512}) {
    if (level <= best_simd_level()) levels.push_back(level);
  }
  return levels;
}

class LevelScope {
 public:
  explicit LevelScope(SimdLevel level) : before_(simd_level()) { set_simd_level(level); }
  ~LevelScope() { set_simd_level(before_); }

 private:
  SimdLevel before_;
};

class ThreadsScope {
 public:
  explicit ThreadsScope(int threads) : before_(at::get_num_threads()) { at::set_num_threads(threads); }
  ~ThreadsScope() { at::set_num_threads(before_); }

 private:
  int before_;
};

template <class Call>
std::string config_error(Call call) {
  try {
    call();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no ConfigError";
}

nn::TransformerEncoder small_encoder(double dropout, bool checkpoint = false) {
  torch::manual_seed(3);
  nn::TransformerEncoder net(nn::TransformerEncoderOptions{.layer = {.d_model = 24,
                                                                     .nhead = 3,
                                                                     .dim_feedforward = 40,
                                                                     .dropout = dropout,
                                                                     .activation = nn::Activation::gelu,
                                                                     .norm_first = true},
                                                           .num_layers = 2,
                                                           .final_norm = true,
                                                           .checkpoint = checkpoint});
  nn::assign_dropout_layers(*net);
  return net;
}

std::vector<torch::Tensor> gradients(const torch::nn::Module& net) {
  std::vector<torch::Tensor> found;
  for (const torch::Tensor& parameter : net.parameters()) found.push_back(parameter.grad().clone());
  return found;
}

bool same(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
  bool equal = a.size() == b.size();
  for (std::size_t i = 0; equal && i < a.size(); ++i) equal = a[i].equal(b[i]);
  return equal;
}

}  // namespace

// ------------------------------------------------------------------------------------------------------ dropout

TEST_CASE("dropout drops at its rate, keeps the mean, and divides what it keeps by 1 - p", "[nn][dropout]") {
  for (const double p : {0.001, 0.1, 0.5, 0.75}) {
    const torch::Tensor out = mask_in({.seed = 1, .step = 2}, {64, 20000}, p);
    const double n = 64.0 * 20000, deviation = std::sqrt(p * (1 - p) / n);
    const torch::Tensor dropped = (out == 0).to(torch::kDouble);
    CHECK(std::abs(dropped.mean().item<double>() - p) < 5 * deviation);
    // Also within the samples: their rates scatter as independent draws do.
    const double scatter = dropped.mean(1).std().item<double>() / std::sqrt(p * (1 - p) / 20000);
    CHECK(scatter == Approx(1).margin(0.4));
    CHECK(out.to(torch::kDouble).mean().item<double>() == Approx(1).margin(5 * deviation / (1 - p)));
    const torch::Tensor kept = out.masked_select(out != 0);
    CHECK(kept.min().item<float>() == static_cast<float>(1 / (1 - p)));
    CHECK(kept.max().item<float>() == static_cast<float>(1 / (1 - p)));
  }
}

TEST_CASE("masks of neighbours, samples, calls, layers, steps and seeds are independent", "[nn][dropout]") {
  const StepContext step{.seed = 5, .step = 9};
  const torch::Tensor mask = mask_in(step, {32, 8192}, 0.5);
  const double limit = 5 / std::sqrt(32 * 8192);
  for (const int distance : {1, 2, 4, 8, 16, 32, 64}) {
    CHECK(std::abs(correlation(mask.slice(1, distance), mask.slice(1, 0, -distance))) < limit * 1.1);
  }
  CHECK(std::abs(correlation(mask.slice(0, 1), mask.slice(0, 0, -1))) < limit * 1.1);
  CHECK(std::abs(correlation(mask, mask_in(step, {32, 8192}, 0.5, 8))) < limit);
  CHECK(std::abs(correlation(mask, mask_in({.seed = 5, .step = 10}, {32, 8192}, 0.5))) < limit);
  CHECK(std::abs(correlation(mask, mask_in({.seed = 6, .step = 9}, {32, 8192}, 0.5))) < limit);
  const RandomContext context(step);
  const torch::Tensor first = nn::dropout(ones({32, 8192}), 0.5, 7), second = nn::dropout(ones({32, 8192}), 0.5, 7);
  CHECK(first.equal(mask));
  CHECK(std::abs(correlation(first, second)) < limit);
}

TEST_CASE("a sample has the same mask however the batch is split, ordered or threaded", "[nn][dropout]") {
  // Sizes around the kernel's groups and chunks, so that every kind of tail occurs.
  for (const std::int64_t elements : {1, 63, 64, 65, 4095, 4096, 10001}) {
    const torch::Tensor joined = mask_in({.seed = 3, .step = 4, .rows = 6}, {6, elements});
    const torch::Tensor head = mask_in({.seed = 3, .step = 4, .rows = 4}, {4, elements});
    const torch::Tensor tail = mask_in({.seed = 3, .step = 4, .rows = 2, .first_sample = 4}, {2, elements});
    CHECK(torch::cat({head, tail}).equal(joined));

    const std::vector<std::int64_t> order{5, 0, 3};
    const torch::Tensor picked = mask_in({.seed = 3, .step = 4, .rows = 3, .samples = order}, {3, elements});
    CHECK(picked.equal(joined.index_select(0, torch::tensor(order))));

    const ThreadsScope one(1);
    CHECK(mask_in({.seed = 3, .step = 4, .rows = 6}, {6, elements}).equal(joined));
  }
}

TEST_CASE("samples far apart and seeds that differ in high bits have masks of their own", "[nn][dropout]") {
  const auto at = [](std::int64_t sample, std::uint64_t seed = 0, std::int64_t step = 0) {
    return mask_in({.seed = seed, .step = step, .rows = 1, .first_sample = sample}, {1, 256}, 0.5);
  };
  const std::int64_t far = std::int64_t{1} << 32;
  CHECK_FALSE(at(1).equal(at(1 + far)));
  CHECK_FALSE(at(1, 1).equal(at(1, 1 + static_cast<std::uint64_t>(far))));
  CHECK_FALSE(at(1, 1, 1).equal(at(1, 1, 1 + far)));
}

TEST_CASE("frames of a clip count to the clip's row", "[nn][dropout]") {
  // A net that folds 3 frames of each row into the first dimension, on the whole batch and on its second half.
  const torch::Tensor joined = mask_in({.seed = 1, .rows = 4}, {12, 50});
  const torch::Tensor half = mask_in({.seed = 1, .rows = 2, .first_sample = 2}, {6, 50});
  CHECK(half.equal(joined.slice(0, 6)));
  CHECK_FALSE(joined.slice(0, 0, 3)[0].equal(joined[1]));
}

TEST_CASE("an input without a dimension of rows still drops reproducibly", "[nn][dropout]") {
  const StepContext step{.seed = 1, .step = 1, .rows = 4};
  const torch::Tensor mask = mask_in(step, {7, 100});
  CHECK(mask.equal(mask_in(step, {7, 100})));
  CHECK_FALSE(mask[0].equal(mask[1]));
}

TEST_CASE("all instruction sets drop the same elements, bit for bit", "[nn][dropout][simd]") {
  const torch::Tensor input = torch::randn({5, 777});
  std::optional<torch::Tensor> expected;
  for (const SimdLevel level : available_levels()) {
    const LevelScope scope(level);
    const RandomContext context({.seed = 77, .step = 1});
    const torch::Tensor out = nn::dropout(input, 0.1, 1);
    if (!expected) expected = out;
    CHECK(out.equal(*expected));
  }
}

TEST_CASE("masks made of tensor operations equal those of the kernels", "[nn][dropout]") {
  nn::detail::RandomDraw draw;
  draw.key = {0xDEADBEEF, 0x12345678};
  draw.threshold = 0x4CCCCCCD;
  draw.count = 3;
  for (const std::vector<std::int64_t>& samples :
       {std::vector<std::int64_t>{}, std::vector<std::int64_t>{9, 0, (std::int64_t{1} << 40) + 1}}) {
    draw.samples = samples;
    draw.first_sample = 17;
    const torch::Tensor like = torch::empty({3, 10, 15});
    const torch::Tensor mask = nn::detail::keep_mask(draw, like);
    REQUIRE(mask.sizes() == like.sizes());
    for (std::int64_t i = 0; i < 3; ++i) {
      std::array<std::uint64_t, 3> words{};
      nn::detail::kScalarKernels.keep_bits(draw.stream(i), 0, words.size(), words.data());
      const torch::Tensor row = mask[i].flatten();
      for (std::int64_t e = 0; e < row.numel(); ++e) {
        const bool kept = (words[static_cast<std::size_t>(e) / 64] >> (e % 64) & 1) != 0;
        REQUIRE(row[e].item<bool>() == kept);
      }
    }
  }
  const torch::Tensor channels_last = torch::empty({3, 4, 5, 6}).contiguous(torch::MemoryFormat::ChannelsLast);
  const torch::Tensor plain = nn::detail::keep_mask(draw, torch::empty({3, 120}));
  CHECK(nn::detail::keep_mask(draw, channels_last).permute({0, 2, 3, 1}).flatten(1).equal(plain));
}

TEST_CASE("A step that lies on the device gives the masks of the number", "[nn][dropout]") {
  const torch::Tensor like = torch::empty({4, 100});
  for (const std::int64_t step : {0ll, 7ll, 0x123456789ABCll}) {
    const std::uint64_t layer = 0xABCDEF0123456789;
    const StepContext known{.seed = 0xFEDCBA9876543210, .step = step};
    const StepContext hidden{.seed = known.seed, .step = 1, .step_on_device = torch::tensor(step, torch::kLong)};
    nn::detail::RandomDraw by_number, by_tensor;
    by_number.threshold = by_tensor.threshold = 0x66666666;
    by_number.count = by_tensor.count = 4;
    by_number.key = nn::detail::context_key(known, layer, 5);
    by_tensor.key_on_device = nn::detail::context_key_on_device(hidden, layer, 5);
    CHECK(nn::detail::keep_mask(by_number, like).equal(nn::detail::keep_mask(by_tensor, like)));
  }
}

TEST_CASE("On CUDA dropout draws the masks of the CPU", "[.][gpu]") {
  const StepContext step{.seed = 2, .step = 9, .first_sample = 5};
  const RandomContext context(step);
  const torch::Tensor input = torch::ones({6, 321});
  const torch::Tensor on_cpu = nn::dropout(input, 0.3, 4);
  const RandomContext again(step);
  CHECK(nn::dropout(input.to(torch::kCUDA), 0.3, 4).cpu().equal(on_cpu));
}

TEST_CASE("On CUDA spectra and cepstra are those of the CPU", "[.][gpu]") {
  const torch::Tensor waveforms = torch::randn({3, 16001});
  nn::MelSpectrogram mel(MelOptions{.n_fft = 512, .hop = 128, .n_mels = 40});
  nn::Mfcc mfcc;
  const torch::Tensor energies = mel->forward(waveforms), cepstra = mfcc->forward(waveforms);
  mel->to(torch::kCUDA);
  mfcc->to(torch::kCUDA);
  const torch::Tensor on_device = waveforms.to(torch::kCUDA);
  CHECK(torch::allclose(mel->forward(on_device).cpu(), energies, 1e-4, 1e-4 * energies.max().item<double>()));
  CHECK(torch::allclose(mfcc->forward(on_device).cpu(), cepstra, 1e-4, 1e-4 * cepstra.abs().max().item<double>()));
  const torch::Tensor short_one = on_device.slice(1, 0, 57);
  CHECK(torch::allclose(mfcc->forward(short_one).cpu(), nn::Mfcc()->forward(short_one.cpu()), 1e-3, 1e-2));
}

TEST_CASE("all floating-point types see the same mask", "[nn][dropout]") {
  const StepContext step{.seed = 2, .step = 2};
  const torch::Tensor expected = mask_in(step, {9, 4321}, 0.25) != 0;
  const std::map<torch::ScalarType, double> units{
      {torch::kDouble, 1e-15}, {torch::kHalf, 1e-3}, {torch::kBFloat16, 8e-3}};
  for (const auto& [type, unit] : units) {
    const RandomContext context(step);
    const torch::Tensor input = torch::randn({9, 4321}).to(type);
    const torch::Tensor out = nn::dropout(input, 0.25, 7);
    CHECK(out.scalar_type() == type);
    CHECK((out != 0).equal(expected));
    CHECK(torch::allclose(out.to(torch::kDouble), torch::where(expected, input.to(torch::kDouble) / 0.75, 0), unit));
  }
}

TEST_CASE("the gradient of dropout is its mask, in every memory format", "[nn][dropout][grad]") {
  const auto check = [](const torch::Tensor& source) {
    const torch::Tensor input = source.detach().requires_grad_();
    const RandomContext context({.seed = 8, .step = 1});
    const torch::Tensor out = nn::dropout(input, 0.4, 1);
    const torch::Tensor weights = torch::randn_like(out);
    (out * weights).sum().backward();
    const torch::Tensor factor = torch::where(out.detach() != 0, 1 / (1 - 0.4), 0.0).to(source.scalar_type());
    CHECK(torch::allclose(out.detach(), source * factor));
    CHECK(torch::allclose(input.grad(), weights * factor));
    return out;
  };
  check(torch::randn({4, 6, 5, 5}));
  check(torch::randn({4, 6, 5, 5}, torch::kDouble));
  const torch::Tensor out = check(torch::randn({4, 6, 5, 5}).contiguous(torch::MemoryFormat::ChannelsLast));
  CHECK(out.is_contiguous(torch::MemoryFormat::ChannelsLast));
  check(torch::randn({6, 4, 30}).transpose(0, 1));
  check(torch::randn({40}));
}

TEST_CASE("dropout has second derivatives", "[nn][dropout][grad]") {
  const torch::Tensor input = torch::randn({3, 70}).requires_grad_();
  const RandomContext context({.seed = 8, .step = 1});
  const torch::Tensor out = nn::dropout(input, 0.4, 1);
  const torch::Tensor slope = torch::autograd::grad({out.pow(3).sum()}, {input}, {}, true, true)[0];
  slope.sum().backward();
  const torch::Tensor factor = torch::where(out.detach() != 0, 1 / 0.6, 0.0).to(torch::kFloat);
  CHECK(torch::allclose(input.grad(), 6 * input.detach() * factor.pow(3), 1e-4));
}

TEST_CASE("dropout ends at p 0 and 1, in evaluation mode, and refuses other p", "[nn][dropout]") {
  const torch::Tensor input = torch::randn({4, 5}).requires_grad_();
  CHECK(nn::dropout(input, 0).is_same(input));
  const torch::Tensor none = nn::dropout(input, 1);
  none.sum().backward();
  CHECK(none.eq(0).all().item<bool>());
  CHECK(input.grad().eq(0).all().item<bool>());
  nn::Dropout layer(0.5);
  layer->eval();
  CHECK(layer(input).is_same(input));
  CHECK(nn::dropout(torch::empty({0, 4}), 0.5).numel() == 0);
  CHECK(config_error([] { nn::Dropout bad(1.5); }).find("between 0 and 1, got 1.5") != std::string::npos);
  CHECK(config_error([] { nn::dropout(torch::ones(3), std::nan("")); }).find("[dropout]") != std::string::npos);
}

TEST_CASE("inplace dropout writes into its input", "[nn][dropout]") {
  const torch::Tensor source = torch::randn({4, 500}).requires_grad_();
  const auto run = [&](const torch::Tensor& input, bool inplace) {
    const RandomContext context({.seed = 1});
    return nn::dropout(input, 0.5, 1, inplace);
  };
  const torch::Tensor expected = run(source, false);
  const torch::Tensor work = source * 1;
  const torch::Tensor out = run(work, true);
  CHECK(out.data_ptr() == work.data_ptr());
  CHECK(work.equal(expected));
  out.sum().backward();
  CHECK(source.grad().equal(torch::where(expected != 0, 2.0, 0.0).to(torch::kFloat)));
  const torch::Tensor strided = torch::ones({500, 4}).transpose(0, 1);
  CHECK(run(strided, true).equal(run(torch::ones({4, 500}), false)));
}

TEST_CASE("dropout of channels drops whole channels", "[nn][dropout]") {
  nn::Dropout2d layer(torch::nn::Dropout2dOptions(0.3));
  const RandomContext context({.seed = 4, .step = 1});
  const torch::Tensor out = layer(ones({50, 40, 3, 4}));
  const torch::Tensor channels = out.flatten(2);
  CHECK(channels.amin(2).equal(channels.amax(2)));
  CHECK((channels.select(2, 0) == 0).to(torch::kFloat).mean().item<float>() == Approx(0.3).margin(0.05));
  CHECK(config_error([] { nn::dropout_channels(torch::ones({3, 4}), 0.5); }).find("[B,C,...]") != std::string::npos);
}

TEST_CASE("dropout takes the place of LibTorch's in a Sequential, and clones keep its layer", "[nn][dropout]") {
  torch::nn::Sequential net(torch::nn::Linear(4, 300), nn::Dropout(0.5), nn::Dropout(torch::nn::DropoutOptions(0.2)));
  nn::assign_dropout_layers(*net);
  const auto copy = std::dynamic_pointer_cast<torch::nn::SequentialImpl>(net->clone());
  const torch::Tensor input = torch::randn({3, 4});
  const auto run = [&](torch::nn::SequentialImpl& module) {
    const RandomContext context({.seed = 1, .rows = 3});
    return module.forward(input);
  };
  const torch::Tensor out = run(*net);
  CHECK((out == 0).to(torch::kFloat).mean().item<float>() == Approx(0.6).margin(0.08));
  CHECK(run(*copy).equal(out));
}

TEST_CASE("without a context torch::manual_seed governs dropout", "[nn][dropout]") {
  const auto two = [] {
    torch::manual_seed(11);
    return std::pair(nn::dropout(ones({4, 100}), 0.5), nn::dropout(ones({4, 100}), 0.5));
  };
  const auto [first, second] = two();
  const auto [first_again, second_again] = two();
  CHECK(first.equal(first_again));
  CHECK(second.equal(second_again));
  CHECK_FALSE(first.equal(second));
}

TEST_CASE("layers are numbered by name: replicas agree, layers differ, other layers do not matter", "[nn][dropout]") {
  const auto encoder = small_encoder(0.1), replica = small_encoder(0.1);
  std::map<std::uint64_t, std::string> seen;
  const auto others = replica->named_modules();
  for (const auto& module : encoder->named_modules()) {
    const auto* layer = dynamic_cast<const nn::RandomLayer*>(module.value().get());
    if (layer == nullptr) continue;
    CHECK(layer->random_layer() == dynamic_cast<const nn::RandomLayer*>(others[module.key()].get())->random_layer());
    CHECK(seen.emplace(layer->random_layer(), module.key()).second);
  }
  CHECK(seen.size() == 8);  // in each of two layers: attention and three dropouts
}

TEST_CASE("each thread has its own context, and contexts nest", "[nn][dropout]") {
  const torch::Tensor expected = mask_in({.seed = 1, .step = 1, .rows = 8}, {8, 100});
  std::array<torch::Tensor, 2> parts;
  std::vector<std::thread> ranks;
  for (std::int64_t rank = 0; rank < 2; ++rank) {
    ranks.emplace_back([&, rank] {
      parts[static_cast<std::size_t>(rank)] =
          mask_in({.seed = 1, .step = 1, .rows = 4, .first_sample = 4 * rank}, {4, 100});
    });
  }
  for (std::thread& rank : ranks) rank.join();
  CHECK(torch::cat({parts[0], parts[1]}).equal(expected));

  CHECK(RandomContext::current() == nullptr);
  const RandomContext outer({.seed = 1});
  {
    const RandomContext inner({.seed = 2});
    CHECK(RandomContext::current() == &inner);
  }
  CHECK(RandomContext::current() == &outer);
}

TEST_CASE("a context refuses numbers that cannot be", "[nn][dropout]") {
  CHECK(config_error([] { RandomContext context({.step = -1}); }).find("must not be negative") != std::string::npos);
  CHECK(config_error([] {
          RandomContext context({.rows = 3, .samples = {1, 2}});
        }).find("each of the 3 rows, got 2") != std::string::npos);
}

TEST_CASE("layers that draw from LibTorch's generator are found", "[nn][dropout]") {
  torch::nn::Sequential net(nn::Dropout(0.5), torch::nn::Dropout(0.5),
                            torch::nn::GRU(torch::nn::GRUOptions(3, 4).num_layers(2).dropout(0.1)),
                            torch::nn::GRU(torch::nn::GRUOptions(3, 4)), torch::nn::MultiheadAttention(8, 2));
  CHECK(nn::stock_dropout_layers(*net) == std::vector<std::string>{"1", "2"});
}

// ---------------------------------------------------------------------------------------------------- attention

namespace {

struct AttentionRun {
  torch::Tensor out, query_grad, key_grad, value_grad;
};

// One pass of an attention layer with dropout in a fixed context, float32 (fused) or float64 (composed of operators).
AttentionRun run_attention(nn::MultiheadAttention& layer, const std::array<torch::Tensor, 3>& inputs,
                           nn::AttentionMasks masks, torch::ScalarType type, const StepContext& step) {
  layer->to(type);
  std::array<torch::Tensor, 3> leaves;
  for (std::size_t i = 0; i < 3; ++i) leaves[i] = inputs[i].to(type).detach().clone().requires_grad_();
  const RandomContext context(step);
  const torch::Tensor out = layer->forward(leaves[0], leaves[1], leaves[2], masks);
  (out * torch::linspace(-1, 1, out.numel(), type).view_as(out)).sum().backward();
  return {out.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()};
}

}  // namespace

TEST_CASE("fused attention with dropout equals the one composed of operators, also in its gradients",
          "[nn][attention][grad]") {
  struct Shape {
    std::int64_t batch, queries, keys, size, heads;
  };
  torch::manual_seed(5);
  for (const Shape& shape : {Shape{4, 128, 128, 32, 2}, Shape{2, 37, 50, 40, 2}, Shape{6, 1, 3, 8, 4},
                             Shape{1, 100, 700, 20, 1}, Shape{2, 9, 16, 130, 2}}) {
    for (const std::string mask : {"none", "padding", "added", "both"}) {
      nn::MultiheadAttention layer(
          nn::MultiheadAttentionOptions{.embed_dim = shape.size, .num_heads = shape.heads, .dropout = 0.3});
      const std::array<torch::Tensor, 3> inputs{torch::randn({shape.batch, shape.queries, shape.size}),
                                                torch::randn({shape.batch, shape.keys, shape.size}),
                                                torch::randn({shape.batch, shape.keys, shape.size})};
      nn::AttentionMasks masks;
      if (mask == "padding" || mask == "both") {
        masks.key_padding = torch::arange(shape.keys).expand({shape.batch, shape.keys}) > shape.keys / 2;
      }
      if (mask == "added" || mask == "both") masks.attention = torch::randn({shape.queries, shape.keys});
      const StepContext step{.seed = 3, .step = 1, .rows = shape.batch > 4 ? shape.batch / 3 : shape.batch};
      const AttentionRun exact = run_attention(layer, inputs, masks, torch::kDouble, step);
      const AttentionRun fused = run_attention(layer, inputs, masks, torch::kFloat, step);
      INFO(shape.queries << " queries, " << shape.keys << " keys, mask " << mask);
      CHECK(relative_difference(fused.out, exact.out) < 2e-5);
      CHECK(relative_difference(fused.query_grad, exact.query_grad) < 2e-5);
      CHECK(relative_difference(fused.key_grad, exact.key_grad) < 2e-5);
      CHECK(relative_difference(fused.value_grad, exact.value_grad) < 2e-5);
    }
  }
}

TEST_CASE("attention with dropout passes a numerical check of its gradient", "[nn][attention][grad]") {
  torch::manual_seed(6);
  nn::MultiheadAttention layer(nn::MultiheadAttentionOptions{.embed_dim = 8, .num_heads = 2, .dropout = 0.4});
  layer->to(torch::kDouble);
  const torch::Tensor input = torch::randn({2, 5, 8}, torch::kDouble).requires_grad_();
  const auto value = [&](const torch::Tensor& x) {
    const RandomContext context({.seed = 1, .rows = 2});
    const torch::Tensor out = layer->forward(x, x, x);
    return (out * torch::linspace(-1, 2, out.numel(), torch::kDouble).view_as(out)).sum();
  };
  value(input).backward();
  torch::NoGradGuard no_grad;
  const double h = 1e-6;
  for (std::int64_t i = 0; i < input.numel(); i += 7) {
    torch::Tensor up = input.detach().clone(), down = input.detach().clone();
    up.view(-1)[i] += h;
    down.view(-1)[i] -= h;
    const double slope = (value(up) - value(down)).item<double>() / (2 * h);
    CHECK(input.grad().view(-1)[i].item<double>() == Approx(slope).epsilon(1e-6).margin(1e-8));
  }
}

TEST_CASE("fused attention gives equal bits with AVX2 and AVX512, and nearly those without either",
          "[nn][attention][simd]") {
  torch::manual_seed(7);
  nn::MultiheadAttention layer(nn::MultiheadAttentionOptions{.embed_dim = 48, .num_heads = 3, .dropout = 0.2});
  const std::array<torch::Tensor, 3> inputs{torch::randn({3, 45, 48}), torch::randn({3, 77, 48}),
                                            torch::randn({3, 77, 48})};
  std::map<SimdLevel, AttentionRun> runs;
  for (const SimdLevel level : available_levels()) {
    const LevelScope scope(level);
    runs[level] = run_attention(layer, inputs, {}, torch::kFloat, {.seed = 1, .rows = 3});
  }
  const AttentionRun& plain = runs.at(SimdLevel::scalar);
  for (const auto& [level, run] : runs) {
    CHECK(relative_difference(run.out, plain.out) < 1e-5);
    CHECK(relative_difference(run.query_grad, plain.query_grad) < 1e-5);
    CHECK(relative_difference(run.key_grad, plain.key_grad) < 1e-5);
    CHECK(relative_difference(run.value_grad, plain.value_grad) < 1e-5);
  }
  if (best_simd_level() == SimdLevel::avx512) {
    const AttentionRun &narrow = runs.at(SimdLevel::avx2), &wide = runs.at(SimdLevel::avx512);
    CHECK(same({narrow.out, narrow.query_grad, narrow.key_grad, narrow.value_grad},
               {wide.out, wide.query_grad, wide.key_grad, wide.value_grad}));
  }
}

TEST_CASE("attention weights drop at their rate", "[nn][attention]") {
  nn::MultiheadAttention layer(nn::MultiheadAttentionOptions{.embed_dim = 16, .num_heads = 1, .dropout = 0.25});
  const torch::Tensor input = torch::randn({8, 100, 16});
  const auto [out, weights] = layer->forward_with_weights(input, input, input);
  CHECK((weights == 0).to(torch::kFloat).mean().item<float>() == Approx(0.25).margin(0.01));
  // The kept weights of a row add up to 1 / 0.75 on average.
  CHECK(weights.sum(2).mean().item<float>() == Approx(1).margin(0.02));
}

TEST_CASE("a query without a key gets 0 and no gradient, and NaN stays visible", "[nn][attention]") {
  nn::MultiheadAttention layer(nn::MultiheadAttentionOptions{.embed_dim = 16, .num_heads = 2, .dropout = 0.1});
  const torch::Tensor padding = torch::zeros({2, 6}, torch::kBool);
  padding[1].fill_(true);
  for (const auto type : {torch::kFloat, torch::kDouble}) {
    layer->to(type);
    layer->zero_grad();
    const torch::Tensor input = torch::randn({2, 6, 16}, type).requires_grad_();
    const torch::Tensor out = layer->forward(input, input, input, {.key_padding = padding});
    CHECK(out[1].equal(layer->out_proj->bias.expand_as(out[1])));
    CHECK_FALSE(out[0].equal(out[1]));
    out.sum().backward();
    CHECK(input.grad()[1].eq(0).all().item<bool>());
    CHECK(input.grad()[0].isfinite().all().item<bool>());

    torch::Tensor broken = torch::randn({1, 6, 16}, type);
    broken[0][2][3] = std::numeric_limits<double>::quiet_NaN();
    CHECK(layer->forward(broken, broken, broken).isnan().all().item<bool>());
  }
}

TEST_CASE("attention refuses shapes that do not fit", "[nn][attention]") {
  using Options = nn::MultiheadAttentionOptions;
  CHECK(config_error([] {
          nn::MultiheadAttention bad(Options{.embed_dim = 10, .num_heads = 3});
        }).find("num_heads must divide embed_dim, got 3 and 10") != std::string::npos);
  nn::MultiheadAttention layer(Options{.embed_dim = 8, .num_heads = 2});
  const torch::Tensor input = torch::randn({2, 5, 8});
  CHECK(config_error([&] {
          layer->forward(input, torch::randn({3, 5, 8}), input);
        }).find("key must be") != std::string::npos);
  CHECK(config_error([&] {
          layer->forward(input, input, input, {.key_padding = torch::zeros({2, 4})});
        }).find("key padding mask must be [2,5], got [2,4]") != std::string::npos);
  CHECK(config_error([&] {
          layer->forward(input, input, input, {.attention = torch::zeros({1, 5})});
        }).find("attention mask must be [5,5], got [1,5]") != std::string::npos);
}

TEST_CASE("fused attention refuses second derivatives instead of giving wrong ones", "[nn][attention]") {
  nn::MultiheadAttention layer(nn::MultiheadAttentionOptions{.embed_dim = 8, .num_heads = 2});
  const torch::Tensor input = torch::randn({2, 5, 8}).requires_grad_();
  const torch::Tensor out = layer->forward(input, input, input);
  CHECK(config_error([&] { torch::autograd::grad({out.sum()}, {input}, {}, true, true); }).find("second derivatives") !=
        std::string::npos);
}

TEST_CASE("a split batch trains an encoder like the joined one, dropout included", "[nn][transformer]") {
  const torch::Tensor input = torch::randn({6, 33, 24}), weights = torch::randn({6, 33, 24});
  const auto train = [&](const std::vector<std::int64_t>& parts) {
    auto net = small_encoder(0.2);
    std::vector<torch::Tensor> outs;
    std::int64_t first = 0;
    for (const std::int64_t rows : parts) {
      const RandomContext context({.seed = 4, .step = 8, .rows = rows, .first_sample = first});
      outs.push_back(net->forward(input.narrow(0, first, rows)));
      (outs.back() * weights.narrow(0, first, rows)).sum().backward();
      first += rows;
    }
    return std::pair(torch::cat(outs).detach(), gradients(*net));
  };
  const auto [joined, joined_grads] = train({6});
  const auto [split, split_grads] = train({4, 1, 1});
  CHECK(relative_difference(split, joined) < 1e-5);
  for (std::size_t i = 0; i < joined_grads.size(); ++i) {
    CHECK((split_grads[i] - joined_grads[i]).abs().max().item<float>() <
          1e-4 * joined_grads[i].abs().max().item<float>() + 1e-4);
  }
}

TEST_CASE("encoders run in evaluation mode, in a Sequential and from a clone", "[nn][transformer]") {
  auto net = small_encoder(0.5);
  net->eval();
  const torch::Tensor input = torch::randn({2, 9, 24});
  const torch::Tensor out = net->forward(input);
  CHECK(net->forward(input).equal(out));
  torch::nn::Sequential wrapped(net);
  CHECK(wrapped->forward(input).equal(out));
  const auto copy = std::dynamic_pointer_cast<nn::TransformerEncoderImpl>(net->clone());
  CHECK(copy->forward(input).equal(out));
  CHECK(config_error([] {
          nn::TransformerEncoder bad(nn::TransformerEncoderOptions{.layer = {.d_model = 8}, .num_layers = 0});
        }).find("num_layers must be positive") != std::string::npos);
}

// ---------------------------------------------------------------------------------------------------------- gru

TEST_CASE("a GRU drops between its layers only, by the context", "[nn][gru]") {
  torch::manual_seed(2);
  nn::GRU net(torch::nn::GRUOptions(5, 6).num_layers(2).dropout(0.5).batch_first(true).bidirectional(true));
  nn::assign_dropout_layers(*net);
  const torch::Tensor input = torch::randn({4, 7, 5});
  const auto run = [&](std::int64_t first, std::int64_t rows) {
    const RandomContext context({.seed = 1, .step = 3, .rows = rows, .first_sample = first});
    return std::get<0>(net->forward(input.narrow(0, first, rows)));
  };
  const torch::Tensor joined = run(0, 4);
  CHECK(torch::allclose(torch::cat({run(0, 1), run(1, 3)}), joined, 1e-5, 1e-6));

  // By hand: the first layer, the dropout, the second layer.
  nn::GRU first(torch::nn::GRUOptions(5, 6).batch_first(true).bidirectional(true));
  nn::GRU second(torch::nn::GRUOptions(12, 6).batch_first(true).bidirectional(true));
  torch::NoGradGuard no_grad;
  for (const auto& parameter : net->named_parameters()) {
    const bool lower = parameter.key().find("_l0") != std::string::npos;
    std::string name = parameter.key();
    name.replace(name.find("_l"), 3, "_l0");
    (lower ? first : second)->named_parameters()[name].copy_(parameter.value());
  }
  const RandomContext context({.seed = 1, .step = 3, .rows = 4});
  const torch::Tensor middle = nn::dropout(std::get<0>(first->forward(input)), 0.5, net->random_layer());
  CHECK(torch::allclose(std::get<0>(second->forward(middle)), joined, 1e-5, 1e-6));
  net->eval();
  CHECK_FALSE(torch::allclose(std::get<0>(net->forward(input)), joined));
}

TEST_CASE("a GRU takes sequences in either order and refuses what does not fit", "[nn][gru]") {
  nn::GRU net(3, 4);
  const auto [output, final_state] = net->forward(torch::randn({7, 2, 3}));
  CHECK(output.sizes() == torch::IntArrayRef({7, 2, 4}));
  CHECK(final_state.sizes() == torch::IntArrayRef({1, 2, 4}));
  CHECK(output[6].equal(final_state[0]));
  CHECK(config_error([&] { net->forward(torch::randn({7, 2, 5})); }).find("[T,B,3]") != std::string::npos);
  CHECK(config_error([] { nn::GRU bad(0, 4); }).find("must be positive, got 0, 4, 1") != std::string::npos);
}

// ------------------------------------------------------------------------------------------------------- losses

TEST_CASE("losses of parts of a batch add up to the loss of the batch", "[nn][losses]") {
  const torch::Tensor logits = torch::randn({10, 4}, torch::kDouble), rows = torch::rand({10}, torch::kDouble);
  const torch::Tensor target = torch::tensor({0, 1, 2, 3, -100, 1, 1, 0, -100, 2});
  const torch::Tensor class_weights = torch::tensor({0.5, 1.0, 2.0, 3.0}, torch::kDouble);
  const std::vector<std::function<LossValue(const torch::Tensor&, const torch::Tensor&, const torch::Tensor&)>> losses{
      [&](const auto& x, const auto& y, const auto& w) {
        return nn::cross_entropy(x, y, {.class_weights = class_weights, .label_smoothing = 0.1}, w);
      },
      [&](const auto& x, const auto& y, const auto& w) {
        return nn::focal_loss(x, y, {.class_weights = class_weights, .cross_entropy = 1}, w);
      },
      [](const auto& x, const auto& y, const auto& w) { return nn::cross_entropy(x, y, w); }};
  for (const auto& loss : losses) {
    for (const bool weighted : {false, true}) {
      const auto part = [&](std::int64_t first, std::int64_t count) {
        return loss(logits.narrow(0, first, count), target.narrow(0, first, count),
                    weighted ? rows.narrow(0, first, count) : torch::Tensor());
      };
      const LossValue joined = part(0, 10), head = part(0, 7), tail = part(7, 3);
      CHECK((head.sum + tail.sum).item<double>() == Approx(joined.sum.item<double>()).epsilon(1e-12));
      CHECK((head.weight + tail.weight).item<double>() == Approx(joined.weight.item<double>()).epsilon(1e-12));
    }
  }
}

TEST_CASE("a row of weight 0 counts nowhere, whatever it holds", "[nn][losses]") {
  const torch::Tensor logits = torch::randn({3, 4});
  const torch::Tensor infinite = logits.clone();
  infinite[2].fill_(-std::numeric_limits<float>::infinity());
  const torch::Tensor target = torch::tensor({1, 2, 3}), rows = torch::tensor({1.0f, 2.0f, 0.0f});
  for (const double smoothing : {0.0, 0.1}) {
    const nn::CrossEntropyOptions options{.label_smoothing = smoothing};
    const LossValue value = nn::cross_entropy(infinite, target, options, rows);
    const LossValue expected =
        nn::cross_entropy(logits.narrow(0, 0, 2), target.narrow(0, 0, 2), options, rows.narrow(0, 0, 2));
    CHECK(value.sum.item<float>() == Approx(expected.sum.item<float>()));
    CHECK(value.weight.item<float>() == 3);
  }
}

TEST_CASE("half-precision logits are summed in float32", "[nn][losses]") {
  const torch::Tensor logits = torch::zeros({4096, 10}, torch::kBFloat16);
  const LossValue value = nn::cross_entropy(logits, torch::zeros({4096}, torch::kLong));
  CHECK(value.sum.scalar_type() == torch::kFloat);
  CHECK(value.sum.item<double>() == Approx(4096 * std::log(10.0)).epsilon(1e-5));
}

TEST_CASE("a sure focal loss has finite gradients for every gamma", "[nn][losses]") {
  for (const double gamma : {0.0, 0.5, 1.0, 2.0}) {
    const torch::Tensor logits = torch::tensor({{80.0f, -80.0f}, {-80.0f, 80.0f}}).requires_grad_();
    const LossValue value = nn::focal_loss(logits, torch::tensor({0, 0}), {.gamma = gamma});
    value.sum.backward();
    CHECK(logits.grad().isfinite().all().item<bool>());
    CHECK(value.sum.item<float>() == Approx(160).epsilon(1e-5));
  }
}

TEST_CASE("losses refuse what does not fit", "[nn][losses]") {
  const torch::Tensor logits = torch::randn({3, 4}), target = torch::tensor({0, 1, 2});
  const auto message = [&](auto call, const std::string& part) {
    return config_error(call).find(part) != std::string::npos;
  };
  CHECK(message([&] { nn::cross_entropy(logits, target, {.label_smoothing = 2}); }, "label_smoothing"));
  CHECK(message([&] { nn::cross_entropy(logits, torch::tensor({0, 1})); }, "got [2]"));
  CHECK(message([&] { nn::cross_entropy(logits, target, {.class_weights = torch::ones(3)}); }, "4 classes"));
  CHECK(message([&] { nn::cross_entropy(logits, target, torch::ones(2)); }, "3 rows"));
  CHECK(message([&] { nn::focal_loss(logits, logits.softmax(1), {}); }, "class indices"));
  CHECK(message([&] { nn::focal_loss(logits, target, {.gamma = -1}); }, "gamma"));
}

// --------------------------------------------------------------------------------------------------- checkpoint

namespace {

// Counts the bytes that tensors hold.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    void* block = base().raw_allocate(bytes);
    const std::lock_guard<std::mutex> lock(mutex());
    sizes()[block] = static_cast<std::int64_t>(bytes);
    return {block, block, &free, torch::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { base().copy_data(to, from, bytes); }

  static c10::Allocator& base() {
    static c10::Allocator& allocator = *c10::GetAllocator(torch::kCPU);
    return allocator;
  }
  static std::int64_t live() {
    const std::lock_guard<std::mutex> lock(mutex());
    std::int64_t bytes = 0;
    for (const auto& block : sizes()) bytes += block.second;
    return bytes;
  }

 private:
  static void free(void* block) {
    {
      const std::lock_guard<std::mutex> lock(mutex());
      sizes().erase(block);
    }
    base().raw_deallocate(block);
  }
  static std::map<void*, std::int64_t>& sizes() {
    static std::map<void*, std::int64_t> by_block;
    return by_block;
  }
  static std::mutex& mutex() {
    static std::mutex one;
    return one;
  }
};

// Bytes that the graph of `forward` holds until the backward pass.
template <class Forward>
std::int64_t bytes_kept(Forward forward) {
  c10::Allocator& base = CountingAllocator::base();
  static CountingAllocator counting;
  c10::SetAllocator(torch::kCPU, &counting);
  const std::int64_t before = CountingAllocator::live();
  std::int64_t kept = 0;
  {
    const torch::Tensor out = forward();
    kept = CountingAllocator::live() - before;
  }
  c10::SetAllocator(torch::kCPU, &base);
  return kept;
}

torch::nn::Sequential block_net() {
  torch::manual_seed(9);
  torch::nn::Sequential net;
  for (int i = 0; i < 4; ++i) {
    net->push_back(torch::nn::Linear(16, 16));
    net->push_back(torch::nn::BatchNorm1d(16));
    net->push_back(torch::nn::Tanh());
    net->push_back(nn::Dropout(0.3));
    net->push_back(torch::nn::Dropout(0.2));  // stock dropout must be replayed too
  }
  nn::assign_dropout_layers(*net);
  return net;
}

struct TrainedNet {
  torch::Tensor out, input_grad;
  std::vector<torch::Tensor> grads, buffers;
};

TrainedNet train_blocks(std::int64_t segments, bool in_context, bool autocast = false) {
  auto net = block_net();
  torch::manual_seed(10);
  const torch::Tensor input = torch::randn({32, 16}).requires_grad_();
  std::optional<RandomContext> context;
  if (in_context) context.emplace(StepContext{.seed = 1, .step = 2, .rows = 32});
  torch::Tensor out;
  {
    const bool before = at::autocast::is_autocast_enabled(torch::kCPU);
    at::autocast::set_autocast_enabled(torch::kCPU, autocast);
    out = segments == 0 ? net->forward(input) : nn::checkpoint_sequential(net, segments, input);
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(torch::kCPU, before);
  }
  // Draws between the passes must not matter, nor be disturbed.
  nn::dropout(torch::ones({3, 3}), 0.5, 99);
  out.square().sum().backward();
  std::vector<torch::Tensor> buffers;
  for (const torch::Tensor& buffer : net->buffers()) buffers.push_back(buffer.clone());
  return {out.detach(), input.grad(), gradients(*net), buffers};
}

}  // namespace

TEST_CASE("checkpointed blocks give the same output, gradients and statistics", "[nn][checkpoint]") {
  for (const bool in_context : {true, false}) {
    const TrainedNet plain = train_blocks(0, in_context);
    for (const std::int64_t segments : {1, 2, 3, 20}) {
      const TrainedNet saved = train_blocks(segments, in_context);
      INFO(segments << " segments, context " << in_context);
      CHECK(saved.out.equal(plain.out));
      CHECK(saved.input_grad.equal(plain.input_grad));
      CHECK(same(saved.grads, plain.grads));
      CHECK(same(saved.buffers, plain.buffers));
    }
  }
}

TEST_CASE("checkpointing replays autocast", "[nn][checkpoint]") {
  const TrainedNet plain = train_blocks(0, true, true), saved = train_blocks(4, true, true);
  CHECK(saved.out.equal(plain.out));
  CHECK(same(saved.grads, plain.grads));
  CHECK_FALSE(same(saved.grads, train_blocks(0, true, false).grads));
}

TEST_CASE("the generators go on after a checkpointed backward pass as after a plain one", "[nn][checkpoint]") {
  const auto next = [](std::int64_t segments) {
    train_blocks(segments, false);
    return torch::rand({4});
  };
  CHECK(next(0).equal(next(4)));
}

TEST_CASE("a checkpointed encoder equals a plain one and keeps a fraction of its memory", "[nn][checkpoint]") {
  const torch::Tensor input = torch::randn({8, 64, 24}).requires_grad_();
  const auto grads = [&](bool checkpoint) {
    auto net = small_encoder(0.1, checkpoint);
    const RandomContext context({.seed = 1, .rows = 8});
    net->forward(input).square().sum().backward();
    return gradients(*net);
  };
  CHECK(same(grads(true), grads(false)));

  auto plain = small_encoder(0.1), saved = small_encoder(0.1, true);
  const std::int64_t all = bytes_kept([&] { return plain->forward(input); });
  const std::int64_t some = bytes_kept([&] { return saved->forward(input); });
  INFO("bytes kept for the backward pass: " << all << ", with checkpoints " << some);
  CHECK(some * 3 < all);
}

TEST_CASE("checkpoints work with gradients that are asked for, frozen inputs and no gradients", "[nn][checkpoint]") {
  torch::manual_seed(1);
  torch::nn::Linear layer(4, 4);
  const auto block = [layer](const torch::Tensor& x) mutable { return layer->forward(x).tanh(); };
  const torch::Tensor input = torch::randn({3, 4});
  const auto ask = [&](const torch::Tensor& out) { return torch::autograd::grad({out.sum()}, {layer->weight})[0]; };
  CHECK(ask(nn::checkpoint(*layer, input, block)).equal(ask(layer->forward(input).tanh())));
  CHECK_FALSE(layer->weight.grad().defined());

  layer->bias.requires_grad_(false);
  nn::checkpoint(*layer, input, block).sum().backward();
  CHECK(layer->weight.grad().defined());
  CHECK_FALSE(layer->bias.grad().defined());

  torch::NoGradGuard no_grad;
  CHECK_FALSE(nn::checkpoint(*layer, input, block).requires_grad());
  auto net = block_net();
  CHECK(config_error([&] { nn::checkpoint_sequential(net, 0, input); }).find("between 1 and the 20 layers") !=
        std::string::npos);
}

namespace {

// Largest relative difference of output, gradients and running statistics between convolution + batch norm of ours and
// of LibTorch, with the same weights.
double conv1d_difference(const torch::nn::Conv1dOptions& options, const torch::Tensor& input, bool training = true) {
  nn::Conv1d conv(options);
  nn::BatchNorm1d norm(options.out_channels());
  torch::nn::Conv1d stock_conv(options);
  torch::nn::BatchNorm1d stock_norm(options.out_channels());
  conv->to(input.scalar_type()), norm->to(input.scalar_type());
  stock_conv->to(input.scalar_type()), stock_norm->to(input.scalar_type());
  norm->train(training), stock_norm->train(training);
  {
    const torch::NoGradGuard no_grad;
    for (const auto& item : stock_conv->named_parameters()) item.value().copy_(conv->named_parameters()[item.key()]);
    norm->weight.uniform_(0.5, 2), norm->running_mean.normal_(), norm->running_var.uniform_(0.5, 2);
    stock_norm->weight.copy_(norm->weight);
    stock_norm->running_mean.copy_(norm->running_mean), stock_norm->running_var.copy_(norm->running_var);
  }
  const torch::Tensor x = input.clone().requires_grad_(), y = input.clone().requires_grad_();
  const torch::Tensor out = torch::max_pool1d(torch::relu(norm(conv(x))), 2);
  const torch::Tensor stock_out = torch::max_pool1d(torch::relu(stock_norm(stock_conv(y))), 2);
  const torch::Tensor weights = torch::randn_like(stock_out);
  (out * weights).sum().backward(), (stock_out * weights).sum().backward();

  double worst = relative_difference(out.detach(), stock_out.detach());
  const auto compare = [&](const torch::Tensor& a, const torch::Tensor& b) {
    REQUIRE(a.sizes() == b.sizes());
    // Where the true gradient is 0, as of a bias before batch norm, there is nothing to relate a difference to.
    if (b.abs().max().item<double>() > 1e-3) worst = std::max(worst, relative_difference(a, b));
  };
  compare(x.grad(), y.grad());
  for (const auto& item : stock_conv->named_parameters()) {
    compare(conv->named_parameters()[item.key()].grad(), item.value().grad());
  }
  compare(norm->weight.grad(), stock_norm->weight.grad());
  compare(norm->running_mean, stock_norm->running_mean);
  compare(norm->running_var, stock_norm->running_var);
  CHECK(norm->num_batches_tracked.item<std::int64_t>() == stock_norm->num_batches_tracked.item<std::int64_t>());
  return worst;
}

}  // namespace

TEST_CASE("Conv1d equals the stock layer, with batch norm behind it too", "[nn][conv1d]") {
  torch::manual_seed(3);
  using Options = torch::nn::Conv1dOptions;
  for (const bool training : {true, false}) {
    for (const std::int64_t length : {64, 17, 7}) {
      for (const Options& options : {Options(9, 16, 5).padding(2).bias(false), Options(9, 16, 3),
                                     Options(9, 18, 3).stride(2).padding(1).groups(3),
                                     Options(9, 16, 3).dilation(2).padding(torch::kSame), Options(9, 16, 1).stride(2),
                                     Options(9, 1, 3), Options(9, 16, 3).padding(1).padding_mode(torch::kReflect)}) {
        CAPTURE(training, length, options.kernel_size()->at(0), options.groups());
        CHECK(conv1d_difference(options, torch::randn({3, 9, length}), training) < 1e-4);
        CHECK(conv1d_difference(options, torch::randn({3, 9, length}, torch::kDouble), training) < 1e-10);
      }
    }
  }
}

TEST_CASE("a Conv1d in a Sequential is cloned with its values", "[nn][conv1d]") {
  torch::nn::Sequential net(nn::Conv1d(9, 16, 3));
  const auto copy = std::dynamic_pointer_cast<torch::nn::SequentialImpl>(net->clone());
  const torch::Tensor x = torch::randn({2, 9, 12});
  CHECK(torch::equal(copy->forward(x), net->forward(x)));
  CHECK_FALSE(copy->parameters()[0].is_alias_of(net->parameters()[0]));
  std::ostringstream text;
  text << *net;
  CHECK(text.str().find("mmtrain::nn::Conv1d(9, 16, kernel_size=3") != std::string::npos);
}

TEST_CASE("what follows a Conv1d keeps its channels last in memory", "[nn][conv1d]") {
  const torch::Tensor out =
      torch::relu(nn::BatchNorm1d(16)(nn::Conv1d(torch::nn::Conv1dOptions(9, 16, 3))(ones({2, 9, 12}))));
  CHECK(out.sizes() == torch::IntArrayRef{2, 16, 10});
  CHECK(out.strides() == torch::IntArrayRef{160, 1, 16});
  CHECK(torch::max_pool1d(out, 2).stride(1) == 1);
}
