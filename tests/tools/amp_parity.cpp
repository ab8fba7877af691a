// C++ side of tests/python/amp_parity.py: a GradScaler led through gradients that Python prescribes.

#include "mmtrain/amp/grad_scaler.h"

#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "mmtrain/core/config.h"
#include "mmtrain/core/error.h"
#include "mmtrain/io/tensor_file.h"
#include "mmtrain/optim/adam.h"
#include "mmtrain/optim/clip.h"
#include "mmtrain/optim/rmsprop.h"
#include "mmtrain/optim/sgd.h"
#include "parity_case.h"

namespace {

using namespace mmtrain;
using torch::Tensor;

std::unique_ptr<torch::optim::Optimizer> make_optimizer(const std::string& name, const Tensor& weight) {
  const std::vector<Tensor> params{weight};
  if (name == "SGD") return std::make_unique<optim::SGD>(params, optim::SGDOptions(0.1).momentum(0.9));
  if (name == "AdamW") return std::make_unique<optim::AdamW>(params, optim::AdamWOptions(0.1));
  if (name == "RMSprop") return std::make_unique<optim::RMSprop>(params, optim::RMSpropOptions(0.1).momentum(0.5));
  // LibTorch's own, which knows nothing of scales.
  if (name == "foreign AdamW") return std::make_unique<torch::optim::AdamW>(params, torch::optim::AdamWOptions(0.1));
  throw ConfigError("[amp_parity] unknown optimizer " + name);
}

Tensor text_tensor(const std::string& text) {
  return torch::tensor(std::vector<std::uint8_t>(text.begin(), text.end()), torch::kUInt8);
}

void run(const parity::Case& test) {
  StateDict names;
  names.insert("w", test.input("weight").clone().set_requires_grad(true));
  Tensor& weight = names["w"];
  const auto optimizer = make_optimizer(test.text("optimizer"), weight);
  const amp::GradScalerOptions options{.init_scale = test.number("init_scale"),
                                       .growth_factor = test.number("growth_factor"),
                                       .backoff_factor = test.number("backoff_factor"),
                                       .growth_interval = static_cast<std::int64_t>(test.number("growth_interval"))};
  amp::GradScaler scaler(options);
  if (const std::string& state = test.text("scaler_state"); !state.empty()) {
    scaler.load_state_dict(Config::parse(state));
    dynamic_cast<optim::Optimizer&>(*optimizer)
        .load_state_dict(load_safetensors(test.path("state.safetensors")), names);
  }
  const Tensor gradients = test.input("gradients");
  const std::int64_t middle = gradients.size(0) / 2;
  std::vector<double> scales, skipped;
  std::vector<Tensor> weights;
  StateDict output;
  for (std::int64_t step = 0; step < gradients.size(0); ++step) {
    if (step == middle) {
      const std::string text = scaler.state_dict().dump();
      output.insert("middle_scaler", text_tensor(text));
      output.insert("middle_weight", weight.detach().clone());
      if (const auto* own = dynamic_cast<optim::Optimizer*>(optimizer.get())) {
        for (const auto& item : own->state_dict(names)) {
          output.insert("middle_state." + item.key(), item.value().clone());
        }
      }
      scaler = amp::GradScaler(options);
      scaler.load_state_dict(Config::parse(text));
    }
    weight.mutable_grad() = Tensor();
    scaler.scale((weight * gradients[step]).sum()).backward();
    if (test.number("clip") != 0) {
      scaler.unscale_(*optimizer);
      optim::clip_grad_norm({weight}, test.number("clip"));
    }
    scaler.step(*optimizer);
    if (step == static_cast<std::int64_t>(test.number("set_scale_at"))) {
      scaler.update(3.0);
    } else {
      scaler.update();
    }
    scales.push_back(scaler.get_scale());
    skipped.push_back(scaler.found_inf(*optimizer).item<float>());
    weights.push_back(weight.detach().clone());
  }
  output.insert("scales", torch::tensor(scales, torch::kDouble));
  output.insert("skipped", torch::tensor(skipped, torch::kDouble));
  output.insert("weights", torch::stack(weights));
  output.insert("scaler", text_tensor(scaler.state_dict().dump()));
  save_safetensors(test.path("result.safetensors"), output);
}

}  // namespace

int main(int argc, char** argv) { return parity::run_cases(argc, argv, run); }
