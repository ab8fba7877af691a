#include "catch.h"

#include <torch/nn/modules/dropout.h>
#include <torch/nn/utils/convert_parameters.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/models/registry.h"
#include "mmtrain/models/tiny_imagenet.h"
#include "mmtrain/train/train_step.h"

using namespace mmtrain;

namespace {

const std::vector<std::string> kReferenceNets{"baseline", "residual", "deeper_wider", "se_attention", "best"};

NamedTensors images(const torch::Tensor& image) {
  NamedTensors inputs;
  inputs.insert("image", image);
  return inputs;
}

std::vector<double> dropout_probabilities(torch::nn::Module& net) {
  std::vector<double> found;
  for (const auto& module : net.modules()) {
    if (const auto* dropout = module->as<models::Dropout>()) found.push_back(dropout->options.p());
  }
  return found;
}

bool has_parameter(Model& model, const std::string& name) { return model.module().named_parameters().contains(name); }

// Text of the ConfigError that `call` throws.
template <class Call>
std::string config_error(Call call) {
  try {
    call();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no ConfigError";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Largest difference relative to the largest value of the reference.
double relative_difference(const torch::Tensor& a, const torch::Tensor& reference) {
  return ((a - reference).abs().max() / reference.abs().max()).item<double>();
}

torch::Tensor flat_gradient(const torch::nn::Module& net) {
  std::vector<torch::Tensor> gradients;
  for (const torch::Tensor& parameter : net.parameters()) gradients.push_back(parameter.grad().flatten());
  return torch::cat(gradients);
}

}  // namespace

TEST_CASE("The five nets have exactly the parameters of the reference table at width 1 and 200 classes", "[models]") {
  struct Row {
    const char* name;
    std::int64_t parameters;
    double millions;
  };
  const Row row = GENERATE(Row{"baseline", 13'590'472, 13.59}, Row{"residual", 9'910'600, 9.91},
                           Row{"deeper_wider", 19'449'416, 19.45}, Row{"se_attention", 13'677'768, 13.68},
                           Row{"best", 20'137'928, 20.14});
  const auto model = make_model(row.name);
  CHECK(count_parameters(model->module()) == row.parameters);
  CHECK(std::round(static_cast<double>(row.parameters) / 1e4) / 100 == Approx(row.millions));
}

TEST_CASE("Channels scale to the nearest multiple of 16, at least 16", "[models]") {
  CHECK(models::scaled(512, 1.0) == 512);
  CHECK(models::scaled(64, 0.25) == 16);
  CHECK(models::scaled(128, 0.3) == 32);   // 38.4
  CHECK(models::scaled(128, 0.35) == 48);  // 44.8
  CHECK(models::scaled(64, 0.375) == 32);  // 24 lies halfway: up
  CHECK(models::scaled(64, 0.01) == 16);
  CHECK(models::scaled(256, 1.5) == 384);
}

TEST_CASE("Every net gives one row of logits an image, at any width and class count", "[models]") {
  const std::string name = GENERATE(from_range(model_names(ModelFamily::image)));
  const double width = GENERATE(0.05, 0.35);
  INFO(name << " at width " << width);
  const auto model = make_model(name, {.num_classes = 7, .width = width});
  const torch::Tensor logits = model->forward(images(torch::randn({3, 3, 64, 64})));
  CHECK(logits.sizes() == std::vector<std::int64_t>{3, 7});
  CHECK(logits.isfinite().all().item<bool>());
}

TEST_CASE("Parameters carry the names that the same attributes give in Python", "[models]") {
  const auto residual = make_model("residual", {.width = 0.25});
  for (const char* name :
       {"conv1.weight", "conv1.bias", "bn1.weight", "layer1.conv1.weight", "layer1.bn1.bias", "layer4.conv2.weight",
        "layer4.bn2.weight", "layer2.shortcut.0.weight", "layer2.shortcut.1.bias", "fc.weight", "fc.bias"}) {
    INFO(name);
    CHECK(has_parameter(*residual, name));
  }
  CHECK_FALSE(has_parameter(*residual, "layer1.conv1.bias"));
  const auto attention = make_model("se_attention", {.width = 0.25});
  CHECK(has_parameter(*attention, "features.3.fc.0.weight"));
  CHECK_FALSE(has_parameter(*attention, "features.3.fc.0.bias"));
}

TEST_CASE("Channels-last memory changes neither logits nor gradients", "[models]") {
  const std::string name = GENERATE(from_range(model_names(ModelFamily::image)));
  INFO(name);
  torch::manual_seed(3);
  const ModelOptions options{.num_classes = 5, .width = 0.1, .dropout = false};
  // In double: in float the two layouts round differently, which flips the ReLU of an activation next to 0 now and
  // then.
  const auto model = make_model(name, options);
  model->module().to(torch::kDouble);
  const torch::Tensor image = torch::randn({4, 3, 64, 64}, torch::kDouble), target = torch::tensor({0, 1, 2, 3});

  const auto run = [&](const torch::Tensor& input) {
    model->module().zero_grad();
    const torch::Tensor logits = model->forward(images(input));
    torch::nn::functional::cross_entropy(logits, target).backward();
    return std::pair(logits.detach(), flat_gradient(model->module()));
  };
  const auto [logits, gradient] = run(image);
  to_channels_last(model->module());
  const auto [logits_last, gradient_last] = run(image.contiguous(torch::MemoryFormat::ChannelsLast));
  CHECK(relative_difference(logits_last, logits) < 1e-9);
  CHECK(relative_difference(gradient_last, gradient) < 1e-9);
}

TEST_CASE("Nets with global pooling take any image size, the others only the one they were built for", "[models]") {
  const torch::Tensor small = torch::randn({2, 3, 32, 32});
  for (const char* name : {"residual", "deeper_wider", "best"}) {
    INFO(name);
    CHECK(make_model(name, {.num_classes = 4, .width = 0.05})->forward(images(small)).size(1) == 4);
  }
  for (const char* name : {"baseline", "se_attention", "linear"}) {
    INFO(name);
    const auto fixed = make_model(name, {.width = 0.05});
    CHECK(contains(config_error([&] { fixed->forward(images(small)); }), "[B,3,64,64], got [2,3,32,32]"));
    // 36 is no multiple of 8: the poolings round down.
    for (const std::int64_t size : {32, 36}) {
      const auto model = make_model(name, {.num_classes = 4, .width = 0.05, .image_size = size});
      CHECK(model->forward(images(torch::randn({2, 3, size, size}))).size(1) == 4);
    }
  }
}

TEST_CASE("Dropout sits at the places and strengths of the reference", "[models]") {
  using Probabilities = std::vector<double>;
  const auto of = [](const char* name) { return dropout_probabilities(make_model(name, {.width = 0.05})->module()); };
  CHECK(of("baseline") == Probabilities{0.3, 0.3, 0.3, 0.5, 0.5});
  CHECK(of("residual").empty());
  CHECK(of("deeper_wider") == Probabilities{0.2, 0.2, 0.2, 0.5, 0.5});
  CHECK(of("se_attention") == Probabilities{0.3, 0.3, 0.3, 0.5, 0.5});
  CHECK(of("best") == Probabilities{0.2, 0.5, 0.5});
}

TEST_CASE("Without dropout a net in training mode repeats its logits, with dropout it does not", "[models]") {
  const std::string name = GENERATE(as<std::string>{}, "baseline", "deeper_wider", "se_attention", "best");
  INFO(name);
  const NamedTensors input = images(torch::randn({4, 3, 64, 64}));
  const auto quiet = make_model(name, {.num_classes = 6, .width = 0.1, .dropout = false});
  CHECK(quiet->module().is_training());
  CHECK(torch::equal(quiet->forward(input), quiet->forward(input)));
  const auto noisy = make_model(name, {.num_classes = 6, .width = 0.1});
  CHECK_FALSE(torch::equal(noisy->forward(input), noisy->forward(input)));
}

TEST_CASE("A clone has the same values and its own storage", "[models]") {
  torch::manual_seed(5);
  models::Best net(ModelOptions{.num_classes = 3, .width = 0.1});
  models::SeAttention attention(ModelOptions{.num_classes = 3, .width = 0.1});
  const torch::Tensor image = torch::randn({2, 3, 64, 64});
  const auto check = [&image](auto& original) {
    original->eval();
    using Impl = std::decay_t<decltype(*original)>;
    const auto copy = std::dynamic_pointer_cast<Impl>(original->clone());
    REQUIRE(copy);
    copy->eval();
    CHECK(torch::equal(copy->forward(image), original->forward(image)));
    {
      torch::NoGradGuard no_grad;
      for (torch::Tensor& parameter : copy->parameters()) parameter.add_(1);
    }
    CHECK_FALSE(torch::equal(copy->forward(image), original->forward(image)));
  };
  check(net);
  check(attention);
}

TEST_CASE("The same seed gives the same initial weights", "[models]") {
  const auto weights = [](std::uint64_t seed) {
    torch::manual_seed(seed);
    return torch::nn::utils::parameters_to_vector(make_model("residual", {.width = 0.1})->module().parameters());
  };
  CHECK(torch::equal(weights(1), weights(1)));
  CHECK_FALSE(torch::equal(weights(1), weights(2)));
}

TEST_CASE("The name table lists the five nets in the reference's order, then the linear one and the other families",
          "[models]") {
  std::vector<std::string> expected = kReferenceNets;
  expected.emplace_back("linear");
  CHECK(model_names(ModelFamily::image) == expected);
  CHECK(model_names(ModelFamily::behavior) == std::vector<std::string>{"cnn", "transformer", "fusion", "dual"});
  CHECK(model_names(ModelFamily::emotion) == std::vector<std::string>{"emotion"});
  for (const ModelFamily family : {ModelFamily::behavior, ModelFamily::emotion}) {
    for (const std::string& name : model_names(family)) expected.push_back(name);
  }
  CHECK(model_names() == expected);
}

TEST_CASE("An unknown model name is an error that names the nearest one", "[models]") {
  const std::string text = config_error([] { make_model("residal"); });
  for (const char* part : {"[make_model]", "'residal'", "did you mean 'residual'", "deeper_wider"}) {
    INFO(text);
    CHECK(contains(text, part));
  }
  CHECK(contains(config_error([] { make_model("se-atention"); }), "did you mean 'se_attention'"));
}

TEST_CASE("Options out of range are errors that name the net and the value", "[models]") {
  const std::string name = GENERATE(from_range(model_names(ModelFamily::image)));
  INFO(name);
  const auto refusal = [&name](const ModelOptions& options) {
    return config_error([&] { make_model(name, options); });
  };
  CHECK(contains(refusal({.num_classes = 0}), "] num_classes must be positive, got 0"));
  CHECK(contains(refusal({.width = 0.0}), "] width must be in (0, 16], got 0"));
  CHECK(contains(refusal({.width = -0.5}), "got -0.5"));
  CHECK(contains(refusal({.width = 17}), "got 17"));
  CHECK(contains(refusal({.width = std::numeric_limits<double>::quiet_NaN()}), "got nan"));
  CHECK(contains(refusal({.image_size = 7}), "] image_size must be at least 8 pixels, got 7"));
}

TEST_CASE("The linear net is one layer on the pixels, and frozen or shared parameters are not counted twice",
          "[models]") {
  models::LinearClassifier net(ModelOptions{.num_classes = 10, .image_size = 16});
  CHECK(count_parameters(*net) == 3 * 16 * 16 * 10 + 10);
  net->fc->bias.set_requires_grad(false);
  CHECK(count_parameters(*net) == 3 * 16 * 16 * 10);
  struct Shared : torch::nn::Module {
    explicit Shared(const torch::nn::Linear& layer) {
      register_module("a", layer);
      register_module("b", layer);
    }
  };
  CHECK(count_parameters(Shared(torch::nn::Linear(4, 5))) == 25);
}
