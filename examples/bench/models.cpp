#include "bench/models.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn.h>

#include <algorithm>

#include "mmtrain/core/error.h"
#include "mmtrain/models/blocks.h"
#include "mmtrain/models/registry.h"
#include "mmtrain/nn/attention.h"
#include "mmtrain/nn/batch_norm.h"
#include "mmtrain/nn/conv1d.h"
#include "mmtrain/nn/dropout.h"
#include "mmtrain/nn/transformer.h"

namespace mmtrain::bench {
namespace {

namespace tn = torch::nn;

class SensorTransformerImpl : public tn::Cloneable<SensorTransformerImpl> {
 public:
  explicit SensorTransformerImpl(double dropout) : dropout_(dropout) { SensorTransformerImpl::reset(); }

  void reset() override {
    inp = register_module("inp", tn::Linear(9, 128));
    pos = register_parameter("pos", torch::randn({1, 128, 128}) * 0.02);
    enc = register_module("enc", nn::TransformerEncoder(nn::TransformerEncoderOptions{
                                     .layer = {.d_model = 128,
                                               .nhead = 8,
                                               .dim_feedforward = 256,
                                               .dropout = dropout_,
                                               .activation = nn::Activation::gelu,
                                               .norm_first = true},
                                     .num_layers = 4,
                                 }));
    norm = register_module("norm", tn::LayerNorm(tn::LayerNormOptions({128})));
    head = register_module("head", tn::Linear(128, 6));
  }

  torch::Tensor forward(const torch::Tensor& x) { return head(norm(enc(inp(x) + pos)).mean(1)); }

  tn::Linear inp{nullptr}, head{nullptr};
  torch::Tensor pos;
  nn::TransformerEncoder enc{nullptr};
  tn::LayerNorm norm{nullptr};

 private:
  double dropout_;
};
TORCH_MODULE(SensorTransformer);

tn::Sequential conv1d(double dropout) {
  tn::Sequential net;
  std::int64_t channels = 9;
  for (const std::int64_t out : {64, 128, 128}) {
    net->push_back(nn::Conv1d(tn::Conv1dOptions(channels, out, 5).padding(2).bias(false)));
    net->push_back(nn::BatchNorm1d(out));
    net->push_back(tn::ReLU());  // not in place: the batch norm gives a view
    net->push_back(tn::MaxPool1d(2));
    channels = out;
  }
  net->push_back(tn::AdaptiveAvgPool1d(1));
  net->push_back(tn::Flatten());
  net->push_back(nn::Dropout(dropout));
  net->push_back(tn::Linear(channels, 6));
  return net;
}

// ResNet-18: a stem, four stages of two blocks, the mean over the map, a linear layer. `deep_stem` is the original one
// for large images; the other keeps the size of small ones.
tn::Sequential resnet18(bool deep_stem, std::int64_t features) {
  tn::Sequential net;
  const auto stem =
      deep_stem ? tn::Conv2dOptions(3, 64, 7).stride(2).padding(3) : tn::Conv2dOptions(3, 64, 3).padding(1);
  net->push_back(tn::Conv2d(tn::Conv2dOptions(stem).bias(false)));
  net->push_back(nn::BatchNorm2d(64));
  net->push_back(tn::ReLU(tn::ReLUOptions(/*inplace=*/true)));
  if (deep_stem) net->push_back(tn::MaxPool2d(tn::MaxPool2dOptions(3).stride(2).padding(1)));
  std::int64_t channels = 64;
  for (const std::int64_t out : {64, 128, 256, 512}) {
    net->push_back(models::ResidualBlock(channels, out, out == channels ? 1 : 2));
    net->push_back(models::ResidualBlock(out, out));
    channels = out;
  }
  net->push_back(tn::AdaptiveAvgPool2d(1));
  net->push_back(tn::Flatten());
  net->push_back(tn::Linear(channels, features));
  return net;
}

class EmotionFusionImpl : public tn::Cloneable<EmotionFusionImpl> {
 public:
  explicit EmotionFusionImpl(double dropout) : dropout_(dropout) { EmotionFusionImpl::reset(); }

  void reset() override {
    v = register_module("v", resnet18(/*deep_stem=*/true, kFeatures));
    a = register_module("a", audio_net());
    const nn::MultiheadAttentionOptions attention{.embed_dim = kFeatures, .num_heads = 4};
    va = register_module("va", nn::MultiheadAttention(attention));
    av = register_module("av", nn::MultiheadAttention(attention));
    nv = register_module("nv", tn::LayerNorm(tn::LayerNormOptions({kFeatures})));
    na = register_module("na", tn::LayerNorm(tn::LayerNormOptions({kFeatures})));
    head = register_module("head", tn::Sequential(tn::Linear(2 * kFeatures, kFeatures), tn::ReLU(),
                                                  nn::Dropout(dropout_), tn::Linear(kFeatures, 7)));
  }

  torch::Tensor forward(const torch::Tensor& frames, const torch::Tensor& mel) {
    const torch::Tensor video = v->forward(frames.flatten(0, 1)).view({frames.size(0), frames.size(1), -1});
    const torch::Tensor audio = a->forward(mel).mean(2).transpose(1, 2);
    const torch::Tensor seen = nv(video + va(video, audio, audio));
    const torch::Tensor heard = na(audio + av(audio, video, video));
    return head->forward(torch::cat({seen.mean(1), heard.mean(1)}, 1));
  }

  tn::Sequential v{nullptr}, a{nullptr}, head{nullptr};
  nn::MultiheadAttention va{nullptr}, av{nullptr};
  tn::LayerNorm nv{nullptr}, na{nullptr};

 private:
  static constexpr std::int64_t kFeatures = 256;

  static tn::Sequential audio_net() {
    tn::Sequential net;
    std::int64_t channels = 1;
    for (const std::int64_t out : {32, 64, 128, 256}) {
      net->push_back(tn::Conv2d(tn::Conv2dOptions(channels, out, 3).padding(1).bias(false)));
      net->push_back(nn::BatchNorm2d(out));
      net->push_back(tn::ReLU(tn::ReLUOptions(/*inplace=*/true)));
      net->push_back(tn::MaxPool2d(2));
      channels = out;
    }
    return net;
  }

  double dropout_;
};
TORCH_MODULE(EmotionFusion);

std::shared_ptr<Model> emotion8(double dropout) {
  return as_model(EmotionFusion(dropout), [](EmotionFusion& net, const NamedTensors& inputs) {
    return net->forward(inputs["video"], inputs["audio"]);
  });
}

}  // namespace

const std::vector<std::string>& bench_model_names() {
  static const std::vector<std::string> names{"transformer128", "conv1d", "resnet18_tiny", "emotion8"};
  return names;
}

BenchModel make_bench_model(const std::string& name, bool dropout) {
  const auto rate = [&](double p) { return dropout ? p : 0.0; };
  BenchModel made;
  if (name == "transformer128") {
    made = {as_model(SensorTransformer(rate(0.1))), {{"sequence", {128, 9}}}, 6, 32};
  } else if (name == "conv1d") {
    made = {as_model(conv1d(rate(0.2))), {{"sequence", {9, 128}}}, 6, 32};
  } else if (name == "resnet18_tiny") {
    made = {as_model(resnet18(/*deep_stem=*/false, 200)), {{"image", {3, 64, 64}}}, 200, 64};
  } else if (name == "emotion8") {
    made = {emotion8(rate(0.1)), {{"video", {8, 3, 112, 112}}, {"audio", {1, 64, 300}}}, 7, 4};
  } else {
    throw ConfigError(
        fmt::format("[bench] there is no model '{}', only {}", name, fmt::join(bench_model_names(), ", ")));
  }
  nn::assign_dropout_layers(made.model->module());
  return made;
}

BenchModel make_library_model(const std::string& name, ModelOptions options) {
  const auto is_in = [&](ModelFamily family) {
    const std::vector<std::string> names = model_names(family);
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  std::vector<InputShape> inputs{{"image", {3, options.image_size, options.image_size}}};
  std::int64_t batch_size = 64;
  if (is_in(ModelFamily::behavior)) {
    inputs = {{"series", {500, options.channels}}, {"stft", {options.channels, 129, 5}}};
    options.num_classes = 4;
    batch_size = 32;
  } else if (is_in(ModelFamily::emotion)) {
    inputs = {{"image", {3, 224, 224}}, {"mel", {64, 500}}};
    options.num_classes = 7;
    batch_size = 16;
  }
  BenchModel made{make_model(name, options), std::move(inputs), options.num_classes, batch_size};
  nn::assign_dropout_layers(made.model->module());
  return made;
}

Batch make_bench_batch(const BenchModel& model, std::int64_t rows, std::uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  Batch batch;
  for (const InputShape& input : model.inputs) {
    std::vector<std::int64_t> shape{rows};
    shape.insert(shape.end(), input.shape.begin(), input.shape.end());
    batch.inputs.insert(input.name, torch::randn(shape, generator));
  }
  batch.target = torch::randint(model.num_classes, {rows}, generator, torch::kLong);
  return batch;
}

}  // namespace mmtrain::bench
