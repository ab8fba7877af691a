#include "parity_case.h"

#include <torch/utils.h>

#include <cstdio>
#include <exception>
#include <initializer_list>
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

NamedTensors Case::inputs() const {
  NamedTensors result;
  for (const auto& item : inputs_) {
    if (item.key() != "target") result.insert(item.key(), item.value());
  }
  return result;
}

std::shared_ptr<Model> Case::fresh_model(bool dropout) const {
  ModelOptions options{.num_classes = static_cast<std::int64_t>(number("num_classes")), .dropout = dropout};
  if (const torch::Tensor* image = inputs_.find("image")) options.image_size = image->size(-1);
  if (has("width")) options.width = number("width");
  for (auto [name, value] :
       std::initializer_list<std::pair<const char*, std::int64_t*>>{{"channels", &options.channels},
                                                                    {"d_model", &options.d_model},
                                                                    {"num_heads", &options.num_heads},
                                                                    {"num_layers", &options.num_layers},
                                                                    {"d_ff", &options.d_ff}}) {
    if (has(name)) *value = static_cast<std::int64_t>(number(name));
  }
  if (has("fusion")) options.fusion = text("fusion");
  if (has("modality")) options.modality = text("modality");
  std::shared_ptr<Model> model = make_model(text("model"), options);
  const torch::ScalarType type = inputs()[0].value().scalar_type();
  // As Python's module.to(dtype) does; LibTorch's would turn the integer buffers of batch norm into floats too.
  const auto convert = [&](torch::Tensor& tensor) {
    if (tensor.is_floating_point()) tensor.set_data(tensor.to(type));
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
