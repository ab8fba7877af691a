// Does what tests/python/pth_parity.py asks: `copy IN.pth OUT.safetensors copy|map`, `check FILE...`,
// `resnet18 WEIGHTS.pth FOLDER`.

#include <torch/torch.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/io/pth_file.h"
#include "mmtrain/io/tensor_file.h"
#include "mmtrain/models/emotion.h"
#include "mmtrain/models/pretrained.h"
#include "mmtrain/models/resnet.h"

namespace {

using namespace mmtrain;
using Arguments = std::vector<std::string>;

void copy(const Arguments& arguments) {
  const TensorLoad how = arguments.at(2) == "map" ? TensorLoad::map : TensorLoad::copy;
  save_safetensors(arguments.at(1), load_pth(arguments.at(0), how));
}

// One line a file: "ok" or why it is refused. All values are read.
void check(const Arguments& arguments) {
  for (const std::string& path : arguments) {
    try {
      for (const auto& item : load_pth(path)) item.value().to(torch::kComplexDouble).sum();
      std::cout << "ok\n";
    } catch (const DataError& error) {
      std::cout << error.what() << '\n';
    }
  }
}

// torchvision's weights in our ResNet-18, and as the visual encoder's backbone.
void resnet18(const Arguments& arguments) {
  const std::filesystem::path folder = arguments.at(1);
  const StateDict weights = load_pth(arguments.at(0));
  const torch::Tensor image = load_safetensors(folder / "image.safetensors")["image"];
  models::ResNet18 net;
  load_state_dict(*net, weights);
  StateDict result;
  result.insert("train.logits", net(image).detach());
  net->eval();
  load_state_dict(*net, weights);  // training has moved the statistics
  result.insert("eval.features", net->features(image).detach());
  const torch::Tensor logits = net(image);
  logits.square().sum().backward();
  result.insert("eval.logits", logits.detach());
  result.insert("eval.conv1_grad", net->conv1->weight.grad());

  models::EmotionRecognizer emotion(models::EmotionOptions{.d_model = 32});
  const LoadReport report = load_pretrained(*emotion, weights, {"visual_encoder.backbone."});
  emotion->eval();
  result.insert("emotion.features", emotion->visual_encoder->backbone->features(image).detach());
  save_safetensors(folder / "result.safetensors", result);
  std::cout << report.loaded.size() << ' ' << report.misshaped.size();
  for (const std::string& name : report.unexpected) std::cout << ' ' << name;
  std::cout << '\n' << freeze(*emotion, {"visual_encoder.backbone"}) << '\n';
}

}  // namespace

int main(int count, char** values) {
  torch::set_num_threads(1);
  const Arguments arguments(values + std::min(count, 2), values + count);
  const std::string_view command = count > 1 ? values[1] : "";
  try {
    if (command == "copy") {
      copy(arguments);
    } else if (command == "check") {
      check(arguments);
    } else if (command == "resnet18") {
      resnet18(arguments);
    } else {
      std::cerr << "unknown command\n";
      return 2;
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
