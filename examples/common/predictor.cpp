#include "common/predictor.h"

#include <fmt/format.h>
#include <mmtrain/core/error.h>
#include <mmtrain/train/checkpoint.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

namespace programs {
namespace fs = std::filesystem;

TrainedModel load_trained(const fs::path& run) {
  fs::path path = run;
  if (fs::exists(run / "result.json")) {
    const auto net = mmtrain::Config::load(run / "result.json").get<std::string>("model");
    if (net && fs::exists(run / *net / "checkpoints")) path = run / *net;
  }
  const fs::path best = path / "checkpoints" / "best";
  const fs::path directory = fs::exists(best) ? best : path;
  mmtrain::Checkpoint checkpoint = mmtrain::load_checkpoint(directory);
  TrainedModel trained{.program = {}, .config = {}, .class_names = {}, .weights = std::move(checkpoint.model)};
  try {
    const auto state = nlohmann::json::parse(checkpoint.state);
    const auto& about = state.at("about");
    trained.program = about.at("program");
    trained.config = mmtrain::Config::parse(about.at("config").dump(), (directory / "state.json").string());
    trained.class_names = state.at("class_names").get<std::vector<std::string>>();
  } catch (const nlohmann::json::exception&) {
    throw mmtrain::DataError(
        fmt::format("{} does not say what was trained: give a run directory or a checkpoint of one "
                    "of the training programs",
                    (directory / "state.json").string()));
  }
  return trained;
}

std::string small_extension(const fs::path& file) {
  std::string extension = file.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return extension;
}

std::vector<Item> Predictor::items(const fs::path& file, const PredictOptions&) const { return {{file}}; }

std::unique_ptr<Predictor> make_predictor(const TrainedModel& trained) {
  if (trained.program == "train" || trained.program == "train_multi_gpu") return make_emotion_predictor(trained);
  if (trained.program == "run_behavior_classification") return make_behavior_predictor(trained);
  if (trained.program == "tiny_imagenet_experiments") return make_image_predictor(trained);
  throw mmtrain::DataError(fmt::format("the checkpoint is of '{}', whose files are not known here", trained.program));
}

}  // namespace programs
