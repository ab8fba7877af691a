#include <mmtrain/core/error.h>
#include <mmtrain/datasets/clips.h>
#include <mmtrain/media/video.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "common/emotion.h"
#include "common/predictor.h"

namespace programs {
namespace {

namespace fs = std::filesystem;

class EmotionPredictor final : public Predictor {
 public:
  explicit EmotionPredictor(const TrainedModel& trained)
      : options_(EmotionModelOptions::from(trained.config)), class_names_(trained.class_names) {}

  bool takes(const fs::path& file) const override {
    constexpr std::array<std::string_view, 8> kVideos{".mp4", ".avi", ".mkv", ".mov", ".mpg", ".mpeg", ".webm", ".m4v"};
    return std::find(kVideos.begin(), kVideos.end(), small_extension(file)) != kVideos.end();
  }

  std::vector<Item> items(const fs::path& file, const PredictOptions& options) const override {
    if (options.window <= 0) return {{file}};
    double seconds = 0;
    try {
      seconds =
          mmtrain::media::read_video(file, {.frames = 1, .key_frames_only = true, .height = 8, .width = 8}).duration;
    } catch (const mmtrain::DataError&) {
      return {{file}};  // reading it again will say why
    }
    const double stride = options.stride > 0 ? options.stride : options.window;
    // A rest that is shorter than a quarter of a window belongs to the one before.
    const double least = 0.25 * options.window;
    std::vector<Item> windows;
    for (int k = 0; k == 0 || k * stride + least < seconds; ++k) {
      windows.push_back({file, k * stride, std::min(k * stride + options.window, std::max(seconds, least))});
      if (windows.back().end.value() >= seconds) break;
    }
    if (stride <= options.window) windows.back().end = std::max(windows.back().end.value(), seconds);
    return windows;
  }

  std::shared_ptr<const mmtrain::Dataset> dataset(const std::vector<Item>& items) const override {
    std::vector<mmtrain::datasets::ClipFile> clips;
    for (const Item& item : items) {
      mmtrain::datasets::ClipFile clip{.video = item.file};
      if (item.start) {
        clip.start = *item.start;
        clip.duration = *item.end - *item.start;
      }
      clips.push_back(std::move(clip));
    }
    auto files = std::make_shared<mmtrain::datasets::ClipFiles>(std::move(clips), options_.clips());
    return std::make_shared<mmtrain::datasets::ClipDataset>(
        std::move(files), std::vector<std::int64_t>(items.size()), class_names_,
        mmtrain::datasets::ClipDatasetOptions{.visual = options_.visual(), .audio = options_.audio()});
  }

  std::shared_ptr<mmtrain::Model> model() const override {
    return make_emotion_model(options_, static_cast<std::int64_t>(class_names_.size()));
  }

 private:
  EmotionModelOptions options_;
  std::vector<std::string> class_names_;
};

}  // namespace

std::unique_ptr<Predictor> make_emotion_predictor(const TrainedModel& trained) {
  return std::make_unique<EmotionPredictor>(trained);
}

}  // namespace programs
