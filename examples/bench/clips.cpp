#include "bench/measurements.h"

#include <fmt/format.h>
#include <mmtrain/mmtrain.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "bench/loading.h"
#include "bench/measure.h"
#include "common/cli.h"
#include "common/emotion.h"

namespace mmtrain::bench {

int clips(int argc, char** argv) {
  programs::EmotionModelOptions model;
  std::string data_dir;
  int num_workers = 2;
  std::int64_t batch_size = 24;
  double seconds = 5, consume_rate = 0;
  programs::Cli cli("mmtrain_bench clips",
                    "Clips per second from the decode-once cache, augmented as in training, to batches in memory.");
  cli.add("data_dir", data_dir, "data in MELD's layout");
  cli.add("num_workers", num_workers, "threads that load");
  cli.add("batch_size", batch_size, "clips of a batch");
  cli.add("frames", model.frames, "pictures of a clip");
  cli.add("image_size", model.image_size, "height and width of the pictures, pixels");
  cli.add("mel_frames", model.mel_frames, "length of the spectrogram");
  cli.add("seconds", seconds, "length of the measurement in seconds");
  cli.add("consume_rate", consume_rate,
          "clips/s that a consumer takes; then the share of time it waits is measured, in per cent. 0: as fast as it "
          "goes");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (data_dir.empty()) throw ConfigError("--data_dir DIR is needed: clips in MELD's layout");

  const auto data = datasets::meld(data_dir, "train", programs::clip_transform(model, /*augmented=*/true),
                                   model.clips(), {.cache = "auto", .num_workers = num_workers});
  DataLoader loader(data, std::make_shared<RandomSampler>(data->size(), 0),
                    {.batch_size = batch_size, .num_workers = num_workers, .bad_samples = BadSamplePolicy::skip});
  const LoadingRates measured = measure_loading(loader, data->size(), seconds, consume_rate);
  const std::string name = fmt::format("clips/frames{}/size{}/workers{}", model.frames, model.image_size, num_workers);
  print_measurement(name, "clips/s", measured.rates);
  if (consume_rate > 0) print_measurement(fmt::format("{}/wait_at_{:.0f}", name, consume_rate), "%", measured.waits);
  return 0;
}

}  // namespace mmtrain::bench
