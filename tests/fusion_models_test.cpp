#include <torch/torch.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "catch.h"
#include "mmtrain/amp/autocast.h"
#include "mmtrain/core/error.h"
#include "mmtrain/models/behavior.h"
#include "mmtrain/models/emotion.h"
#include "mmtrain/models/pretrained.h"
#include "mmtrain/models/registry.h"
#include "mmtrain/nn/random_context.h"

using namespace mmtrain;

namespace {

constexpr std::int64_t kRows = 4;

// Small nets of both families, by name.
std::shared_ptr<Model> small(const std::string& name, bool dropout = true, const std::string& fusion = "attention") {
  return make_model(name, {.num_classes = 5,
                           .width = 0.25,
                           .dropout = dropout,
                           .d_model = 64,
                           .num_heads = 4,
                           .num_layers = 2,
                           .fusion = fusion});
}

std::vector<std::string> fusion_model_names() {
  std::vector<std::string> names = model_names(ModelFamily::behavior);
  names.emplace_back("emotion");
  return names;
}

// Every input that a net of either family may read.
NamedTensors all_inputs(std::int64_t rows = kRows) {
  NamedTensors inputs;
  inputs.insert("image", torch::randn({rows, 3, 32, 32}));
  inputs.insert("mel", torch::randn({rows, 24, 30}));
  inputs.insert("series", torch::randn({rows, 40, 6}));
  inputs.insert("stft", torch::randn({rows, 6, 33, 3}));
  return inputs;
}

template <class Exception, class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const Exception& error) {
    return error.what();
  }
  return "(nothing was thrown)";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Dropout stays on, the statistics of batch norm do not depend on the batch.
void train_without_batch_statistics(torch::nn::Module& net) {
  net.train();
  for (const auto& module : net.modules()) {
    if (module->as<nn::BatchNorm1d>() != nullptr || module->as<nn::BatchNorm2d>() != nullptr) module->eval();
  }
}

models::EmotionOptions tiny_emotion() { return {.num_emotions = 5, .d_model = 16, .n_heads = 4, .width = 0.25}; }

}  // namespace

TEST_CASE("Nets for sensors and emotion pick their inputs from a batch by name", "[models]") {
  const std::string name = GENERATE(from_range(fusion_model_names()));
  INFO(name);
  const auto model = small(name);
  CHECK(model->forward(all_inputs()).sizes() == std::vector<std::int64_t>{kRows, 5});
  const std::string missing = message_of<DataError>([&] { model->forward(NamedTensors()); });
  CHECK(contains(missing, "no input called"));
}

TEST_CASE("All randomness of the nets is the library's and depends on the sample, not on its batch", "[models]") {
  const std::string name = GENERATE(from_range(fusion_model_names()));
  const std::string fusion = GENERATE(as<std::string>{}, "attention", "transformer");
  if (name != "emotion" && fusion != "attention") return;
  INFO(name << ' ' << fusion);
  torch::manual_seed(1);
  const auto model = small(name, true, fusion);
  CHECK(nn::stock_dropout_layers(model->module()).empty());
  nn::assign_dropout_layers(model->module());
  train_without_batch_statistics(model->module());
  const Batch batch{.inputs = all_inputs(), .target = {}, .weights = {}, .ids = {}};
  const auto run = [&](std::int64_t first, std::int64_t rows, std::uint64_t seed) {
    const nn::RandomContext context({.seed = seed, .step = 3, .rows = rows, .first_sample = first});
    return model->forward(batch.narrow(first, rows).inputs).detach();
  };
  const torch::Tensor whole = run(0, kRows, 7);
  CHECK(torch::equal(whole, run(0, kRows, 7)));
  CHECK_FALSE(torch::allclose(whole, run(0, kRows, 8)));
  const torch::Tensor parts = torch::cat({run(0, 1, 7), run(1, 3, 7)});
  CHECK(torch::allclose(whole, parts, 1e-4, 1e-5));
}

TEST_CASE("Without dropout the nets repeat their logits in training mode", "[models]") {
  const std::string name = GENERATE(from_range(fusion_model_names()));
  INFO(name);
  const NamedTensors inputs = all_inputs();
  const auto quiet = small(name, false), noisy = small(name);
  CHECK(torch::equal(quiet->forward(inputs), quiet->forward(inputs)));
  CHECK_FALSE(torch::equal(noisy->forward(inputs), noisy->forward(inputs)));
}

TEST_CASE("A clone of these nets has the same values and its own storage", "[models]") {
  const std::string name = GENERATE(from_range(fusion_model_names()));
  INFO(name);
  const auto model = small(name);
  model->module().eval();
  const auto copy = model->module().clone();
  const auto theirs = copy->named_parameters(), ours = model->module().named_parameters();
  REQUIRE(theirs.keys() == ours.keys());
  for (const auto& item : ours) {
    CHECK(torch::equal(item.value(), theirs[item.key()]));
    CHECK_FALSE(item.value().is_alias_of(theirs[item.key()]));
  }
}

TEST_CASE("The emotion net's parameters begin with the names of its parts, and its backbone has torchvision's",
          "[models]") {
  const models::EmotionRecognizer net(tiny_emotion());
  const auto parameters = net->named_parameters();
  for (const char* name :
       {"visual_encoder.backbone.conv1.weight", "visual_encoder.backbone.layer1.0.bn2.bias",
        "visual_encoder.backbone.layer2.0.downsample.0.weight", "visual_encoder.backbone.layer4.1.conv2.weight",
        "visual_encoder.projection.0.weight", "audio_encoder.conv.8.weight", "audio_encoder.gru.weight_hh_l1_reverse",
        "visual_to_audio.attention.in_proj_weight", "classifier.6.bias"}) {
    INFO(name);
    CHECK(parameters.contains(name));
  }
  CHECK_FALSE(parameters.contains("visual_encoder.backbone.fc.weight"));
  CHECK_FALSE(parameters.contains("visual_encoder.backbone.layer1.0.downsample.0.weight"));
}

TEST_CASE("ResNet-18 has torchvision's number of parameters", "[models]") {
  CHECK(count_parameters(*models::ResNet18()) == 11'689'512);
  CHECK(count_parameters(*models::ResNet18(models::ResNet18Options{.num_classes = 0})) == 11'176'512);
}

TEST_CASE("The emotion net takes single images, clips of any length and spectrograms of any length", "[models]") {
  const auto fusion = GENERATE(models::Fusion::attention, models::Fusion::concat, models::Fusion::transformer);
  torch::manual_seed(2);
  models::EmotionOptions options = tiny_emotion();
  options.fusion = fusion;
  models::EmotionRecognizer net(options);
  net->eval();
  const torch::Tensor image = torch::randn({2, 3, 40, 32}), mel = torch::randn({2, 64, 50});
  const torch::Tensor logits = net(image, mel);
  CHECK(torch::equal(logits, net(image.unsqueeze(1), mel)));
  // A still clip looks like its only image, unless the frames' number counts (they are tokens of one sequence).
  const torch::Tensor still = net(image.unsqueeze(1).expand({2, 5, 3, 40, 32}), mel);
  CHECK(torch::allclose(still, logits, 1e-4, 1e-5) == (fusion != models::Fusion::transformer));
  CHECK(net(torch::randn({2, 3, 3, 48, 48}), torch::randn({2, 40, 17})).sizes() == std::vector<std::int64_t>{2, 5});
}

TEST_CASE("With one modality the other is neither built nor read", "[models]") {
  models::EmotionOptions options = tiny_emotion();
  options.modality = models::Modality::visual;
  models::EmotionRecognizer visual(options);
  options.modality = models::Modality::audio;
  models::EmotionRecognizer audio(options);
  const torch::Tensor image = torch::randn({2, 3, 32, 32}), mel = torch::randn({2, 64, 20});
  CHECK(visual(image, torch::Tensor()).sizes() == std::vector<std::int64_t>{2, 5});
  CHECK(audio(torch::Tensor(), mel).sizes() == std::vector<std::int64_t>{2, 5});
  for (const std::string& name : visual->named_parameters().keys()) CHECK_FALSE(contains(name, "audio"));
  for (const std::string& name : audio->named_parameters().keys()) CHECK_FALSE(contains(name, "visual"));
  NamedTensors inputs;
  inputs.insert("mel", mel);
  CHECK(models::as_model(audio)->forward(inputs).defined());
  CHECK(contains(message_of<DataError>([&] { models::as_model(visual)->forward(inputs); }), "'image'"));
}

TEST_CASE("Fusions and modalities go by name", "[models]") {
  CHECK(models::parse_fusion("cross_attention") == models::Fusion::attention);
  CHECK(models::parse_fusion("concat") == models::Fusion::concat);
  CHECK(models::parse_modality("audio") == models::Modality::audio);
  const std::string text = message_of<ConfigError>([] { models::parse_fusion("late"); });
  for (const char* part : {"fusion", "attention, cross_attention, concat, transformer", "'late'"}) {
    CHECK(contains(text, part));
  }
  CHECK(contains(message_of<ConfigError>([] { models::parse_modality("text"); }), "both, visual, audio"));
}

TEST_CASE("Options and inputs that do not fit are errors that name the value", "[models]") {
  const auto behavior = [](const models::BehaviorOptions& options) {
    return message_of<ConfigError>([&] { models::BehaviorFusion net(options); });
  };
  CHECK(contains(behavior({.num_classes = 0}), "num_classes must be positive, got 0"));
  CHECK(contains(behavior({.d_model = 30, .num_heads = 4}), "num_heads must divide d_model, got 4 and 30"));
  CHECK(contains(behavior({.d_model = 12, .num_heads = 4}), "got 8 and 12"));  // attention of the two tokens
  CHECK(contains(behavior({.num_layers = -1}), "num_layers must be positive, got -1"));
  CHECK(contains(behavior({.cnn_width = 0}), "width must be in (0, 16], got 0"));
  CHECK(contains(behavior({.dropout = 1.5}), "dropout must be between 0 and 1, got 1.5"));
  CHECK(contains(message_of<ConfigError>([] { models::BehaviorDual net(models::BehaviorOptions{.channels = 1}); }),
                 "channels must be at least 2"));
  const auto emotion = [](const models::EmotionOptions& options) {
    return message_of<ConfigError>([&] { models::EmotionRecognizer net(options); });
  };
  CHECK(contains(emotion({.num_emotions = 0}), "num_emotions must be positive, got 0"));
  CHECK(contains(emotion({.d_model = 15, .n_heads = 5}), "d_model must be even"));
  CHECK(contains(emotion({.dropout = std::nan("")}), "dropout must be between 0 and 1, got nan"));

  models::EmotionRecognizer net(tiny_emotion());
  const torch::Tensor image = torch::randn({2, 3, 32, 32});
  CHECK(contains(message_of<ConfigError>([&] { net(image, torch::randn({2, 64, 3})); }), "got [2,64,3]"));
  CHECK(contains(message_of<ConfigError>([&] {
                   net(image.narrow(1, 0, 2), torch::randn({2, 64, 9}));
                 }),
                 "[2,2,32,32]"));
  const auto transformer = small("transformer");
  NamedTensors series;
  series.insert("series", torch::randn({2, 40, 5}));
  CHECK(contains(message_of<ConfigError>([&] { transformer->forward(series); }), "[B,T,6], got [2,40,5]"));
}

TEST_CASE("Nets for sensors have finite gradients in bfloat16 on a CPU", "[models]") {
  for (const std::string& name : model_names(ModelFamily::behavior)) {
    INFO(name);
    torch::manual_seed(3);
    const std::shared_ptr<Model> net = small(name, /*dropout=*/false);
    NamedTensors inputs = all_inputs();
    inputs["stft"] = torch::randn({kRows, 6, 129, 5});  // the last maps have one column
    const auto gradients = [&](bool half) {
      net->module().zero_grad();
      const amp::Autocast autocast(c10::kCPU, c10::kBFloat16, half);
      net->forward(inputs).to(torch::kFloat).square().sum().backward();
      double sum = 0;
      for (const torch::Tensor& parameter : net->module().parameters()) {
        if (parameter.grad().defined()) sum += parameter.grad().square().sum().item<double>();
      }
      return std::sqrt(sum);
    };
    const double expected = gradients(false);
    CHECK(gradients(true) == Approx(expected).epsilon(0.2));
  }
}

TEST_CASE("Series longer than any before get positions of their own", "[models]") {
  torch::manual_seed(4);
  models::BehaviorTransformer grown(models::BehaviorOptions{.d_model = 16, .num_heads = 4, .num_layers = 1});
  grown->eval();
  const torch::Tensor longer = torch::randn({2, 70, 6});
  grown(longer.narrow(1, 0, 20));
  const torch::Tensor after = grown(longer);
  const auto fresh = std::dynamic_pointer_cast<models::BehaviorTransformerImpl>(grown->clone());
  CHECK(torch::equal(after, fresh->forward(longer)));
  // Their order counts.
  CHECK_FALSE(torch::allclose(after, grown(longer.flip(1)), 1e-4, 1e-5));
}

TEST_CASE("Pretrained weights find their place under a prefix or without a wrapper's one", "[models]") {
  torch::manual_seed(6);
  models::ResNet18 source(models::ResNet18Options{.num_classes = 9, .width = 0.25});
  const StateDict weights = state_dict(*source);
  models::EmotionRecognizer net(tiny_emotion());
  const LoadReport report = load_pretrained(*net, weights, {"visual_encoder.backbone."});
  CHECK(report.unexpected == std::vector<std::string>{"fc.weight", "fc.bias"});
  CHECK(report.loaded.size() == weights.size() - 2);
  CHECK(torch::equal(net->visual_encoder->backbone->layer4->named_parameters()["1.conv2.weight"],
                     weights["layer4.1.conv2.weight"]));

  StateDict wrapped;
  for (const auto& item : state_dict(*net)) wrapped.insert("module." + item.key(), item.value().clone().add_(1));
  CHECK(load_pretrained(*net, wrapped, {"visual_encoder.backbone."}).complete());
  CHECK(torch::equal(net->classifier->named_parameters()["6.bias"], wrapped["module.classifier.6.bias"]));

  models::ResNet18 other(models::ResNet18Options{.num_classes = 4, .width = 0.25});
  const LoadReport partial = load_pretrained(*other, weights);
  REQUIRE(partial.misshaped.size() == 2);
  CHECK(contains(partial.misshaped[0], "fc.weight: module [4,128], file [9,128]"));

  StateDict foreign;
  foreign.insert("encoder.weight", torch::ones({2}));
  CHECK(contains(message_of<DataError>([&] { load_pretrained(*other, foreign); }), "'encoder.weight'"));
}

TEST_CASE("Frozen parameters are those whose names begin with the prefix, whole parts at a time", "[models]") {
  models::EmotionRecognizer net(tiny_emotion());
  const std::int64_t all = count_parameters(*net);
  const std::int64_t frozen = freeze(*net, {"visual_encoder.backbone.layer1", "audio_encoder."});
  CHECK(frozen > 0);
  CHECK(count_parameters(*net) == all - frozen);
  for (const auto& item : net->named_parameters()) {
    const bool expected =
        item.key().starts_with("visual_encoder.backbone.layer1.") || item.key().starts_with("audio_encoder.");
    INFO(item.key());
    CHECK(item.value().requires_grad() == !expected);
  }
  CHECK(freeze(*net, {"audio_encoder"}) == 0);  // already
  const std::string text = message_of<ConfigError>([&] { freeze(*net, {"visual_encoder.back"}); });
  CHECK(contains(text, "'visual_encoder.back'"));
  CHECK(contains(text, "visual_encoder.backbone, visual_encoder.projection"));
  CHECK(contains(message_of<ConfigError>([&] { freeze(*net, {"encoder"}); }), "classifier"));
}
