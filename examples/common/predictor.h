#pragma once

#include <mmtrain/batch/model.h>
#include <mmtrain/core/config.h>
#include <mmtrain/data/dataset.h>
#include <mmtrain/io/state_dict.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

/// What a trained net says about files, whatever kind of files its program was trained on.
namespace programs {

/// A net as a training program left it.
struct TrainedModel {
  std::string program;
  mmtrain::Config config;  ///< of the run
  std::vector<std::string> class_names;
  mmtrain::StateDict weights;
};

/// Reads a run directory (its best checkpoint, of its best net if there are several) or a checkpoint. Throws
/// `mmtrain::DataError` naming what is missing.
TrainedModel load_trained(const std::filesystem::path& path);

/// The extension of a file's name in small letters, with its dot.
std::string small_extension(const std::filesystem::path& file);

/// A file or a part of one that gets an answer of its own.
struct Item {
  std::filesystem::path file;
  std::optional<double> start = {}, end = {};  ///< seconds, of a part
};

struct PredictOptions {
  double window = 0;     ///< seconds that a long recording is cut into; 0: one answer for a file
  double stride = 0;     ///< seconds from window to window; 0: the window, or as in training
  double rate = 0;       ///< sensor recordings: samples a second that the file has; 0: as it tells, or as in training
  bool growing = false;  ///< the file is still being written
};

/// How files of one kind are read, and the net that takes them. To add a kind: implement it and name it in
/// `make_predictor`.
class Predictor {
 public:
  virtual ~Predictor() = default;

  /// Whether a file found in a folder is of this kind, by its name.
  virtual bool takes(const std::filesystem::path& file) const = 0;
  /// The parts of a file that get answers; the whole file, unless it is long and `options` say otherwise.
  virtual std::vector<Item> items(const std::filesystem::path& file, const PredictOptions& options) const;
  /// The items as samples in the same order, as the net saw them in validation. Targets do not matter.
  virtual std::shared_ptr<const mmtrain::Dataset> dataset(const std::vector<Item>& items) const = 0;
  /// The net, with any weights.
  virtual std::shared_ptr<mmtrain::Model> model() const = 0;
};

/// The predictor for what `trained` was trained on. Throws `mmtrain::DataError` for a program it does not know.
std::unique_ptr<Predictor> make_predictor(const TrainedModel& trained);

/// Clips of talking people (`train`, `train_multi_gpu`).
std::unique_ptr<Predictor> make_emotion_predictor(const TrainedModel& trained);

/// Recordings of body-worn sensors (`run_behavior_classification`).
std::unique_ptr<Predictor> make_behavior_predictor(const TrainedModel& trained);

/// Images (`tiny_imagenet_experiments`).
std::unique_ptr<Predictor> make_image_predictor(const TrainedModel& trained);

}  // namespace programs
