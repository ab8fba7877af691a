// Measures parts of the library. Prints one JSON line a measurement and nothing else on stdout.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <mmtrain/mmtrain.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/bench_models.h"
#include "common/cli.h"
#include "common/emotion.h"
#include "common/images.h"
#include "common/program.h"
#include "common/training.h"

namespace {

using namespace mmtrain;
using Clock = std::chrono::steady_clock;

constexpr int kRepeats = 5;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void print_measurement(const std::string& name, const std::string& unit, const std::vector<double>& repeats) {
  const nlohmann::ordered_json line = {
      {"name", name}, {"value", median(repeats)}, {"unit", unit}, {"repeats", repeats}};
  std::puts(line.dump().c_str());
  std::fflush(stdout);
}

// ---- images: files or cache -> batches

struct ImageOptions {
  std::string data_dir, transform = "crop_flip", source = "files";
  int num_workers = 2;
  std::int64_t batch_size = 64;
  double seconds = 5, consume_rate = 0;
};

// Takes batches from one epoch after another.
class EndlessBatches {
 public:
  explicit EndlessBatches(DataLoader& loader) : loader_(loader), position_(loader.epoch(0).begin()) {}

  std::int64_t next() {
    if (position_ == std::default_sentinel) {
      waited_ += loader_.wait_seconds();
      position_ = loader_.epoch(++epoch_).begin();
    }
    const std::int64_t rows = (*position_).size();
    ++position_;
    return rows;
  }
  double waited() const { return waited_ + loader_.wait_seconds(); }

 private:
  DataLoader& loader_;
  std::int64_t epoch_ = 0;
  double waited_ = 0;
  DataLoader::Iterator position_;
};

// How many samples a second the loader brings, and with a consume rate how much of the time its consumer waits.
void measure_loader(DataLoader& loader, const std::string& name, const std::string& unit, double seconds,
                    double consume_rate) {
  EndlessBatches batches(loader);
  for (std::int64_t rows = 0; rows < loader.dataset().size();)
    rows += batches.next();  // page cache and buffers are warm now

  std::vector<double> rates, waits;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const Clock::time_point start = Clock::now();
    const double waited = batches.waited();
    std::int64_t rows = 0;
    while (seconds_since(start) < seconds / kRepeats) {
      rows += batches.next();
      if (consume_rate > 0) {
        std::this_thread::sleep_until(start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
                                                  static_cast<double>(rows) / consume_rate)));
      }
    }
    const double elapsed = seconds_since(start);
    rates.push_back(static_cast<double>(rows) / elapsed);
    waits.push_back(100 * (batches.waited() - waited) / elapsed);
  }
  print_measurement(name, unit, rates);
  if (consume_rate > 0) print_measurement(fmt::format("{}/wait_at_{:.0f}", name, consume_rate), "%", waits);
}

int bench_images(int argc, char** argv) {
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
  measure_loader(loader, fmt::format("images/{}/{}/workers{}", options.transform, options.source, options.num_workers),
                 "images/s", options.seconds, options.consume_rate);
  return 0;
}

// ---- clips: cached clips -> batches

int bench_clips(int argc, char** argv) {
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
                                   model.clips(), {.num_workers = num_workers});
  DataLoader loader(data, std::make_shared<RandomSampler>(data->size(), 0),
                    {.batch_size = batch_size, .num_workers = num_workers, .bad_samples = BadSamplePolicy::skip});
  measure_loader(loader, fmt::format("clips/frames{}/size{}/workers{}", model.frames, model.image_size, num_workers),
                 "clips/s", seconds, consume_rate);
  return 0;
}

// ---- mel: sound in memory -> mel spectrograms

struct MelBenchOptions {
  std::string data_dir;
  MelOptions mel;
  int threads = 1;
  double seconds = 5;
};

// The files with one of the extensions in a folder of `kind` files.
std::vector<std::filesystem::path> media_files(const std::string& folder, const std::string& kind,
                                               const std::vector<std::string>& extensions) {
  if (!std::filesystem::is_directory(folder)) {
    throw ConfigError(fmt::format("--data_dir DIR is needed, a folder of {} files; got '{}'", kind, folder));
  }
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    if (std::find(extensions.begin(), extensions.end(), extension) != extensions.end()) paths.push_back(entry.path());
  }
  if (paths.empty()) {
    throw DataError(fmt::format("no {} file ({}) in {}", kind, fmt::join(extensions, ", "), folder));
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Calls `work(i)` for all i below `count`, on `threads` threads.
void spread(int threads, std::size_t count, const std::function<void(std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  const auto take = [&] {
    for (std::size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::jthread> others;
  for (int k = 1; k < threads; ++k) others.emplace_back(take);
  take();
}

// Work per second in each of the repeats of `seconds` in all. One pass, which does `work`, warms up.
std::vector<double> rates_of(const std::function<void()>& pass, double work, double seconds) {
  pass();
  std::vector<double> repeats;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const Clock::time_point start = Clock::now();
    int passes = 0;
    do {
      pass();
      ++passes;
    } while (seconds_since(start) < seconds / kRepeats);
    repeats.push_back(passes * work / seconds_since(start));
  }
  return repeats;
}

int bench_mel(int argc, char** argv) {
  MelBenchOptions options;
  programs::Cli cli("mmtrain_bench mel", "Seconds of sound per second that become mel spectrograms.");
  cli.add("data_dir", options.data_dir, "folder of sound files");
  cli.add("n_fft", options.mel.n_fft, "samples of a transform");
  cli.add("hop", options.mel.hop, "samples from frame to frame");
  cli.add("n_mels", options.mel.n_mels, "mel bands");
  cli.add("sample_rate", options.mel.sample_rate, "Hz; files of other rates are resampled while they are read");
  cli.add("threads", options.threads, "threads, each with a file of its own");
  cli.add("seconds", options.seconds, "length of the measurement in seconds");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (options.threads < 1) throw ConfigError("--threads must be positive");

  const std::vector<std::filesystem::path> paths =
      media_files(options.data_dir, "sound", {".wav", ".flac", ".ogg", ".mp3"});
  const media::MelSpectrogram mel(options.mel);
  std::vector<std::vector<float>> sounds(paths.size());
  std::vector<std::vector<float>> spectrograms(paths.size());
  const auto read = [&] {
    spread(options.threads, paths.size(), [&](std::size_t i) {
      sounds[i] = media::read_audio(paths[i], {.sample_rate = options.mel.sample_rate, .mono = true}).samples;
    });
  };
  const auto compute = [&] {
    spread(options.threads, paths.size(), [&](std::size_t i) { mel(sounds[i], spectrograms[i]); });
  };
  read();
  double sound_seconds = 0;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const auto samples = static_cast<std::int64_t>(sounds[i].size());
    sound_seconds += static_cast<double>(samples) / options.mel.sample_rate;
    spectrograms[i].resize(static_cast<std::size_t>(options.mel.n_mels * mel.frames(samples)));
  }
  const std::string name = fmt::format("mel/n_fft{}/hop{}/mels{}/threads{}", options.mel.n_fft, options.mel.hop,
                                       options.mel.n_mels, options.threads);
  print_measurement(name, "audio-s/s", rates_of(compute, sound_seconds, options.seconds / 2));
  print_measurement(name + "/read", "audio-s/s", rates_of(read, sound_seconds, options.seconds / 2));
  return 0;
}

// ---- video: clips -> frames and mel spectrograms

struct VideoBenchOptions {
  std::string data_dir, parts = "all";
  int frames = 8, size = 224, num_workers = 2;
  bool key_frames_only = false;
  double seconds = 10;
};

int bench_video(int argc, char** argv) {
  VideoBenchOptions options;
  programs::Cli cli("mmtrain_bench video",
                    "Clips per second that become frames, sound of 16 kHz and its mel spectrogram.");
  cli.add("data_dir", options.data_dir, "folder of video files");
  cli.add("frames", options.frames, "frames of a clip, placed uniformly");
  cli.add("size", options.size, "height and width of the frames");
  cli.add("key_frames_only", options.key_frames_only, "take frames among the key frames, which decode alone");
  cli.add("num_workers", options.num_workers, "threads, each with a clip of its own");
  cli.add_choice("parts", options.parts, {"video", "audio", "all"}, "what is read of a clip");
  cli.add("seconds", options.seconds, "length of the measurement in seconds");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (options.num_workers < 1) throw ConfigError("--num_workers must be positive");

  const std::vector<std::filesystem::path> paths =
      media_files(options.data_dir, "video", {".mp4", ".avi", ".mpg", ".mkv", ".webm"});
  const media::VideoOptions video{.frames = options.frames,
                                  .key_frames_only = options.key_frames_only,
                                  .height = options.size,
                                  .width = options.size};
  const MelOptions mel_options;
  const media::AudioOptions audio{.sample_rate = mel_options.sample_rate, .mono = true};
  const media::MelSpectrogram mel(mel_options);
  const auto read = [&](std::size_t i) {
    if (options.parts == "video") {
      media::read_video(paths[i], video);
    } else if (options.parts == "audio") {
      mel(media::read_audio(paths[i], audio).samples);
    } else {
      mel(media::read_clip(paths[i], video, audio).audio.samples);
    }
  };
  const auto pass = [&] { spread(options.num_workers, paths.size(), read); };
  print_measurement(fmt::format("video/{}/frames{}{}/size{}/workers{}", options.parts, options.frames,
                                options.key_frames_only ? "/key" : "", options.size, options.num_workers),
                    "clips/s", rates_of(pass, static_cast<double>(paths.size()), options.seconds));
  return 0;
}

// ---- text: a recording as delimited text -> windows

// Calls `work(first, last)` for equal shares of [0, count), each on a thread.
void in_shares(int threads, std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& work) {
  std::vector<std::jthread> pool;
  for (int i = 0; i < threads; ++i) pool.emplace_back(work, count * i / threads, count * (i + 1) / threads);
}

// The windows of all columns, [windows, columns, length] as nets want them; returns how many there are.
std::int64_t cut_windows(const media::Table& table, std::int64_t length, std::int64_t stride, int threads) {
  const std::int64_t count = table.window_count(length, stride), columns = table.columns();
  const auto windows = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(count * columns * length));
  in_shares(threads, count, [&](std::int64_t first, std::int64_t last) {
    float* out = windows.get() + first * columns * length;
    for (std::int64_t i = first; i < last; ++i) {
      const float* const window = table.window(i * stride, length).data();
      for (std::int64_t column = 0; column < columns; ++column) {
        for (std::int64_t row = 0; row < length; ++row) *out++ = window[row * columns + column];
      }
    }
  });
  return count;
}

int bench_text(int argc, char** argv) {
  std::string file;
  int threads = 2;
  std::int64_t window = 128, stride = 64;
  programs::Cli cli("mmtrain_bench text", "MB of text per second from a file to windows of floats in memory.");
  cli.add("file", file, "recording as delimited text");
  cli.add("threads", threads, "threads that parse");
  cli.add("window", window, "rows of a window");
  cli.add("stride", stride, "rows from one window to the next");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (file.empty()) throw ConfigError("--file FILE is needed: a recording as delimited text");
  if (threads < 1 || window < 1 || stride < 1) throw ConfigError("--threads, --window and --stride must be positive");

  const double megabytes = static_cast<double>(std::filesystem::file_size(file)) / 1e6;
  std::vector<double> rates, read_rates;
  for (int repeat = -1; repeat < kRepeats; ++repeat) {  // the first one warms the page cache
    const Clock::time_point start = Clock::now();
    const media::Table table = media::read_delimited(file, {.threads = threads});
    const double read_seconds = seconds_since(start);
    if (cut_windows(table, window, stride, threads) == 0) throw DataError("the file has no whole window: " + file);
    if (repeat < 0) continue;
    rates.push_back(megabytes / seconds_since(start));
    read_rates.push_back(megabytes / read_seconds);
  }
  const std::string name = fmt::format("text/threads{}", threads);
  print_measurement(name, "MB/s", rates);
  print_measurement(name + "/reading", "MB/s", read_rates);
  return 0;
}

// Reading, filtering, cutting and the spectra of sensor recordings: what happens before a net sees them.
int bench_sensors(int argc, char** argv) {
  std::string data_dir;
  int threads = 2;
  programs::Cli cli("mmtrain_bench sensors", "Recordings of sensors: files to scaled spectra of windows.");
  cli.add("data_dir", data_dir, "folder of recordings");
  cli.add("threads", threads, "threads");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (data_dir.empty()) throw ConfigError("--data_dir DIR is needed: a folder of recordings");
  std::vector<double> rates;
  for (int repeat = -1; repeat < kRepeats; ++repeat) {  // the first one warms the page cache
    const Clock::time_point start = Clock::now();
    const datasets::SensorData data = datasets::read_sensor_folders({data_dir}, {.threads = threads});
    const datasets::SensorFeatures features(data.num_channels(), data.window_rows, data.rate);
    std::vector<std::int64_t> all(data.windows.size());
    std::iota(all.begin(), all.end(), 0);
    datasets::SensorStatistics::of(data, all, features, threads);
    if (repeat >= 0) rates.push_back(static_cast<double>(data.windows.size()) / seconds_since(start));
  }
  print_measurement(fmt::format("sensors/threads{}", threads), "windows/s", rates);
  return 0;
}

// ---- step: a whole training step on data in memory

struct StepOptions : programs::TrainingOptions {
  std::string model = "residual", memory_format = "channels_last";
  double width = 1.0, seconds = 10;
  std::int64_t d_model = 0, num_heads = 0, num_layers = 0, d_ff = 0;
  int threads = 2;
  bool dropout = true;

  StepOptions() {
    optimizer = "sgd";
    lr = 1e-3;
    weight_decay = 1e-4;
    batch_size = 0;
  }
};

// The nets of the library and those of the Python benchmarks, by one name table.
bench::BenchModel make_step_model(const StepOptions& options) {
  const auto& names = bench::bench_model_names();
  if (std::find(names.begin(), names.end(), options.model) != names.end()) {
    return bench::make_bench_model(options.model, options.dropout);
  }
  ModelOptions net{.width = options.width, .image_size = programs::kImageSize, .dropout = options.dropout};
  net.d_model = options.d_model;
  net.num_heads = options.num_heads;
  net.num_layers = options.num_layers;
  net.d_ff = options.d_ff;
  return bench::make_library_model(options.model, net);
}

std::vector<std::string> step_model_names() {
  std::vector<std::string> names = model_names();
  names.insert(names.end(), bench::bench_model_names().begin(), bench::bench_model_names().end());
  return names;
}

void declare_net(programs::Cli& cli, StepOptions& options) {
  cli.add_choice("model", options.model, step_model_names(), "net");
  cli.add("width", options.width, "factor on the channel counts of the library's nets");
  cli.add("d_model", options.d_model, "features of the nets for sensors and emotion, 0: the reference");
  cli.add("num_heads", options.num_heads, "attention heads of these, 0: the reference");
  cli.add("num_layers", options.num_layers, "encoder layers of these, 0: the reference");
  cli.add("d_ff", options.d_ff, "hidden features of their feed-forward parts, 0: the reference");
}

// Times of the parts of one step, in seconds.
struct StepTimes {
  double forward, backward, optimizer;
};

StepTimes time_parts(Model& model, torch::optim::Optimizer& optimizer, const amp::MixedPrecision& precision,
                     const Loss& loss, const Batch& batch) {
  const Clock::time_point start = Clock::now();
  torch::Tensor mean;
  {
    const amp::Autocast autocast(torch::kCPU, precision.autocast ? precision.dtype : torch::kBFloat16,
                                 precision.autocast);
    const LossValue value = loss(model.forward(batch.inputs), batch);
    mean = value.sum / value.weight;
  }
  const double forward = seconds_since(start);
  mean.backward();
  const double backward = seconds_since(start) - forward;
  optimizer.step();
  optimizer.zero_grad();
  return {forward, backward, seconds_since(start) - forward - backward};
}

int bench_step(int argc, char** argv) {
  StepOptions options;
  programs::Cli cli("mmtrain_bench step", "Samples per second of a whole training step on random data in memory.");
  declare_net(cli, options);
  cli.add("batch_size", options.batch_size, "rows of a batch, 0: the net's usual number");
  cli.add("threads", options.threads, "threads an operator may use");
  cli.add_choice("optimizer", options.optimizer, {"sgd", "adam", "adamw"}, "optimizer");
  cli.add_choice("amp", options.amp, {"off", "fp16", "bf16"}, "mixed precision");
  cli.add("dropout", options.dropout, "dropout at its places");
  cli.add_choice("memory_format", options.memory_format, {"channels_last", "contiguous"}, "memory format of the net");
  cli.add("seconds", options.seconds, "length of the measurement in seconds");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;

  apply_runtime({.threads = options.threads});
  seed_all(0);
  const bench::BenchModel net = make_step_model(options);
  Model& model = *net.model;
  const auto optimizer = programs::make_optimizer(model.module(), options);
  const bool channels_last = options.memory_format == "channels_last";
  const amp::MixedPrecision precision = amp::decide_precision(amp::parse_precision(options.amp), torch::kCPU);
  TrainStep step(net.model, optimizer, cross_entropy_loss(), {.channels_last = channels_last, .precision = precision});
  model.module().train();
  if (options.batch_size == 0) options.batch_size = net.batch_size;
  Batch batch = bench::make_bench_batch(net, options.batch_size, /*seed=*/0);
  for (auto& input : batch.inputs) {
    torch::Tensor& tensor = input.value();
    if (channels_last && tensor.dim() == 4) tensor = tensor.contiguous(torch::MemoryFormat::ChannelsLast);
  }

  for (int k = 0; k < 2; ++k) step.run(batch);
  std::vector<double> rates, forward, backward, update;
  const Clock::time_point begin = Clock::now();
  while (rates.size() < 3 || seconds_since(begin) < options.seconds) {
    const Clock::time_point start = Clock::now();
    step.run(batch);
    rates.push_back(static_cast<double>(options.batch_size) / seconds_since(start));
    const StepTimes times = time_parts(model, *optimizer, precision, cross_entropy_loss(), batch);
    forward.push_back(1e3 * times.forward);
    backward.push_back(1e3 * times.backward);
    update.push_back(1e3 * times.optimizer);
  }
  const std::string name =
      fmt::format("step/{}/width{}/batch{}/{}/{}/amp_{}/threads{}", options.model, options.width, options.batch_size,
                  options.optimizer, options.memory_format, options.amp, options.threads);
  print_measurement(name, "samples/s", rates);
  print_measurement(name + "/forward", "ms", forward);
  print_measurement(name + "/backward", "ms", backward);
  print_measurement(name + "/optimizer", "ms", update);
  const MemoryStats memory = memory_stats(torch::kCPU);
  print_measurement(name + "/peak_memory", "MiB", {static_cast<double>(memory.peak_allocated) / (1 << 20)});
  return 0;
}

// ---- scaling: training steps of several replicas at once

struct ScalingOptions : StepOptions {
  int threads_per_replica = 1;
};

int bench_scaling(int argc, char** argv) {
  ScalingOptions options;
  options.replicas = 2;
  programs::Cli cli("mmtrain_bench scaling", "Samples per second of training steps, all replicas together.");
  declare_net(cli, options);
  cli.add("batch_size", options.batch_size, "rows of each replica's batch, 0: the net's usual number");
  cli.add("replicas", options.replicas, "replicas on the CPU; 1: one device, without ranks");
  cli.add("threads_per_replica", options.threads_per_replica, "threads an operator of a replica may use");
  cli.add("seconds", options.seconds, "length of the measurement in seconds");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (options.replicas < 1) throw ConfigError("--replicas must be positive");

  apply_runtime({.threads = options.threads_per_replica});
  std::shared_ptr<parallel::Strategy> strategy = std::make_shared<parallel::SingleDevice>(torch::kCPU);
  if (options.replicas > 1) {
    strategy =
        std::make_shared<parallel::ReplicaStrategy>(parallel::cpu_replicas(static_cast<std::size_t>(options.replicas)),
                                                    parallel::GroupOptions{}, options.threads_per_replica);
  }
  struct Replica {
    bench::BenchModel net;
    std::unique_ptr<TrainStep> step;
    Batch batch;
  };
  std::vector<Replica> replicas(static_cast<std::size_t>(options.replicas));
  seed_all(0);
  for (Replica& replica : replicas) replica.net = make_step_model(options);
  if (options.batch_size == 0) options.batch_size = replicas[0].net.batch_size;
  options.weight_decay = 0;
  strategy->run([&](std::size_t i) {
    Replica& replica = replicas[i];
    replica.batch = bench::make_bench_batch(replica.net, options.batch_size, /*seed=*/i);
    const auto optimizer = programs::make_optimizer(replica.net.model->module(), options);
    replica.step =
        std::make_unique<TrainStep>(replica.net.model, optimizer, cross_entropy_loss(),
                                    TrainStepOptions{.channels_last = true, .group = strategy->ranks()[i].group});
    replica.net.model->module().train();
  });
  const auto step = [&] { strategy->run([&](std::size_t i) { replicas[i].step->run(replicas[i].batch); }); };
  for (int k = 0; k < 3; ++k) step();
  std::vector<double> rates;
  const Clock::time_point begin = Clock::now();
  while (rates.size() < 3 || seconds_since(begin) < options.seconds) {
    const Clock::time_point start = Clock::now();
    step();
    rates.push_back(static_cast<double>(options.replicas * options.batch_size) / seconds_since(start));
  }
  print_measurement(fmt::format("scaling/{}/width{}/batch{}/replicas{}/threads{}", options.model, options.width,
                                options.batch_size, options.replicas, options.threads_per_replica),
                    "samples/s", rates);
  return 0;
}

int run(int argc, char** argv) {
  // Stdout is for measurements alone.
  log::set_sink([](log::Level, std::string_view text) { fmt::print(stderr, "{}\n", text); });
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "images") return bench_images(argc - 1, argv + 1);
  if (what == "clips") return bench_clips(argc - 1, argv + 1);
  if (what == "mel") return bench_mel(argc - 1, argv + 1);
  if (what == "text") return bench_text(argc - 1, argv + 1);
  if (what == "video") return bench_video(argc - 1, argv + 1);
  if (what == "sensors") return bench_sensors(argc - 1, argv + 1);
  if (what == "step") return bench_step(argc - 1, argv + 1);
  if (what == "scaling") return bench_scaling(argc - 1, argv + 1);
  if (what == "--help" || what == "-h") {
    std::puts(
        "mmtrain_bench images|clips|mel|video|text|sensors|step|scaling [options]\n"
        "  (mmtrain_bench WHAT --help lists the options of one)");
    return 0;
  }
  throw ConfigError(fmt::format(
      "the first argument says what to measure: images, clips, mel, video, text, sensors, step or scaling; got '{}'",
      what));
}

}  // namespace

int main(int argc, char** argv) {
  return programs::run_program([&](mmtrain::OutOfMemoryContext&) { return run(argc, argv); });
}
