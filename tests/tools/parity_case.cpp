#include "parity_case.h"

#include <torch/utils.h>

#include <cstdio>
#include <exception>
#include <utility>

#include "mmtrain/core/error.h"
#include "mmtrain/io/tensor_file.h"

namespace mmtrain::parity {

Case::Case(std::filesystem::path folder)
    : folder_(std::move(folder)),
      settings_(SafetensorsFile(path("inputs.safetensors")).metadata()),
      inputs_(load_safetensors(path("inputs.safetensors"))) {}

const torch::Tensor& Case::input(const std::string& name) const { return inputs_[name]; }

const std::string& Case::text(const std::string& name) const {
  const auto found = settings_.find(name);
  if (found == settings_.end()) throw DataError("[parity] " + folder_.string() + " has no setting " + name);
  return found->second;
}

std::shared_ptr<Model> Case::fresh_model(bool dropout) const {
  const torch::Tensor& image = input("image");
  std::shared_ptr<Model> model =
      make_model(text("model"), {.num_classes = static_cast<std::int64_t>(number("num_classes")),
                                 .width = number("width"),
                                 .image_size = image.size(-1),
                                 .dropout = dropout});
  // As Python's module.to(dtype) does; LibTorch's would turn the integer buffers of batch norm into floats too.
  const auto convert = [&](torch::Tensor& tensor) {
    if (tensor.is_floating_point()) tensor.set_data(tensor.to(image.scalar_type()));
  };
  torch::NoGradGuard no_grad;
  for (torch::Tensor& parameter : model->module().parameters()) convert(parameter);
  for (torch::Tensor& buffer : model->module().buffers()) convert(buffer);
  return model;
}

std::shared_ptr<Model> Case::model(bool dropout) const {
  std::shared_ptr<Model> model = fresh_model(dropout);
  load_state_dict(model->module(), load_safetensors(path("weights.safetensors")));
  return model;
}

int run_cases(int argc, char** argv, void (*work)(const Case&)) {
  torch::set_num_threads(1);
  for (int i = 1; i < argc; ++i) {
    try {
      work(Case(argv[i]));
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s: %s\n", argv[i], error.what());
      return 1;
    }
  }
  return 0;
}

}  // namespace mmtrain::parity
