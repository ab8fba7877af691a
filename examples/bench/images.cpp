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
#include "common/images.h"

namespace mmtrain::bench {
namespace {

struct ImageOptions {
  std::string data_dir, transform = "crop_flip", source = "files";
  int num_workers = 2;
  std::int64_t batch_size = 64;
  double seconds = 5, consume_rate = 0;
};

}  // namespace

int images(int argc, char** argv) {
  ImageOptions options;
  programs::Cli cli("mmtrain_bench images", "Images per second from files or cache to batches in memory.");
  cli.add("data_dir", options.data_dir, "data in TinyImageNet's layout");
  cli.add("num_workers", options.num_workers, "threads that load");
  cli.add("batch_size", options.batch_size, "images of a batch");
  cli.add_choice("transform", options.transform, {"crop_flip", "reference"}, "training transform");
  cli.add_choice("source", options.source, {"files", "cache"}, "JPEG files, or the decode-once cache of them");
  cli.add("seconds", options.seconds, "length of the measurement in seconds");
  cli.add("consume_rate", options.consume_rate,
          "images/s that a consumer takes; then the share of time it waits is measured, in per cent. 0: as fast as it "
          "goes");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (options.data_dir.empty()) throw ConfigError("--data_dir DIR is needed: images in TinyImageNet's layout");

  const auto data = datasets::tiny_imagenet(
      options.data_dir, "train", programs::image_transform(options.transform),
      {.image_size = programs::kImageSize, .cache = options.source == "cache" ? "auto" : "off"});
  DataLoader loader(
      data, std::make_shared<RandomSampler>(data->size(), 0),
      {.batch_size = options.batch_size, .num_workers = options.num_workers, .bad_samples = BadSamplePolicy::skip});
  const LoadingRates measured = measure_loading(loader, data->size(), options.seconds, options.consume_rate);
  const std::string name =
      fmt::format("images/{}/{}/workers{}", options.transform, options.source, options.num_workers);
  print_measurement(name, "images/s", measured.rates);
  if (options.consume_rate > 0) {
    print_measurement(fmt::format("{}/wait_at_{:.0f}", name, options.consume_rate), "%", measured.waits);
  }
  return 0;
}

}  // namespace mmtrain::bench
