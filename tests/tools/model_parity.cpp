// C++ side of tests/python/model_parity.py: logits, gradients and buffers of nets whose weights Python wrote.

#include <torch/torch.h>

#include <memory>
#include <string>

#include "mmtrain/io/tensor_file.h"
#include "mmtrain/nn/losses.h"
#include "mmtrain/train/train_step.h"
#include "parity_case.h"

namespace {

using namespace mmtrain;

// One forward and backward pass; what came of it goes into `result` under names that start with `prefix`.
void record_pass(Model& model, const parity::Case& test, const std::string& prefix, StateDict& result) {
  NamedTensors inputs = test.inputs();
  if (test.text("channels_last") == "1") {
    to_channels_last(model.module());
    for (auto& input : inputs) {
      if (input.value().dim() == 4) input.value() = input.value().contiguous(torch::MemoryFormat::ChannelsLast);
    }
  }
  const torch::Tensor logits = model.forward(inputs);
  const LossValue loss = nn::cross_entropy(logits, test.input("target"));
  (loss.sum / loss.weight).backward();
  result.insert(prefix + "logits", logits.detach());
  for (const auto& parameter : model.module().named_parameters()) {
    result.insert(prefix + "grad." + parameter.key(), parameter.value().grad());
  }
  for (const auto& buffer : model.module().named_buffers()) {
    result.insert(prefix + "buffer." + buffer.key(), buffer.value());
  }
}

void run(const parity::Case& test) {
  StateDict result;
  record_pass(*test.model(/*dropout=*/false), test, "train.", result);

  // Built with dropout: evaluation mode alone must turn it off.
  const std::shared_ptr<Model> evaluated = test.model(/*dropout=*/true);
  evaluated->module().eval();
  record_pass(*evaluated, test, "eval.", result);

  const std::shared_ptr<Model> fresh = test.fresh_model(/*dropout=*/true);
  save_safetensors(test.path("fresh.safetensors"), state_dict(fresh->module()));
  fresh->module().eval();
  result.insert("fresh.logits", fresh->forward(test.inputs()).detach());
  save_safetensors(test.path("result.safetensors"), result);
}

}  // namespace

int main(int argc, char** argv) { return parity::run_cases(argc, argv, run); }
