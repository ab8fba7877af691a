#include "mmtrain/models/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <unordered_set>

#include "mmtrain/core/config.h"
#include "mmtrain/core/error.h"
#include "mmtrain/models/behavior.h"
#include "mmtrain/models/emotion.h"
#include "mmtrain/models/tiny_imagenet.h"

namespace mmtrain {
namespace {

template <class Net>
std::shared_ptr<Model> image_net(const ModelOptions& options) {
  return as_model(Net(options));
}

models::BehaviorOptions behavior_options(const ModelOptions& options) {
  models::BehaviorOptions result{.num_classes = options.num_classes,
                                 .channels = options.channels,
                                 .d_model = options.d_model,
                                 .num_heads = options.num_heads,
                                 .num_layers = options.num_layers,
                                 .d_ff = options.d_ff,
                                 .cnn_width = options.width,
                                 .head_dropout = options.head_dropout};
  if (!options.dropout) result.dropout = result.head_dropout = 0;
  return result;
}

template <class Net>
std::shared_ptr<Model> stft_net(const ModelOptions& options) {
  return as_model(Net(behavior_options(options)), {"stft"});
}

template <class Net>
std::shared_ptr<Model> series_net(const ModelOptions& options) {
  return as_model(Net(behavior_options(options)), {"series"});
}

std::shared_ptr<Model> fusion_net(const ModelOptions& options) {
  return as_model(models::BehaviorFusion(behavior_options(options)), {"stft", "series"});
}

std::shared_ptr<Model> emotion_net(const ModelOptions& options) {
  models::EmotionOptions net{.num_emotions = options.num_classes,
                             .fusion = models::parse_fusion(options.fusion),
                             .modality = models::parse_modality(options.modality),
                             .dropout = options.head_dropout,
                             .width = options.width};
  if (options.d_model != 0) net.d_model = options.d_model;
  if (options.num_heads != 0) net.n_heads = options.num_heads;
  if (!options.dropout) net.dropout = net.inner_dropout = 0;
  return models::as_model(models::EmotionRecognizer(net));
}

struct Entry {
  std::string_view name;
  ModelFamily family;
  std::shared_ptr<Model> (*build)(const ModelOptions& options);
};

// A table, not self-registration: objects of a static library that nobody names are dropped by the linker.
constexpr std::array kModels{
    Entry{"baseline", ModelFamily::image, image_net<models::Baseline>},
    Entry{"residual", ModelFamily::image, image_net<models::Residual>},
    Entry{"deeper_wider", ModelFamily::image, image_net<models::DeeperWider>},
    Entry{"se_attention", ModelFamily::image, image_net<models::SeAttention>},
    Entry{"best", ModelFamily::image, image_net<models::Best>},
    Entry{"linear", ModelFamily::image, image_net<models::LinearClassifier>},
    Entry{"cnn", ModelFamily::behavior, stft_net<models::BehaviorCnn>},
    Entry{"transformer", ModelFamily::behavior, series_net<models::BehaviorTransformer>},
    Entry{"fusion", ModelFamily::behavior, fusion_net},
    Entry{"dual", ModelFamily::behavior, series_net<models::BehaviorDual>},
    Entry{"emotion", ModelFamily::emotion, emotion_net},
};

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  names.reserve(kModels.size());
  for (const Entry& entry : kModels) names.emplace_back(entry.name);
  return names;
}

std::vector<std::string> model_names(ModelFamily family) {
  std::vector<std::string> names;
  for (const Entry& entry : kModels) {
    if (entry.family == family) names.emplace_back(entry.name);
  }
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
