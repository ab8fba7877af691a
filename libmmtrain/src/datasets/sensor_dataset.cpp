#include "mmtrain/datasets/sensor_dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "mmtrain/core/error.h"

namespace mmtrain::datasets {

SensorDataset::SensorDataset(std::shared_ptr<const SensorData> data, std::vector<std::int64_t> windows,
                             std::shared_ptr<const SensorFeatures> features, SensorStatistics statistics,
                             const SensorDatasetOptions& options)
    : data_(std::move(data)),
      windows_(std::move(windows)),
      features_(std::move(features)),
      statistics_(std::move(statistics)),
      options_(options) {
  if (features_->channels() != data_->num_channels() || features_->rows() != data_->window_rows) {
    throw ConfigError("[SensorDataset] the features are for windows of another shape");
  }
  if (!options_.series && features_->bins() == 0) {
    throw ConfigError("[SensorDataset] there must be a series or a spectrum to learn from");
  }
}

DatasetSpec SensorDataset::spec() const {
  DatasetSpec spec;
  if (options_.series) spec.inputs.push_back({"series", {data_->window_rows, data_->num_channels()}});
  if (features_->bins() > 0) {
    spec.inputs.push_back({"stft", {data_->num_channels(), features_->bins(), features_->frames()}});
  }
  return spec;
}

void SensorDataset::write(std::int64_t index, SampleSlot& slot) const {
  thread_local std::vector<float> own;
  const SensorWindow& window = data_->windows[static_cast<std::size_t>(windows_[static_cast<std::size_t>(index)])];
  std::span<float> series;
  if (options_.series) {
    series = slot.input<float>(0);
  } else {
    own.resize(static_cast<std::size_t>(data_->window_rows * data_->num_channels()));
    series = own;
  }
  std::int64_t shift = 0;
  if (options_.augment) {
    const double most = options_.augmentation.shift * static_cast<double>(data_->window_rows);
    shift = std::llround(slot.random().uniform(-most, most));
  }
  copy_window(*data_, window, shift, series);
  statistics_.scale_series(series);
  if (options_.augment) augment(series, slot.random());
  if (features_->bins() > 0) {
    const std::span<float> spectrum = slot.input<float>(options_.series ? 1 : 0);
    features_->spectrum(series, spectrum);
    statistics_.scale_spectrum(spectrum);
  }
  slot.target<std::int64_t>()[0] = window.label;
}

void SensorDataset::augment(std::span<float> series, RandomStream& random) const {
  const SensorAugmentation& how = options_.augmentation;
  const auto channels = static_cast<std::size_t>(data_->num_channels());
  const std::size_t rows = series.size() / channels;
  for (std::size_t c = 0; c < channels; ++c) {
    const auto factor = static_cast<float>(1 + how.scale_std * random.normal());
    for (std::size_t row = 0; row < rows; ++row) series[row * channels + c] *= factor;
  }
  if (how.noise_std > 0) {
    for (float& value : series) value += static_cast<float>(how.noise_std * random.normal());
  }
  const auto masked = static_cast<std::size_t>(random.uniform() * how.mask_share * static_cast<double>(rows));
  const auto first = static_cast<std::size_t>(random.uniform() * static_cast<double>(rows - masked));
  std::fill_n(series.begin() + static_cast<std::ptrdiff_t>(first * channels), masked * channels, 0.0F);
}

std::string SensorDataset::sample_name(std::int64_t index) const {
  const SensorWindow& window = data_->windows[static_cast<std::size_t>(windows_[static_cast<std::size_t>(index)])];
  return fmt::format("{} at {:.2f} s", data_->recordings[static_cast<std::size_t>(window.recording)].path,
                     window.begin);
}

std::vector<std::int64_t> SensorDataset::labels() const {
  std::vector<std::int64_t> labels;
  for (const std::int64_t index : windows_) labels.push_back(data_->windows[static_cast<std::size_t>(index)].label);
  return labels;
}

}  // namespace mmtrain::datasets
