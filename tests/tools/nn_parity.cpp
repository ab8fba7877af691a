// C++ side of tests/python/nn_parity.py: layers with weights that Python wrote, losses, and mixing with given numbers.

#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>

#include "mmtrain/data/mix.h"
#include "mmtrain/io/tensor_file.h"
#include "mmtrain/nn/attention.h"
#include "mmtrain/nn/gru.h"
#include "mmtrain/nn/losses.h"
#include "mmtrain/nn/transformer.h"
#include "parity_case.h"

namespace {

using namespace mmtrain;

std::int64_t integer(const parity::Case& test, const std::string& name) {
  return static_cast<std::int64_t>(test.number(name));
}

bool flag(const parity::Case& test, const std::string& name) { return test.text(name) == "True"; }

// Weights of Python in a module of the case's precision.
template <class Holder>
Holder load(const parity::Case& test, Holder holder) {
  holder->to(test.text("dtype") == "float64" ? torch::kDouble : torch::kFloat);
  load_state_dict(*holder, load_safetensors(test.path("weights.safetensors")));
  return holder;
}

torch::Tensor leaf(const parity::Case& test, const std::string& name) {
  return test.input(name).clone().requires_grad_();
}

torch::Tensor optional_input(const parity::Case& test, const std::string& name) {
  return flag(test, "has_" + name) ? test.input(name) : torch::Tensor();
}

nn::AttentionMasks masks(const parity::Case& test) {
  return {.key_padding = optional_input(test, "key_padding"), .attention = optional_input(test, "attention")};
}

using Result = std::map<std::string, torch::Tensor>;

// Runs the backward pass from the case's gradient of the output and records what arrived.
void record(Result& result, const parity::Case& test, const torch::nn::Module& module, const torch::Tensor& output,
            const std::map<std::string, torch::Tensor>& leaves) {
  output.backward(test.input("out_grad"));
  result["out"] = output.detach();
  for (const auto& [name, tensor] : leaves) result["grad." + name] = tensor.grad();
  for (const auto& parameter : module.named_parameters()) result["grad." + parameter.key()] = parameter.value().grad();
}

void attention(const parity::Case& test, Result& result) {
  auto layer = load(test, nn::MultiheadAttention(nn::MultiheadAttentionOptions{.embed_dim = integer(test, "embed_dim"),
                                                                               .num_heads = integer(test, "num_heads"),
                                                                               .bias = flag(test, "bias"),
                                                                               .kdim = integer(test, "kdim"),
                                                                               .vdim = integer(test, "vdim")}));
  const std::string inputs = test.text("inputs");
  std::map<std::string, torch::Tensor> leaves{{"query", leaf(test, "query")}};
  if (inputs != "query") leaves["key"] = leaf(test, "key");
  if (inputs == "query key value") leaves["value"] = leaf(test, "value");
  const torch::Tensor query = leaves["query"];
  const torch::Tensor key = leaves.count("key") != 0 ? leaves["key"] : query;
  const torch::Tensor value = leaves.count("value") != 0 ? leaves["value"] : key;
  {
    torch::NoGradGuard no_grad;
    const auto [out, weights] = layer->forward_with_weights(query, key, value, masks(test));
    result["weights"] = weights;
    result["out_with_weights"] = out;
  }
  record(result, test, *layer, layer->forward(query, key, value, masks(test)), leaves);
}

void encoder(const parity::Case& test, Result& result) {
  const nn::TransformerEncoderLayerOptions layer{
      .d_model = integer(test, "d_model"),
      .nhead = integer(test, "nhead"),
      .dim_feedforward = integer(test, "dim_feedforward"),
      .dropout = 0,
      .activation = test.text("activation") == "gelu" ? nn::Activation::gelu : nn::Activation::relu,
      .norm_first = flag(test, "norm_first")};
  auto net = load(test, nn::TransformerEncoder(nn::TransformerEncoderOptions{.layer = layer,
                                                                             .num_layers = 2,
                                                                             .final_norm = flag(test, "norm_first"),
                                                                             .checkpoint = flag(test, "checkpoint")}));
  const torch::Tensor input = leaf(test, "input");
  record(result, test, *net, net->forward(input, masks(test)), {{"input", input}});
}

void gru(const parity::Case& test, Result& result) {
  auto net = load(test, nn::GRU(torch::nn::GRUOptions(integer(test, "input_size"), integer(test, "hidden_size"))
                                    .num_layers(integer(test, "num_layers"))
                                    .bias(flag(test, "bias"))
                                    .batch_first(flag(test, "batch_first"))
                                    .bidirectional(flag(test, "bidirectional"))));
  const torch::Tensor input = leaf(test, "input"), initial = leaf(test, "initial");
  const auto [output, final_state] = flag(test, "has_initial") ? net->forward(input, initial) : net->forward(input);
  result["final"] = final_state.detach();
  std::map<std::string, torch::Tensor> leaves{{"input", input}};
  if (flag(test, "has_initial")) leaves["initial"] = initial;
  record(result, test, *net, output, leaves);
}

void loss(const parity::Case& test, Result& result) {
  const torch::Tensor logits = leaf(test, "logits"), rows = optional_input(test, "row_weights");
  const torch::Tensor class_weights = optional_input(test, "class_weights");
  LossValue value;
  if (test.text("loss") == "focal") {
    value = nn::focal_loss(logits, test.input("target"),
                           {.gamma = test.number("gamma"),
                            .class_weights = class_weights,
                            .ignore_index = integer(test, "ignore_index"),
                            .cross_entropy = test.number("cross_entropy"),
                            .label_smoothing = test.number("label_smoothing")},
                           rows);
  } else {
    value = nn::cross_entropy(logits, test.input("target"),
                              {.class_weights = class_weights,
                               .ignore_index = integer(test, "ignore_index"),
                               .label_smoothing = test.number("label_smoothing")},
                              rows);
  }
  const torch::Tensor mean = value.sum / value.weight;
  mean.backward();
  result["mean"] = mean.detach().view(1);
  result["grad.logits"] = logits.grad();
}

void mixing(const parity::Case& test, Result& result) {
  const torch::Tensor images = test.input("images");
  const MixParameters parameters = test.text("mix") == "mixup"
                                       ? MixParameters{.kind = MixKind::mixup, .share = test.number("share"), .box = {}}
                                       : cutmix_parameters(test.number("share"), integer(test, "row"),
                                                           integer(test, "column"), images.size(2), images.size(3));
  result["images"] = mix_images(images, parameters);
  result["target"] = mix_targets(test.input("target"), parameters, integer(test, "num_classes"));
}

void run(const parity::Case& test) {
  static const std::map<std::string, void (*)(const parity::Case&, Result&)> kinds{
      {"attention", attention}, {"encoder", encoder}, {"gru", gru}, {"loss", loss}, {"mix", mixing}};
  Result result;
  kinds.at(test.text("kind"))(test, result);
  StateDict written;
  for (const auto& [name, tensor] : result) written.insert(name, tensor);
  save_safetensors(test.path("result.safetensors"), written);
}

}  // namespace

int main(int argc, char** argv) { return parity::run_cases(argc, argv, run); }
