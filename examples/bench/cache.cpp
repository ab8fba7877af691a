#include "bench/measurements.h"

#include <fmt/format.h>
#include <mmtrain/mmtrain.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "bench/loading.h"
#include "bench/measure.h"
#include "common/cli.h"

namespace mmtrain::bench {
namespace {

struct CacheBenchOptions {
  std::string place;
  std::int64_t samples = 10'000, batch_size = 64;  // as many as MELD has to train on
  int num_workers = 2;
  double seconds = 10, consume_rate = 10'000;
};

/// Made-up clips: a frame of 112 x 112 pixels and a mel spectrogram of 64 bands and 300 frames.
class MadeUpClips : public SampleSource {
 public:
  explicit MadeUpClips(std::int64_t size) : size_(size) {}

  std::vector<TensorSpec> spec() const override {
    return {{"image", {112, 112, 3}, torch::kUInt8}, {"mel", {64, 300}, torch::kFloat16}};
  }
  std::int64_t size() const override { return size_; }
  std::string sample_name(std::int64_t index) const override { return fmt::format("clip {}", index); }
  std::string fingerprint() const override { return fmt::format("{} made-up clips", size_); }

  std::span<const std::span<const std::byte>> read(std::int64_t index, Scratch& scratch) const override {
    constexpr std::size_t kImage = 112 * 112 * 3, kMel = 64 * 300 * sizeof(at::Half);
    scratch.file.resize(kImage + kMel);
    auto value = static_cast<std::uint8_t>(index);
    for (std::byte& byte : scratch.file) byte = std::byte(value += 37) & std::byte{0x3F};  // finite as half floats too
    const std::span<const std::byte> bytes(scratch.file);
    scratch.fields.assign({bytes.first(kImage), bytes.last(kMel)});
    return scratch.fields;
  }

 private:
  const std::int64_t size_;
};

/// The samples of a source as they are.
class SourceDataset : public Dataset {
 public:
  explicit SourceDataset(std::shared_ptr<const SampleSource> source) : source_(std::move(source)) {}

  DatasetSpec spec() const override { return {source_->spec()}; }
  std::int64_t size() const override { return source_->size(); }
  void write(std::int64_t index, SampleSlot& slot) const override {
    thread_local SampleSource::Scratch scratch;
    const auto fields = source_->read(index, scratch);
    for (std::size_t k = 0; k < fields.size(); ++k) std::ranges::copy(fields[k], slot.input<std::byte>(k).begin());
    slot.target<std::int64_t>()[0] = index % 7;
  }

 private:
  std::shared_ptr<const SampleSource> source_;
};

/// A folder of its own, removed with what is in it.
class Folder {
 public:
  explicit Folder(const std::filesystem::path& parent) : path_(parent / fmt::format("mmtrain_bench_{}", ::getpid())) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace

int cache(int argc, char** argv) {
  CacheBenchOptions options;
  programs::Cli cli("mmtrain_bench cache",
                    "Samples per second from a decode-once cache, which is written first, to batches in memory. A "
                    "sample is an image of 112x112 and a mel spectrogram of 64x300 half floats, 76 kB.");
  cli.add("place", options.place,
          "folder for the cache, which is removed afterwards; empty: the system's for such files");
  cli.add("samples", options.samples, "samples in the cache");
  cli.add("num_workers", options.num_workers, "threads that load");
  cli.add("batch_size", options.batch_size, "samples of a batch");
  cli.add("seconds", options.seconds, "length of the measurement in seconds");
  cli.add("consume_rate", options.consume_rate,
          "samples/s that a consumer takes, while the share of time that it waits is measured, in per cent");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (options.samples < 1) throw ConfigError("--samples must be positive");
  if (options.consume_rate <= 0) throw ConfigError("--consume_rate must be positive");

  const std::filesystem::path place = options.place;
  const Folder folder(place.empty() ? std::filesystem::temp_directory_path() : place);
  const auto data = std::make_shared<SourceDataset>(
      DecodeCache::open_or_build(std::make_shared<MadeUpClips>(options.samples),
                                 {.name = "clips", .place = folder.path(), .num_workers = options.num_workers}));
  DataLoader loader(data, std::make_shared<RandomSampler>(data->size(), 0),
                    {.batch_size = options.batch_size, .num_workers = options.num_workers});
  const std::string name = fmt::format("cache/workers{}", options.num_workers);
  print_measurement(name, "samples/s", measure_loading(loader, data->size(), options.seconds / 2, 0).rates);
  print_measurement(fmt::format("{}/wait_at_{:.0f}", name, options.consume_rate), "%",
                    measure_loading(loader, data->size(), options.seconds / 2, options.consume_rate).waits);
  return 0;
}

}  // namespace mmtrain::bench
