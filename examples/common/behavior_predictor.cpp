#include <fmt/format.h>
#include <mmtrain/core/error.h>
#include <mmtrain/core/log.h>
#include <mmtrain/datasets/sensor_features.h>
#include <mmtrain/datasets/sensor_folders.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "common/behavior.h"
#include "common/predictor.h"

namespace programs {
namespace {

namespace fs = std::filesystem;
using namespace mmtrain;

// Windows of recordings that may be unreadable: those are bad samples.
class RecordingWindows final : public Dataset {
 public:
  RecordingWindows(const Preparation& preparation, bool series) : preparation_(preparation), series_(series) {
    features_ = std::make_shared<datasets::SensorFeatures>(preparation_.make_features());
  }

  void add(std::shared_ptr<const datasets::SensorRecording> recording, std::int64_t first_row, std::string name) {
    rows_.push_back({std::move(recording), first_row, std::move(name), {}});
  }
  void add_bad(std::string name, std::string reason) {
    rows_.push_back({nullptr, 0, std::move(name), std::move(reason)});
  }

  DatasetSpec spec() const override {
    DatasetSpec spec;
    if (series_) spec.inputs.push_back({"series", {preparation_.window_rows, features_->channels()}});
    if (features_->bins() > 0) {
      spec.inputs.push_back({"stft", {features_->channels(), features_->bins(), features_->frames()}});
    }
    return spec;
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(rows_.size()); }
  std::string sample_name(std::int64_t index) const override { return rows_.at(static_cast<std::size_t>(index)).name; }

  void write(std::int64_t index, SampleSlot& slot) const override {
    const Row& row = rows_.at(static_cast<std::size_t>(index));
    if (!row.recording) throw DataError(row.reason);
    thread_local std::vector<float> own;
    std::span<float> series;
    if (series_) {
      series = slot.input<float>(0);
    } else {
      own.resize(static_cast<std::size_t>(preparation_.window_rows * features_->channels()));
      series = own;
    }
    const auto first = row.recording->samples.begin() + row.first_row * features_->channels();
    std::copy_n(first, series.size(), series.begin());
    preparation_.statistics.scale_series(series);
    if (features_->bins() > 0) {
      const std::span<float> spectrum = slot.input<float>(series_ ? 1 : 0);
      features_->spectrum(series, spectrum);
      preparation_.statistics.scale_spectrum(spectrum);
    }
    slot.target<std::int64_t>()[0] = 0;
  }

 private:
  struct Row {
    std::shared_ptr<const datasets::SensorRecording> recording;
    std::int64_t first_row;
    std::string name, reason;
  };

  Preparation preparation_;
  bool series_;
  std::shared_ptr<const datasets::SensorFeatures> features_;
  std::vector<Row> rows_;
};

// Recordings of body-worn sensors, cut into windows as in training.
class BehaviorPredictor final : public Predictor {
 public:
  explicit BehaviorPredictor(const TrainedModel& trained)
      : name_(trained.config.get<std::string>("model").value_or("cnn")),
        options_(BehaviorModelOptions::from(trained.config)) {
    const std::optional<Config> preparation = trained.config.sub("preparation");
    if (!preparation) throw DataError("the checkpoint does not say how its recordings were prepared");
    preparation_ = Preparation::from_config(*preparation);
  }

  bool takes(const fs::path& file) const override {
    return small_extension(file) == ".txt" || small_extension(file) == ".csv";
  }

  std::vector<Item> items(const fs::path& file, const PredictOptions& options) const override {
    Read& read = read_[file] = Read{};
    try {
      std::vector<datasets::SensorProblem> problems;
      // A file that grows is not yet as long as its name says.
      const double rate = options.rate > 0 ? options.rate : options.growing ? preparation_.file_rate : 0;
      auto recording = datasets::read_sensor_recording(file, preparation_.rate, rate, preparation_.cleaned, problems,
                                                       preparation_.file_rate);
      const auto channels = static_cast<std::int64_t>(preparation_.channels.size());
      if (static_cast<std::int64_t>(recording.samples.size()) != recording.rows * channels) {
        throw DataError(
            fmt::format("the net was trained on {} channels, the recording has {}", channels,
                        recording.rows > 0 ? static_cast<std::int64_t>(recording.samples.size()) / recording.rows : 0));
      }
      if (recording.rows < preparation_.window_rows) {
        throw DataError(fmt::format("{} rows at {:g} Hz are less than a window of {}", recording.rows,
                                    preparation_.rate, preparation_.window_rows));
      }
      for (const datasets::SensorProblem& problem : problems) log::warning(problem.path + ": " + problem.reason);
      read.recording = std::make_shared<datasets::SensorRecording>(std::move(recording));
    } catch (const DataError& error) {
      read.reason = error.what();
      return {{file}};
    }
    const double seconds = options.stride > 0 ? options.stride
                                              : static_cast<double>(preparation_.window_rows) / preparation_.rate *
                                                    (1 - preparation_.overlap);
    const auto stride = std::max<std::int64_t>(1, std::llround(seconds * preparation_.rate));
    std::vector<Item> windows;
    for (std::int64_t row = 0; row + preparation_.window_rows <= read.recording->rows; row += stride) {
      const double start = static_cast<double>(row) / preparation_.rate;
      windows.push_back({file, start, start + static_cast<double>(preparation_.window_rows) / preparation_.rate});
    }
    return windows;
  }

  std::shared_ptr<const Dataset> dataset(const std::vector<Item>& items) const override {
    auto windows = std::make_shared<RecordingWindows>(preparation_, reads_series(name_));
    for (const Item& item : items) {
      const Read& read = read_.at(item.file);
      if (read.recording) {
        windows->add(read.recording, std::llround(item.start.value_or(0) * preparation_.rate), item.file.string());
      } else {
        windows->add_bad(item.file.string(), read.reason);
      }
    }
    return windows;
  }

  std::shared_ptr<Model> model() const override {
    return make_behavior_model(name_, options_, static_cast<std::int64_t>(preparation_.channels.size()),
                               static_cast<std::int64_t>(preparation_.class_names.size()));
  }

 private:
  struct Read {
    std::shared_ptr<const datasets::SensorRecording> recording;
    std::string reason;
  };

  std::string name_;
  BehaviorModelOptions options_;
  Preparation preparation_;
  mutable std::map<fs::path, Read> read_;  // what `items` has read, for `dataset`
};

}  // namespace

std::unique_ptr<Predictor> make_behavior_predictor(const TrainedModel& trained) {
  return std::make_unique<BehaviorPredictor>(trained);
}

}  // namespace programs
