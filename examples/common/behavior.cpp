#include "common/behavior.h"

#include <fmt/format.h>
#include <mmtrain/core/error.h>
#include <mmtrain/models/registry.h>

#include <optional>

namespace programs {
namespace {

using namespace mmtrain;

template <class T>
T required(const Config& config, const char* key) {
  const std::optional<T> value = config.get<T>(key);
  if (!value) throw DataError(fmt::format("[preparation] {} has no '{}'", config.source(), key));
  return *value;
}

}  // namespace

void BehaviorModelOptions::declare(Cli& cli) {
  cli.add("d_model", d_model, "features of the transformer, 0: the net's reference");
  cli.add("num_heads", num_heads, "heads of attention, 0: the net's reference");
  cli.add("num_layers", num_layers, "layers of the transformer, 0: the net's reference");
  cli.add("d_ff", d_ff, "hidden features of the transformer's feed-forward parts, 0: 4 d_model");
  cli.add("cnn_width", cnn_width, "factor on the channels of the convolutions, 1: the reference");
  cli.add("head_dropout", head_dropout, "dropout of the classifier");
}

BehaviorModelOptions BehaviorModelOptions::from(const Config& config) {
  BehaviorModelOptions options;
  const auto whole = [&](const char* key, std::int64_t& value) {
    value = config.get<std::int64_t>(key).value_or(value);
  };
  whole("d_model", options.d_model);
  whole("num_heads", options.num_heads);
  whole("num_layers", options.num_layers);
  whole("d_ff", options.d_ff);
  options.cnn_width = config.get<double>("cnn_width").value_or(options.cnn_width);
  options.head_dropout = config.get<double>("head_dropout").value_or(options.head_dropout);
  return options;
}

std::shared_ptr<Model> make_behavior_model(const std::string& name, const BehaviorModelOptions& options,
                                           std::int64_t channels, std::int64_t classes) {
  return make_model(name, {.num_classes = classes,
                           .width = options.cnn_width,
                           .channels = channels,
                           .d_model = options.d_model,
                           .num_heads = options.num_heads,
                           .num_layers = options.num_layers,
                           .d_ff = options.d_ff,
                           .head_dropout = options.head_dropout});
}

bool reads_series(const std::string& name) { return name != "cnn"; }
bool reads_spectrum(const std::string& name) { return name == "cnn" || name == "fusion"; }

datasets::SensorFeatures Preparation::make_features() const {
  return {static_cast<std::int64_t>(channels.size()), window_rows, rate, features};
}

Config Preparation::to_config() const {
  Config config;
  config.set("channels", channels);
  config.set("class_names", class_names);
  config.set("rate", rate);
  config.set("file_rate", file_rate);
  config.set("window_rows", window_rows);
  config.set("overlap", overlap);
  config.set("cleaned", cleaned);
  config.set("stft", features.stft);
  config.set("mfcc", features.mfcc);
  config.set("segment", features.segment);
  config.set("statistics", statistics.to_config());
  return config;
}

Preparation Preparation::from_config(const Config& config) {
  Preparation result;
  result.channels = required<std::vector<std::string>>(config, "channels");
  result.class_names = required<std::vector<std::string>>(config, "class_names");
  result.rate = required<double>(config, "rate");
  result.file_rate = required<double>(config, "file_rate");
  result.window_rows = required<std::int64_t>(config, "window_rows");
  result.overlap = required<double>(config, "overlap");
  result.cleaned = required<bool>(config, "cleaned");
  result.features.stft = required<bool>(config, "stft");
  result.features.mfcc = required<bool>(config, "mfcc");
  result.features.segment = static_cast<int>(required<std::int64_t>(config, "segment"));
  const std::optional<Config> statistics = config.sub("statistics");
  if (!statistics) throw DataError(fmt::format("[preparation] {} has no 'statistics'", config.source()));
  result.statistics = datasets::SensorStatistics::from_config(*statistics);
  return result;
}

}  // namespace programs
