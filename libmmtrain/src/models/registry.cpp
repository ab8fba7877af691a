#include "mmtrain/models/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <unordered_set>

#include "mmtrain/core/config.h"
#include "mmtrain/core/error.h"
#include "mmtrain/models/tiny_imagenet.h"

namespace mmtrain {
namespace {

template <class Net>
std::shared_ptr<Model> build(const ModelOptions& options) {
  return as_model(Net(options));
}

struct Entry {
  std::string_view name;
  std::shared_ptr<Model> (*build)(const ModelOptions& options);
};

// A table, not self-registration: objects of a static library that nobody names are dropped by the linker.
constexpr std::array kModels{
    Entry{"baseline", build<models::Baseline>},
    Entry{"residual", build<models::Residual>},
    Entry{"deeper_wider", build<models::DeeperWider>},
    Entry{"se_attention", build<models::SeAttention>},
    Entry{"best", build<models::Best>},
    Entry{"linear", build<models::LinearClassifier>},
};

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  names.reserve(kModels.size());
  for (const Entry& entry : kModels) names.emplace_back(entry.name);
  return names;
}

std::shared_ptr<Model> make_model(std::string_view name, const ModelOptions& options) {
  const auto* entry = std::ranges::find(kModels, name, &Entry::name);
  if (entry != kModels.end()) return entry->build(options);
  const std::vector<std::string> names = model_names();
  throw ConfigError(fmt::format("[make_model] unknown model '{}', did you mean '{}'? There are: {}", name,
                                nearest_name(name, names), fmt::join(names, ", ")));
}

std::int64_t count_parameters(const torch::nn::Module& module) {
  std::unordered_set<const void*> seen;
  std::int64_t count = 0;
  for (const torch::Tensor& parameter : module.parameters()) {
    if (parameter.requires_grad() && seen.insert(parameter.unsafeGetTensorImpl()).second) count += parameter.numel();
  }
  return count;
}

}  // namespace mmtrain
