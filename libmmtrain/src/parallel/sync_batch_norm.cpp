#include "mmtrain/parallel/sync_batch_norm.h"

#include <fmt/format.h>
#include <torch/nn/modules/batchnorm.h>

#include <string>
#include <vector>

#include "mmtrain/core/error.h"

namespace mmtrain::parallel {
namespace {

// The number in the name of LibTorch's own layer; 0 for any other.
int stock_dimensions(const torch::nn::Module& module) {
  if (dynamic_cast<const torch::nn::BatchNorm1dImpl*>(&module) != nullptr) return 1;
  if (dynamic_cast<const torch::nn::BatchNorm2dImpl*>(&module) != nullptr) return 2;
  if (dynamic_cast<const torch::nn::BatchNorm3dImpl*>(&module) != nullptr) return 3;
  return 0;
}

void refuse_stock(const std::string& name, const torch::nn::Module& module) {
  const int dimensions = stock_dimensions(module);
  if (dimensions == 0) return;
  throw ConfigError(
      fmt::format("[convert_sync_batchnorm] {} is a torch::nn::BatchNorm{}d, whose statistics cannot be joined: use "
                  "mmtrain::nn::BatchNorm{}d, which has the same options, names and numbers",
                  name.empty() ? "the module" : "layer '" + name + "'", dimensions, dimensions));
}

}  // namespace

torch::Tensor GroupStatistics::sum(const torch::Tensor& packed) {
  torch::Tensor joined = packed.clone();
  group_.all_reduce(joined);
  return joined;
}

std::size_t convert_sync_batchnorm(torch::nn::Module& module, std::shared_ptr<nn::JointStatistics> joint) {
  std::vector<nn::JointStatisticsLayer*> layers;
  const auto look_at = [&](const std::string& name, torch::nn::Module& part) {
    refuse_stock(name, part);
    if (auto* layer = dynamic_cast<nn::JointStatisticsLayer*>(&part)) layers.push_back(layer);
  };
  look_at("", module);
  // Not with the module itself among them: LibTorch cannot name one that no shared_ptr owns.
  for (const auto& part : module.named_modules("", /*include_self=*/false)) look_at(part.key(), *part.value());
  for (nn::JointStatisticsLayer* layer : layers) layer->set_joint_statistics(joint);
  return layers.size();
}

}  // namespace mmtrain::parallel
