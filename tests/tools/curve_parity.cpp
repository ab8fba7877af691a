// C++ side of tests/python/curve_parity.py: the losses of the first steps of training on batches that Python wrote.

#include <torch/torch.h>

#include <memory>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/io/tensor_file.h"
#include "mmtrain/optim/adam.h"
#include "mmtrain/optim/sgd.h"
#include "mmtrain/train/train_step.h"
#include "parity_case.h"

namespace {

using namespace mmtrain;

std::shared_ptr<torch::optim::Optimizer> make_optimizer(const parity::Case& test, torch::nn::Module& net) {
  const double lr = test.number("lr"), weight_decay = test.number("weight_decay");
  if (test.text("optimizer") == "adam") {
    return std::make_shared<optim::Adam>(net.parameters(), optim::AdamOptions(lr).weight_decay(weight_decay));
  }
  if (test.text("optimizer") == "sgd") {
    return std::make_shared<optim::SGD>(
        net.parameters(), optim::SGDOptions(lr).momentum(test.number("momentum")).weight_decay(weight_decay));
  }
  throw ConfigError("[curve_parity] unknown optimizer " + test.text("optimizer"));
}

void run(const parity::Case& test) {
  const std::shared_ptr<Model> model = test.model(/*dropout=*/false);
  TrainStep step(model, make_optimizer(test, model->module()), cross_entropy_loss());
  const torch::Tensor images = test.input("image"), targets = test.input("target");
  std::vector<torch::Tensor> losses;
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    Batch batch;
    batch.inputs.insert("image", images[i]);
    batch.target = targets[i];
    const StepResult result = step.run(batch);
    losses.push_back(result.loss_sum / result.weight);
  }
  StateDict output;
  output.insert("losses", torch::stack(losses));
  save_safetensors(test.path("result.safetensors"), output);
}

}  // namespace

int main(int argc, char** argv) { return parity::run_cases(argc, argv, run); }
