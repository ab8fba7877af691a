#include "mmtrain/train/train_step.h"

#include <utility>

namespace mmtrain {

Loss cross_entropy_loss() {
  return [](const torch::Tensor& output, const Batch& batch) {
    return nn::cross_entropy(output, batch.target, batch.weights);
  };
}

void to_channels_last(torch::nn::Module& module) {
  torch::NoGradGuard no_grad;
  const auto convert = [](torch::Tensor& tensor) {
    if (tensor.dim() == 4) tensor.set_data(tensor.contiguous(torch::MemoryFormat::ChannelsLast));
  };
  for (torch::Tensor& parameter : module.parameters()) convert(parameter);
  for (torch::Tensor& buffer : module.buffers()) convert(buffer);
}

TrainStep::TrainStep(std::shared_ptr<Model> model, std::shared_ptr<torch::optim::Optimizer> optimizer, Loss loss,
                     TrainStepOptions options)
    : model_(std::move(model)), optimizer_(std::move(optimizer)), loss_(std::move(loss)), options_(options) {
  if (options_.channels_last) to_channels_last(model_->module());
}

torch::Tensor TrainStep::forward(const Batch& batch) {
  if (!options_.channels_last) return model_->forward(batch.inputs);
  NamedTensors inputs;
  inputs.reserve(batch.inputs.size());
  for (const auto& input : batch.inputs) {
    const torch::Tensor& tensor = input.value();
    inputs.insert(input.key(), tensor.dim() == 4 ? tensor.contiguous(torch::MemoryFormat::ChannelsLast) : tensor);
  }
  return model_->forward(inputs);
}

StepResult TrainStep::run(const Batch& batch) {
  const torch::Tensor output = forward(batch);
  const LossValue loss = loss_(output, batch);
  (loss.sum / loss.weight).backward();
  optimizer_->step();
  optimizer_->zero_grad(/*set_to_none=*/true);
  return {loss.sum.detach(), loss.weight.detach(), output.detach()};
}

StepResult TrainStep::evaluate(const Batch& batch) {
  torch::NoGradGuard no_grad;
  const torch::Tensor output = forward(batch);
  const LossValue loss = loss_(output, batch);
  return {loss.sum, loss.weight, output};
}

}  // namespace mmtrain
