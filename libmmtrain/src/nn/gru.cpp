#include "mmtrain/nn/gru.h"

#include <fmt/format.h>
#include <torch/nn/init.h>

#include <algorithm>
#include <cmath>

#include "mmtrain/core/error.h"
#include "mmtrain/nn/dropout.h"

namespace mmtrain::nn {
namespace {

std::string parameter_name(const char* kind, std::int64_t layer, std::int64_t direction) {
  return fmt::format("{}_l{}{}", kind, layer, direction == 1 ? "_reverse" : "");
}

// cuDNN copies weights on every call unless they lie in one piece of memory.
void flatten_for_cudnn(std::vector<torch::Tensor>& weights, std::int64_t per_direction, std::int64_t input_size,
                       const torch::nn::GRUOptions& options) {
  constexpr std::int64_t kGruMode = 3;
  const bool together = std::all_of(weights.begin(), weights.end(), [&](const torch::Tensor& weight) {
    return weight.storage().data() == weights[0].storage().data();
  });
  if (together || !weights[0].is_cuda() || !at::cudnn_is_acceptable(weights[0])) return;
  torch::NoGradGuard no_grad;
  at::_cudnn_rnn_flatten_weight(weights, per_direction, input_size, kGruMode, options.hidden_size(), /*proj_size=*/0,
                                /*num_layers=*/1, /*batch_first=*/true, options.bidirectional());
}

}  // namespace

GRUImpl::GRUImpl(const torch::nn::GRUOptions& options_) : options(options_) {
  if (options.input_size() < 1 || options.hidden_size() < 1 || options.num_layers() < 1) {
    throw ConfigError(fmt::format("[GRU] input_size, hidden_size and num_layers must be positive, got {}, {}, {}",
                                  options.input_size(), options.hidden_size(), options.num_layers()));
  }
  if (!(options.dropout() >= 0 && options.dropout() <= 1)) {
    throw ConfigError(fmt::format("[GRU] dropout must be between 0 and 1, got {}", options.dropout()));
  }
  GRUImpl::reset();
}

void GRUImpl::reset() {
  const std::int64_t hidden = options.hidden_size();
  const double bound = 1 / std::sqrt(static_cast<double>(hidden));
  const auto add = [&](const std::string& name, torch::IntArrayRef shape) {
    torch::nn::init::uniform_(register_parameter(name, torch::empty(shape)), -bound, bound);
  };
  for (std::int64_t layer = 0; layer < options.num_layers(); ++layer) {
    const std::int64_t features = layer == 0 ? options.input_size() : hidden * directions();
    for (std::int64_t direction = 0; direction < directions(); ++direction) {
      add(parameter_name("weight_ih", layer, direction), {3 * hidden, features});
      add(parameter_name("weight_hh", layer, direction), {3 * hidden, hidden});
      if (!options.bias()) continue;
      add(parameter_name("bias_ih", layer, direction), {3 * hidden});
      add(parameter_name("bias_hh", layer, direction), {3 * hidden});
    }
  }
}

std::vector<torch::Tensor> GRUImpl::layer_weights(std::int64_t layer) const {
  std::vector<torch::Tensor> weights;
  for (std::int64_t direction = 0; direction < directions(); ++direction) {
    for (const char* kind : {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}) {
      const torch::Tensor* weight = parameters_.find(parameter_name(kind, layer, direction));
      if (weight != nullptr) weights.push_back(*weight);
    }
  }
  return weights;
}

std::tuple<torch::Tensor, torch::Tensor> GRUImpl::forward(const torch::Tensor& input, const torch::Tensor& initial) {
  if (input.dim() != 3 || input.size(2) != options.input_size()) {
    throw ConfigError(fmt::format("[GRU] the input must be [{},{}], got {} dimensions and {} features",
                                  options.batch_first() ? "B,T" : "T,B", options.input_size(), input.dim(),
                                  input.dim() == 0 ? 0 : input.size(-1)));
  }
  // Batch first throughout: dropout finds the samples in the first dimension.
  torch::Tensor sequence = options.batch_first() ? input : input.transpose(0, 1);
  const std::int64_t count = directions(), hidden = options.hidden_size();
  const torch::Tensor start = initial.defined() ? initial
                                                : torch::zeros({options.num_layers() * count, sequence.size(0), hidden},
                                                               sequence.options().requires_grad(false));
  std::vector<torch::Tensor> finals;
  for (std::int64_t layer = 0; layer < options.num_layers(); ++layer) {
    std::vector<torch::Tensor> weights = layer_weights(layer);
    flatten_for_cudnn(weights, static_cast<std::int64_t>(weights.size()) / count, sequence.size(2), options);
    auto [output, final_state] =
        torch::gru(sequence, start.narrow(0, layer * count, count).contiguous(), weights, options.bias(),
                   /*num_layers=*/1, /*dropout=*/0.0, is_training(), options.bidirectional(), /*batch_first=*/true);
    const bool last = layer + 1 == options.num_layers();
    sequence = is_training() && !last ? dropout(output, options.dropout(), random_layer()) : output;
    finals.push_back(final_state);
  }
  return {options.batch_first() ? sequence : sequence.transpose(0, 1), torch::cat(finals)};
}

}  // namespace mmtrain::nn
