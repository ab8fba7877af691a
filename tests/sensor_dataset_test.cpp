#include "mmtrain/datasets/sensor_dataset.h"

#include <torch/torch.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "catch.h"
#include "mmtrain/core/error.h"
#include "mmtrain/data/data_loader.h"
#include "mmtrain/datasets/sensor_split.h"
#include "sensor_fixtures.h"

using namespace mmtrain;
using namespace mmtrain::datasets;
using Catch::Matchers::Contains;
using fixtures::TempDir;
using fixtures::write_people;

TEST_CASE("Statistics are of the training windows, and bring them to scale", "[sensors][features]") {
  const TempDir dir;
  write_people(dir.path(), 3);
  auto data = std::make_shared<SensorData>(read_sensor_folders({dir.path()}, {.window_seconds = 2}));
  const SensorSplit split = split_windows(*data, {.by = SplitBy::person, .test_size = 0.3, .val_size = 0.3});
  const auto features = std::make_shared<SensorFeatures>(3, data->window_rows, data->rate);
  CHECK(features->bins() == 65);  // 200 rows hold two segments of 128, nearly
  const SensorStatistics statistics = SensorStatistics::of(*data, split.train, *features, 1);
  CHECK(SensorStatistics::of(*data, split.train, *features, 3).spectrum_mean == statistics.spectrum_mean);
  // What the test holds changes nothing.
  for (const std::int64_t index : split.test) {
    auto& samples =
        data->recordings[static_cast<std::size_t>(data->windows[static_cast<std::size_t>(index)].recording)].samples;
    std::fill(samples.begin(), samples.end(), 1e6F);
  }
  CHECK(SensorStatistics::of(*data, split.train, *features, 1).series_mean == statistics.series_mean);

  const auto train = std::make_shared<SensorDataset>(data, split.train, features, statistics);
  DataLoader loader(train, std::make_shared<SequentialSampler>(train->size()), {.batch_size = train->size()});
  for (Batch& batch : loader.epoch(0)) {
    const torch::Tensor series = batch.input("series"), spectrum = batch.input("stft");
    CHECK(series.sizes() == torch::IntArrayRef({train->size(), data->window_rows, 3}));
    CHECK(series.mean(torch::IntArrayRef{0, 1}).abs().max().item<double>() < 1e-4);
    CHECK((series.std(torch::IntArrayRef{0, 1}, false) - 1).abs().max().item<double>() < 1e-3);
    CHECK(spectrum.mean(torch::IntArrayRef{0, 3}).abs().max().item<double>() < 1e-3);
    CHECK((spectrum.std(torch::IntArrayRef{0, 3}, false) - 1).abs().max().item<double>() < 1e-2);
    CHECK(batch.target.max().item<std::int64_t>() == 1);
  }
  const SensorStatistics again = SensorStatistics::from_config(Config::parse(statistics.to_config().dump()));
  CHECK(again.spectrum_std == statistics.spectrum_std);
  CHECK_THROWS_WITH(SensorStatistics::from_config(Config()), Contains("series_mean"));
  CHECK_THROWS_AS(SensorFeatures(3, 100, 50, {.segment = 101}), ConfigError);
  CHECK_THAT(train->sample_name(0), Contains(".csv at 0.00 s"));
}

TEST_CASE("Augmentation is drawn anew each epoch and by nothing but seed, epoch and sample", "[sensors][features]") {
  const TempDir dir;
  write_people(dir.path(), 2);
  const auto data = std::make_shared<SensorData>(read_sensor_folders({dir.path()}, {.window_seconds = 1}));
  const auto features =
      std::make_shared<SensorFeatures>(3, data->window_rows, data->rate, SensorFeatureOptions{.stft = false});
  CHECK(features->bins() == 0);
  std::vector<std::int64_t> all(data->windows.size());
  std::iota(all.begin(), all.end(), 0);
  const auto read = [&](bool augment, int workers, std::int64_t epoch, std::uint64_t seed = 3) {
    const auto set = std::make_shared<SensorDataset>(data, all, features, SensorStatistics::none(*features),
                                                     SensorDatasetOptions{.augment = augment});
    DataLoader loader(set, std::make_shared<SequentialSampler>(set->size()),
                      {.batch_size = set->size(), .num_workers = workers, .seed = seed});
    torch::Tensor series;
    for (Batch& batch : loader.epoch(epoch)) {
      CHECK(batch.inputs.size() == 1);
      series = batch.input("series").clone();
    }
    return series;
  };
  const torch::Tensor plain = read(false, 0, 0), changed = read(true, 0, 1);
  CHECK(plain.equal(read(false, 2, 5)));
  CHECK(changed.equal(read(true, 2, 1)));
  CHECK_FALSE(changed.equal(read(true, 0, 2)));
  CHECK_FALSE(changed.equal(read(true, 0, 1, 4)));
  CHECK_FALSE(changed.equal(plain));
  CHECK((changed - plain).abs().mean().item<double>() < 0.5);  // it is still the window
}
