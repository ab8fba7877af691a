// Trains nets on recordings of body-worn sensors, compares them and reports.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <mmtrain/mmtrain.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>
#include <ranges>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "common/behavior.h"
#include "common/behavior_report.h"
#include "common/cli.h"
#include "common/gpu_check.h"
#include "common/program.h"
#include "common/training.h"

namespace {

namespace fs = std::filesystem;
using namespace mmtrain;
using programs::ModelResult;

constexpr const char* kProgram = "run_behavior_classification";
constexpr std::int64_t kCpuBatch = 32, kQuickEpochs = 5, kQuickWindows = 400;
constexpr double kDualLr = 3e-4, kQuickLr = 1e-3;

struct Options : programs::TrainingOptions {
  programs::BehaviorModelOptions model;
  bool full_pipeline = false, quick_start = false, test_gpu = false;
  std::vector<std::string> models{"cnn", "transformer", "fusion"}, feature_types{"stft", "time_series"}, classes;
  std::string data_glob, events, split_by = "file", eval_set = "val", merge_strategy = "link",
                                 matmul_precision = "auto";
  double test_size = 0.2, val_size = 0.15, window_seconds = 5, overlap = 0.5, fs = 0, gpu_memory_fraction = 0;
  std::int64_t cv_folds = 0, gpu_id = -1, device_id = -1, device_count = 0, max_file_mb = 256;
  bool augmentation = true, clean = true, use_class_weights = true, shuffle_labels = false;
  bool gpu = true, multi_gpu = false, mixed_precision = false, persistent_workers = true, tf32 = true,
       cudnn_benchmark = true;

  Options() {
    output_dir = ".";
    epochs = 100;
    batch_size = kCpuBatch;
    num_workers = static_cast<int>(std::max(1U, std::thread::hardware_concurrency() / 2));
    lr = 1e-4;
    optimizer = "adamw";
    weight_decay = 1e-2;
    grad_clip = 1;
    scheduler = "warmup_cosine";
    early_stopping_patience = 15;
    focal_gamma = 2;
  }

  void declare(programs::Cli& cli) {
    cli.add("full_pipeline", full_pipeline, "prepare the data, train all models, compare and report (the default)");
    cli.add("quick_start", quick_start, "the cnn alone, 5 epochs on some of the windows: a first try under a minute");
    cli.add("test_gpu", test_gpu, "check devices, mixed precision, compiled steps, loader and replicas, and end");
    cli.add("models", models, "nets to train: cnn, transformer, fusion, dual");
    model.declare(cli);
    cli.add("data_glob", data_glob,
            "folders of recordings by pattern, e.g. \"./*_data\"; beside or instead of --data_dir");
    cli.add("merge_strategy", merge_strategy, "copy or link, as in older configurations: nothing is copied any more");
    cli.add_optional("event_config", events, "auto",
                     "label by an event file; without a path: the events_config.json of each folder");
    cli.add("classes", classes, "classes by index; none: rest, chew, cough, swallow, or those of the data");
    cli.add("split_by", split_by, "what a split never parts: file, person or window (which leaks)");
    cli.add("test_size", test_size, "share of the windows that is tested on");
    cli.add("val_size", val_size, "share that chooses the best epoch; 0: the test split does, which flatters");
    cli.add("cv_folds", cv_folds, "folds of a cross-validation, as many as people: leave one out each; 0: none");
    cli.add_choice("eval_set", eval_set, {"val", "all"},
                   "what the final report is on: the held-out split, or all windows");
    cli.add("window_seconds", window_seconds, "length of a window, seconds");
    cli.add("overlap", overlap, "share of a window that the next one has too");
    cli.add("fs", fs, "samples a second that recordings are brought to, 0: 100 for text, their own for CSV");
    cli.add("max_file_mb", max_file_mb, "of a larger recording only the beginning is read, MB");
    cli.add("clean", clean, "filter power line, drift and noise out of text recordings");
    cli.add("feature_types", feature_types, "what nets are given: stft, mfcc, time_series");
    cli.add("augmentation", augmentation, "shift, scale, noise and gaps in training windows");
    cli.add("use_class_weights", use_class_weights, "weigh rare classes more in the loss");
    cli.add("focal_gamma", focal_gamma, "focal loss of this gamma is added to the cross entropy, 0: none");
    cli.add("shuffle_labels", shuffle_labels, "train on labels in random order: a control, which has to end at chance");
    cli.add("gpu", gpu, "use a GPU if there is one; --no-gpu: the CPU");
    cli.add("gpu_id", gpu_id, "train on this GPU");
    cli.add("device_id", device_id, "GPU to prefer if it is there");
    cli.add("multi_gpu", multi_gpu, "train on all GPUs if there are several; else the one with most free memory");
    cli.add("device_count", device_count, "with --multi_gpu so many of the GPUs, 0: all");
    cli.add("gpu_memory_fraction", gpu_memory_fraction, "most of a GPU's memory that is taken, 0: all");
    cli.add("mixed_precision", mixed_precision, "the same as --amp auto");
    cli.add("drop_last", drop_last, "leave out the last training batch of an epoch if it is shorter");
    cli.add("pin_memory", pin_memory, "batches in page-locked memory where there is a GPU");
    cli.add("prefetch_factor", prefetch_factor, "batches per worker read ahead");
    cli.add("persistent_workers", persistent_workers, "workers stay from epoch to epoch, which they always do here");
    cli.add("enable_tf32", tf32, "TF32 on GPUs of capability 8 and above");
    cli.add("cudnn_benchmark", cudnn_benchmark, "let cuDNN time its algorithms");
    cli.add_choice("matmul_precision", matmul_precision, {"auto", "highest", "high", "medium"},
                   "precision of float32 products");
    TrainingOptions::declare(cli);
    // The guide's names in configuration files.
    for (const auto& [key, name] : {std::pair("learning_rate", "lr"),
                                    {"num_epochs", "epochs"},
                                    {"model_types", "models"},
                                    {"patience", "early_stopping_patience"},
                                    {"k_folds", "cv_folds"},
                                    {"use_gpu", "gpu"},
                                    {"gradient_accumulation_steps", "accumulation_steps"},
                                    {"gradient_clip_norm", "grad_clip"},
                                    {"dataloader_params.pin_memory", "pin_memory"},
                                    {"dataloader_params.persistent_workers", "persistent_workers"},
                                    {"dataloader_params.prefetch_factor", "prefetch_factor"},
                                    {"dataloader_params.drop_last", "drop_last"},
                                    {"transformer_params.d_model", "d_model"},
                                    {"transformer_params.num_heads", "num_heads"},
                                    {"transformer_params.num_layers", "num_layers"},
                                    {"data_params.window_size", "window_seconds"},
                                    {"data_params.overlap", "overlap"},
                                    {"data_params.fs", "fs"},
                                    {"training_params.optimizer", "optimizer"},
                                    {"training_params.gradient_clip_norm", "grad_clip"},
                                    {"training_params.weight_decay", "weight_decay"},
                                    {"training_params.focal_loss_gamma", "focal_gamma"},
                                    {"gpu_params.enable_tf32", "enable_tf32"},
                                    {"gpu_params.cudnn_benchmark", "cudnn_benchmark"},
                                    {"gpu_params.matmul_precision", "matmul_precision"}}) {
      cli.add_key(key, name);
    }
    cli.add_key("dataloader_params.num_workers", "num_workers", "auto_half_cores");
    cli.add_key("training_params.scheduler", "scheduler", "cosine_annealing");  // that is what the default is
  }

  // What follows from several options together.
  void settle(const programs::Cli& cli) {
    if (full_pipeline && quick_start) throw ConfigError("--full-pipeline and --quick-start exclude each other");
    if (quick_start) {
      // The flag wins over a file that says otherwise.
      const auto said = [&](const char* flag) {
        return cli.on_command_line("quick_start") ? cli.on_command_line(flag) : cli.given(flag);
      };
      if (!said("models")) models = {"cnn"};
      if (!said("epochs")) epochs = kQuickEpochs;
      if (!said("lr")) lr = kQuickLr;
    }
    if (std::set<std::string>(models.begin(), models.end()).size() < models.size()) {
      throw ConfigError("--models names a model twice");
    }
    if (shuffle_labels && cv_folds > 0) throw ConfigError("--shuffle_labels and --cv_folds exclude each other");
    if (models.empty()) throw ConfigError("--models needs at least one of cnn, transformer, fusion, dual");
    const std::vector<std::string> known = model_names(ModelFamily::behavior);
    for (const std::string& name : models) require_word("models", name, known);
    for (const std::string& name : feature_types) require_word("feature_types", name, {"stft", "mfcc", "time_series"});
    for (const std::string& name : models) require_features(name);
    datasets::parse_split(split_by);
    if (merge_strategy != "copy") require_word("merge_strategy", merge_strategy, {"link", "copy"});
    use_amp |= mixed_precision;
    if (!cli.given("class_weights")) class_weights = use_class_weights && !weighted_sampling ? "balanced" : "none";
    if (cli.given("use_class_weights") && use_class_weights && weighted_sampling) {
      log::warning("classes are weighted in the loss and in sampling: rare ones count twice");
      class_weights = "balanced";
    }
    constexpr std::int64_t kMostMegabytes = 1 << 20;
    if (max_file_mb < 1 || max_file_mb > kMostMegabytes) {
      throw ConfigError(fmt::format("--max_file_mb must be between 1 and {}, got {}", kMostMegabytes, max_file_mb));
    }
    if (device_count < 0) throw ConfigError(fmt::format("--device_count must not be negative, got {}", device_count));
    if (cv_folds < 0 || cv_folds == 1)
      throw ConfigError(fmt::format("--cv_folds must be 0 or at least 2, got {}", cv_folds));
    if (gpu_memory_fraction < 0 || gpu_memory_fraction > 1) {
      throw ConfigError(fmt::format("--gpu_memory_fraction must be between 0 and 1, got {}", gpu_memory_fraction));
    }
    if (prefetch_factor < 1)
      throw ConfigError(fmt::format("--prefetch_factor must be positive, got {}", prefetch_factor));
    workers_shared = true;
    validate();
  }

  // A GPU by number and --no-gpu on the command line are demands; what a file says of devices are wishes.
  void settle_device(const programs::Cli& cli) {
    const bool no_gpu = cli.on_command_line("gpu") && !gpu, by_id = cli.on_command_line("gpu_id") && gpu_id >= 0;
    const bool by_device = cli.on_command_line("device") && device != "auto";
    const std::string id_spec = fmt::format("cuda:{}", gpu_id);
    if (no_gpu && (by_id || (by_device && device != "cpu"))) {
      throw ConfigError("--no-gpu contradicts the GPU that is named: take one of the two");
    }
    if (by_id && by_device && device != id_spec && !(gpu_id == 0 && device == "cuda")) {
      throw ConfigError(
          fmt::format("--gpu-id {} and --device {} contradict each other: take one of the two", gpu_id, device));
    }
    if (no_gpu) device = "cpu";
    if (by_id) device = id_spec;
    if (device != "auto") return;
    const std::int64_t wish = gpu_id >= 0 ? gpu_id : device_id;
    const int there = cuda_device_count();
    device_is_wish = true;
    if (!gpu || replicas > 1 || nproc > 1) {
      device = "cpu";
    } else if (wish >= there && cli.given("device_id")) {
      log::warning(fmt::format("GPU {} was wished for, but {}", wish,
                               there == 0 ? cuda_unavailable_reason() + ": the CPU is used"
                                          : fmt::format("there are {}: the best of them is used", there)));
    } else if (wish >= 0 && wish < there && !multi_gpu) {
      device = fmt::format("cuda:{}", wish);
    }
    const auto taken = device_count > 0 ? static_cast<int>(std::min<std::int64_t>(device_count, there)) : there;
    if (multi_gpu && taken > 1) {  // "auto" is all of them
      if (taken < there) device = fmt::format("cuda:{}", fmt::join(std::views::iota(0, taken), ","));
      return;
    }
    if (multi_gpu && there < 2)
      log::warning("several GPUs were wished for, and there is " + std::string(there == 0 ? "none" : "one"));
    if (device == "auto") device = best_device().str();
  }

  // By the memory of the device, as the guide has it.
  void settle_batch(const programs::Cli& cli, torch::Device on) {
    if (cli.given("batch_size") || on.is_cpu()) return;
    const double gigabytes = static_cast<double>(memory_stats(on).total) / 1e9;
    batch_size = gigabytes < 8 ? 8 : gigabytes < 16 ? 32 : 64;
    log::info(fmt::format("Batch size {} by the device's {:.0f} GB", batch_size, gigabytes));
  }

  bool has_feature(const std::string& name) const {
    return std::find(feature_types.begin(), feature_types.end(), name) != feature_types.end();
  }
  bool has_spectrum() const { return has_feature("stft") || has_feature("mfcc"); }

 private:
  static void require_word(const char* flag, const std::string& word, const std::vector<std::string>& words) {
    if (std::find(words.begin(), words.end(), word) != words.end()) return;
    throw ConfigError(fmt::format("--{} knows {}, not '{}': did you mean '{}'?", flag, fmt::join(words, ", "), word,
                                  nearest_name(word, words)));
  }

  void require_features(const std::string& net) const {
    if (programs::reads_series(net) && !has_feature("time_series")) {
      throw ConfigError(fmt::format("the net {} reads the series: add time_series to --feature_types", net));
    }
    if (programs::reads_spectrum(net) && !has_spectrum()) {
      throw ConfigError(fmt::format("the net {} reads a spectrum: add stft or mfcc to --feature_types", net));
    }
  }
};

// No data given: generated recordings, made once, and defaults that show a result within minutes.
void use_demo_data(Options& options, const programs::Cli& cli, const parallel::Strategy& strategy) {
  options.data_dir = "demo_data/behavior";
  if (strategy.is_main() && !fs::exists(options.data_dir)) {
    log::info("No --data_dir: making demo recordings in " + options.data_dir);
    datasets::generate_behavior(options.data_dir);
  }
  parallel::ProcessGroup processes = strategy.processes();
  processes.barrier();  // the others wait for them
  const auto use = [&](const char* flag, auto& value, auto demo) {
    if (!cli.given(flag)) value = demo;
  };
  if (!options.quick_start) use("epochs", options.epochs, 12);
  use("lr", options.lr, 1e-3);
  use("d_model", options.model.d_model, 64);
  use("num_layers", options.model.num_layers, 2);
  use("d_ff", options.model.d_ff, 256);
  if (!options.quick_start) use("cnn_width", options.model.cnn_width, 0.25);  // the cnn alone is fast as it is
  use("split_by", options.split_by, "person");
  log::info(
      fmt::format("Demo data and defaults: --epochs {} --lr {} --d_model {} --num_layers {} --d_ff {} --cnn_width {} "
                  "--split_by {}",
                  options.epochs, options.lr, options.model.d_model, options.model.num_layers, options.model.d_ff,
                  options.model.cnn_width, options.split_by));
}

// What is said of the data before there is a run directory, and so a log file.
class DataNotes {
 public:
  void info(std::string text) {
    log::info(text);
    lines_.emplace_back(&log::info, std::move(text));
  }
  void warning(std::string text) {
    log::warning(text);
    lines_.emplace_back(&log::warning, std::move(text));
  }
  // Into the log file alone, which is open by now.
  void repeat(log::Level console) const {
    log::set_level(log::Level::error);
    for (const auto& [say, text] : lines_) say(text);
    log::set_level(console);
  }

 private:
  std::vector<std::pair<void (*)(std::string_view), std::string>> lines_;
};

// All recordings of the given folders, with what was left out said.
std::shared_ptr<datasets::SensorData> read_data(const Options& options, DataNotes& notes) {
  std::vector<fs::path> folders;
  if (!options.data_dir.empty()) folders.emplace_back(options.data_dir);
  if (!options.data_glob.empty()) {
    for (fs::path& folder : datasets::glob_folders(options.data_glob)) folders.push_back(std::move(folder));
  }
  const auto start = std::chrono::steady_clock::now();
  auto data = std::make_shared<datasets::SensorData>(datasets::read_sensor_folders(
      folders, {.window_seconds = options.window_seconds,
                .overlap = options.overlap,
                .rate = options.fs,
                .cleaning = options.clean ? datasets::Cleaning::automatic : datasets::Cleaning::off,
                .events = options.events,
                .class_names = options.classes,
                .max_file_bytes = static_cast<std::uintmax_t>(options.max_file_mb) << 20,
                .threads = options.num_workers > 0 ? options.num_workers : 1}));
  constexpr std::size_t kNamed = 30;
  for (std::size_t k = 0; k < std::min(kNamed, data->problems.size()); ++k) {
    notes.warning(fmt::format("{}: {}", data->problems[k].path, data->problems[k].reason));
  }
  if (data->problems.size() > kNamed) notes.warning(fmt::format("... and {} more", data->problems.size() - kNamed));
  notes.info(
      fmt::format("Data: {} recordings, {} windows of {} rows at {:.1f} Hz, {} channels; {} files and {} malformed "
                  "lines left out; read in {:.2f} s",
                  data->recordings.size(), data->windows.size(), data->window_rows, data->rate, data->num_channels(),
                  data->skipped_files, data->malformed_lines,
                  std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()));
  if (data->without_notch > 0) {
    notes.info(fmt::format("No notch at 50 Hz in {} recordings: some {:.1f} samples a second do not hold it",
                           data->without_notch, data->file_rate));
  }
  return data;
}

// Some of the windows, of all recordings alike.
void keep_some(datasets::SensorData& data, std::int64_t wanted) {
  const auto all = static_cast<std::int64_t>(data.windows.size());
  if (all <= wanted) return;
  std::vector<datasets::SensorWindow> kept;
  for (std::int64_t k = 0; k < wanted; ++k) kept.push_back(data.windows[static_cast<std::size_t>(k * all / wanted)]);
  data.windows = std::move(kept);
  log::info(fmt::format("Quick start: {} of {} windows", wanted, all));
}

// Labels of these windows in random order: what a net learns from them is nothing.
void shuffle_labels(datasets::SensorData& data, const std::vector<std::int64_t>& windows, std::uint64_t seed) {
  std::vector<std::int64_t> labels;
  for (const std::int64_t index : windows) labels.push_back(data.windows[static_cast<std::size_t>(index)].label);
  const std::vector<std::int64_t> order = RandomSampler(static_cast<std::int64_t>(windows.size()), seed).indices(0);
  for (std::size_t k = 0; k < windows.size(); ++k) {
    data.windows[static_cast<std::size_t>(windows[k])].label = labels[static_cast<std::size_t>(order[k])];
  }
}

// Writes the memory of each device after each epoch.
class MemoryLines final : public Callback {
 public:
  void on_epoch_end(const EpochRecord& record) override {
    for (const EpochRecord::DeviceMemory& device : record.memory) {
      log::info(fmt::format("Memory of {}: {} allocated, {} reserved, {} at most, {} of {} free", device.device,
                            format_bytes(device.memory.allocated), format_bytes(device.memory.reserved),
                            format_bytes(device.memory.peak_allocated), format_bytes(device.memory.free),
                            format_bytes(device.memory.total)));
    }
  }
};

std::string timestamp() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y%m%d_%H%M%S", &local);
  return text.data();
}

// The newest run of this name that `accept` takes, or none.
std::optional<fs::path> newest_run(const Options& options, bool finished) {
  const std::string prefix = options.name.empty() ? "training_results_" : options.name;
  std::optional<fs::path> newest;
  fs::file_time_type latest;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(options.output_dir, error)) {
    const std::string name = entry.path().filename().string();
    const bool ours = options.name.empty() ? name.starts_with(prefix) : is_run_of(name, prefix);
    if (!ours || !fs::exists(entry.path() / "config.json") || fs::exists(entry.path() / "result.json") != finished)
      continue;
    const fs::file_time_type time = fs::last_write_time(entry.path() / "config.json");
    if (newest && time <= latest) continue;
    newest = entry.path();
    latest = time;
  }
  return newest;
}

// The directory of the whole run, which holds those of the models.
programs::RunPlan plan_pipeline(const Options& options, const Config& config, const parallel::Strategy& strategy) {
  programs::RunPlan plan;
  if (strategy.is_main()) {
    std::optional<fs::path> taken_up;
    if (options.resume == "auto") {
      taken_up = newest_run(options, /*finished=*/false);
      if (!taken_up) taken_up = newest_run(options, /*finished=*/true);
    } else if (!options.resume.empty()) {
      taken_up = fs::weakly_canonical(options.resume);
      if (!fs::exists(*taken_up / "config.json")) {
        throw DataError(fmt::format("--resume {}: there is no run", options.resume));
      }
    }
    if (taken_up) {
      programs::require_same_config(*taken_up, config);
      const auto before = Config::load(*taken_up / "config.json").get<std::int64_t>("epochs").value_or(0);
      if (fs::exists(*taken_up / "result.json") && before >= options.epochs) {
        plan.finished = Config::load(*taken_up / "result.json").dump(-1);
      } else {
        reopen_run(*taken_up);
        log::info("Resuming " + taken_up->string());
      }
      plan.run_dir = *taken_up;
    } else {
      plan.run_dir = create_run_directory(options.output_dir,
                                          options.name.empty() ? "training_results_" + timestamp() : options.name);
    }
    if (!plan.finished) plan.lock = programs::claim_run(plan.run_dir, config);
  }
  return programs::shared_plan(std::move(plan), strategy);
}

// Where one training of the run writes, and what it goes on from.
programs::RunPlan plan_part(const fs::path& directory, const Config& config, const parallel::Strategy& strategy) {
  programs::RunPlan plan{directory, {}, {}, {}};
  if (strategy.is_main()) {
    fs::create_directories(directory);
    recover_directory(directory / "checkpoints" / "last");
    if (fs::exists(directory / "checkpoints" / "last" / "state.json"))
      plan.checkpoint = directory / "checkpoints" / "last";
    write_file_atomic(directory / "config.json", config.dump() + "\n");
  }
  return programs::shared_plan(std::move(plan), strategy);
}

// Everything that trainings share.
class Pipeline {
 public:
  Pipeline(const Options& options, const Config& config, std::shared_ptr<parallel::Strategy> strategy,
           std::shared_ptr<const datasets::SensorData> data, fs::path run_dir = {})
      : options_(options),
        config_(config),
        strategy_(std::move(strategy)),
        data_(std::move(data)),
        run_dir_(std::move(run_dir)) {}

  int signal() const { return signal_; }

  // Trains `name` on a split and tests it; nothing if a signal came.
  std::optional<ModelResult> train(const std::string& name, const datasets::SensorSplit& split,
                                   const fs::path& directory, bool with_setup) {
    Options options = options_;
    if (name == "dual" && lr_by_model_) options.lr = kDualLr;
    const auto features = features_of(name);
    const datasets::SensorStatistics statistics =
        datasets::SensorStatistics::of(*data_, split.train, *features, threads());
    const programs::Loaders loaders = make_loaders(options, name, split, features, statistics);
    Config config = config_;
    config.set("model", name);
    const programs::RunPlan plan = plan_part(directory, config, *strategy_);
    const programs::Preparation preparation = preparation_of(*features, statistics);
    if (strategy_->is_main()) write_file_atomic(directory / "preparation.json", preparation.to_config().dump() + "\n");

    ModelResult result{.name = name};
    const RankFactory make_parts = [&, first = true](torch::Device on) mutable {
      const std::shared_ptr<Model> model = build(name);
      if (std::exchange(first, false)) {
        result.parameters = count_parameters(model->module());
        if (!options.pretrained.empty()) programs::load_pretrained(model->module(), options.pretrained);
        if (with_setup) programs::print_setup(options, config, loaders, model->module(), *strategy_);
      }
      return programs::make_rank(options, model, on, loaders.train->size());
    };
    Config about = config;  // with the weights, all that a prediction needs
    about.set("preparation", preparation.to_config());
    const TrainerOptions setup = programs::trainer_options(options, plan, about, kProgram);
    Trainer trainer(strategy_, make_parts, programs::make_loss(options, class_counts(loaders.train->dataset())), setup);
    trainer.add(std::make_shared<ConsoleLogger>(options.print_every, /*f1=*/true));
    trainer.add(std::make_shared<CsvLogger>());
    trainer.add(std::make_shared<TensorBoardLogger>());
    trainer.add(std::make_shared<ReportCallback>());
    trainer.add(std::make_shared<MemoryLines>());
    const auto start = std::chrono::steady_clock::now();
    programs::Outcome outcome = programs::train_and_test(trainer, plan, loaders, *strategy_);
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (outcome.fit.signal != 0) {
      signal_ = outcome.fit.signal;
      return std::nullopt;
    }
    result.fit = std::move(outcome.fit);
    result.test = std::move(outcome.test);
    result.line = std::move(outcome.result);
    result.report =
        options.eval_set == "all" ? trainer.evaluate(*everything(options, name, features, statistics)) : result.test;
    return result;
  }

  // Folds of the same kind as the split; the pooled confusion matrix is of all windows, each predicted once.
  bool cross_validate(ModelResult& result) {
    const datasets::SplitBy by = datasets::parse_split(options_.split_by);
    const std::vector<std::vector<std::int64_t>> folds =
        datasets::sensor_folds(*data_, by, options_.cv_folds, options_.seed);
    for (std::size_t k = 0; k < folds.size(); ++k) {
      datasets::SensorSplit split;
      split.test = folds[k];
      std::vector<std::int64_t> rest;
      for (std::size_t other = 0; other < folds.size(); ++other) {
        if (other != k) rest.insert(rest.end(), folds[other].begin(), folds[other].end());
      }
      std::tie(split.train, split.val) = datasets::split_off(*data_, rest, by, options_.val_size, options_.seed + k);
      log::info(fmt::format("Cross-validation of {}, fold {} of {}: {} windows trained on, {} tested ({})", result.name,
                            k + 1, folds.size(), split.train.size(), split.test.size(), groups_of(split.test)));
      const auto fold = train(result.name, split, run_dir_ / result.name / fmt::format("fold_{:02}", k + 1), false);
      if (!fold) return false;
      result.folds.push_back(fold->test);
    }
    return true;
  }

  void choose_lr_by_model(bool choose) { lr_by_model_ = choose; }

  std::shared_ptr<Model> build(const std::string& name) const {
    return programs::make_behavior_model(name, options_.model, data_->num_channels(), classes());
  }

  std::unique_ptr<DataLoader> test_loader(const std::string& name, const datasets::SensorSplit& split) const {
    const auto features = features_of(name);
    return std::move(make_loaders(options_, name, split, features,
                                  datasets::SensorStatistics::of(*data_, split.train, *features, threads()))
                         .test);
  }

 private:
  int threads() const { return std::max(1, options_.num_workers); }

  std::int64_t classes() const {
    const auto of_data = static_cast<std::int64_t>(data_->class_names.size());
    if (options_.num_classes != 0 && options_.num_classes != of_data) {
      throw ConfigError(fmt::format("--num_classes {}: the data has {} classes; leave the flag out to take these",
                                    options_.num_classes, of_data));
    }
    return of_data;
  }

  datasets::SensorFeatureOptions feature_options(const std::string& name) const {
    const bool spectrum = programs::reads_spectrum(name);
    return {.stft = spectrum && options_.has_feature("stft"), .mfcc = spectrum && options_.has_feature("mfcc")};
  }

  std::shared_ptr<const datasets::SensorFeatures> features_of(const std::string& name) const {
    return std::make_shared<datasets::SensorFeatures>(data_->num_channels(), data_->window_rows, data_->rate,
                                                      feature_options(name));
  }

  programs::Preparation preparation_of(const datasets::SensorFeatures& features,
                                       const datasets::SensorStatistics& statistics) const {
    return {.channels = data_->channels,
            .class_names = data_->class_names,
            .rate = data_->rate,
            .file_rate = data_->file_rate,
            .window_rows = data_->window_rows,
            .overlap = options_.overlap,
            .cleaned = data_->cleaned,
            .features = {.stft = features.bins() > 0 && options_.has_feature("stft"),
                         .mfcc = features.bins() > 0 && options_.has_feature("mfcc")},
            .statistics = statistics};
  }

  std::shared_ptr<const Dataset> dataset(const std::string& name, std::vector<std::int64_t> windows,
                                         const std::shared_ptr<const datasets::SensorFeatures>& features,
                                         const datasets::SensorStatistics& statistics, bool augment) const {
    return std::make_shared<datasets::SensorDataset>(
        data_, std::move(windows), features, statistics,
        datasets::SensorDatasetOptions{.series = programs::reads_series(name), .augment = augment});
  }

  programs::Loaders make_loaders(Options options, const std::string& name, const datasets::SensorSplit& split,
                                 const std::shared_ptr<const datasets::SensorFeatures>& features,
                                 const datasets::SensorStatistics& statistics) const {
    const auto rows = static_cast<std::int64_t>(split.train.size());
    if (options.drop_last && rows < options.batch_size * strategy_->world_size()) {
      log::warning(fmt::format("drop_last would leave nothing of {} training windows: it is off", rows));
      options.drop_last = false;
    }
    const auto test = dataset(name, split.test, features, statistics, false);
    const auto val = split.val.empty() ? test : dataset(name, split.val, features, statistics, false);
    return programs::make_loaders(options, *strategy_,
                                  dataset(name, split.train, features, statistics, options.augmentation), val, test);
  }

  std::unique_ptr<DataLoader> everything(const Options& options, const std::string& name,
                                         const std::shared_ptr<const datasets::SensorFeatures>& features,
                                         const datasets::SensorStatistics& statistics) const {
    std::vector<std::int64_t> all(data_->windows.size());
    std::iota(all.begin(), all.end(), 0);
    const auto whole = dataset(name, all, features, statistics, false);
    return std::move(programs::make_loaders(options, *strategy_, whole, whole).val);
  }

  // Whose windows these are, for a line of the log.
  std::string groups_of(const std::vector<std::int64_t>& windows) const {
    std::set<std::string> people;
    for (const std::int64_t index : windows) {
      const auto recording = static_cast<std::size_t>(data_->windows[static_cast<std::size_t>(index)].recording);
      people.insert(data_->recordings[recording].person);
    }
    return fmt::format("of {}", fmt::join(people, ", "));
  }

  const Options& options_;
  const Config& config_;
  std::shared_ptr<parallel::Strategy> strategy_;
  std::shared_ptr<const datasets::SensorData> data_;
  fs::path run_dir_;
  bool lr_by_model_ = false;
  int signal_ = 0;
};

// Best weights of a model beside the others of the run.
void copy_best(const fs::path& run_dir, const std::string& model) {
  const fs::path from = run_dir / model / "checkpoints" / "best" / "model.safetensors";
  const fs::path to = run_dir / fmt::format("best_{}_model.safetensors", model);
  const fs::path growing = to.string() + ".tmp";
  fs::copy_file(from, growing, fs::copy_options::overwrite_existing);
  fs::rename(growing, to);
}

void report_split(const datasets::SensorData& data, const datasets::SensorSplit& split, const Options& options,
                  DataNotes& notes) {
  if (options.split_by == "window") {
    notes.warning(
        "--split_by window: windows of one recording overlap, so the test has seen what was trained on; its "
        "accuracy says little about new recordings");
  }
  if (split.val.empty()) notes.warning("--val_size 0: the best epoch is chosen by the test split, which flatters it");
  for (const auto& [name, windows] : {std::pair("train", &split.train), {"val", &split.val}, {"test", &split.test}}) {
    std::set<std::string> people;
    std::set<std::int64_t> recordings;
    for (const std::int64_t index : *windows) {
      const std::int64_t recording = data.windows[static_cast<std::size_t>(index)].recording;
      recordings.insert(recording);
      people.insert(data.recordings[static_cast<std::size_t>(recording)].person);
    }
    notes.info(fmt::format("Split {}: {} windows of {} recordings, {} people: {}", name, windows->size(),
                           recordings.size(), people.size(), fmt::join(people, ", ")));
  }
}

int run(int argc, char** argv, OutOfMemoryContext& memory) {
  Options options;
  programs::Cli cli(kProgram, "Trains nets on recordings of body-worn sensors, compares them and reports.");
  options.declare(cli);
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  options.settle(cli);
  if (options.quiet) log::set_level(log::Level::warning);
  options.settle_device(cli);
  if (options.gpu_memory_fraction > 0 && options.device != "cpu") limit_cuda_memory(options.gpu_memory_fraction);
  if (options.test_gpu) {
    return programs::check_gpu({.device = options.device, .num_workers = options.num_workers});
  }
  if (const std::optional<int> done = programs::launch_ranks(options, argc, argv)) return *done;

  const auto start = std::chrono::steady_clock::now();
  const auto strategy = programs::make_strategy(options);
  const torch::Device device = strategy->ranks()[0].device;
  options.settle_batch(cli, device);
  if (options.data_dir.empty() && options.data_glob.empty()) use_demo_data(options, cli, *strategy);
  memory = {.device = device,
            .batch_size = options.batch_size,
            .flags = {"--batch_size", "--accumulation_steps", "--amp", "--num_workers"}};
  seed_all(options.seed);
  apply_runtime({.tf32 = options.tf32,
                 .matmul_precision = options.matmul_precision,
                 .cudnn_benchmark = options.cudnn_benchmark,
                 .deterministic = options.deterministic});

  DataNotes notes;
  const auto data = read_data(options, notes);
  if (options.quick_start) keep_some(*data, kQuickWindows);
  const datasets::SensorSplit split = datasets::split_windows(*data, {.by = datasets::parse_split(options.split_by),
                                                                      .test_size = options.test_size,
                                                                      .val_size = options.val_size,
                                                                      .seed = options.seed});
  report_split(*data, split, options, notes);
  // What cannot be parted so often fails here, not after the first training.
  if (options.cv_folds > 0) {
    datasets::sensor_folds(*data, datasets::parse_split(options.split_by), options.cv_folds, options.seed);
  }
  if (options.shuffle_labels) shuffle_labels(*data, split.train, options.seed);

  const Config config = cli.values();
  const Pipeline pipeline(options, config, strategy, data);
  if (options.summary) {
    programs::print_summary(pipeline.build(options.models.front())->module());
    return 0;
  }
  if (!options.evaluate.empty()) {
    const std::string& name = options.models.front();
    return programs::evaluate(options, pipeline.build(name), *pipeline.test_loader(name, split), device);
  }

  const programs::RunPlan plan = plan_pipeline(options, config, *strategy);
  if (plan.finished) return strategy->is_main() ? programs::print_result(*plan.finished) : 0;
  std::optional<log::File> log_file;
  if (strategy->is_main()) {
    log_file.emplace(plan.run_dir / "training.log");
    notes.repeat(options.quiet ? log::Level::warning : log::Level::info);
  }
  Pipeline trainings(options, config, strategy, data, plan.run_dir);
  trainings.choose_lr_by_model(!cli.given("lr") && !options.quick_start);

  std::vector<ModelResult> results;
  for (const std::string& name : options.models) {
    log::info(fmt::format("Model {} ({} of {})", name, results.size() + 1, options.models.size()));
    std::optional<ModelResult> result = trainings.train(name, split, plan.run_dir / name, /*with_setup=*/true);
    if (result && options.cv_folds > 0 && !trainings.cross_validate(*result)) result.reset();
    if (!result) {
      log::info(fmt::format("Go on with --resume {}", plan.run_dir.string()));
      return 128 + trainings.signal();
    }
    if (strategy->is_main()) copy_best(plan.run_dir, name);
    results.push_back(std::move(*result));
    empty_cache(device);
    const MemoryStats stats = memory_stats(device);
    log::info(fmt::format("Memory of {} after {}: {} allocated, {} reserved, {} at most", device.str(), name,
                          format_bytes(stats.allocated), format_bytes(stats.reserved),
                          format_bytes(stats.peak_allocated)));
  }
  if (!strategy->is_main()) return 0;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const std::string line = programs::report_models(plan.run_dir, results, *data, split, config, device, seconds);
  finish_run(plan.run_dir, line);
  return programs::print_result(line);
}

}  // namespace

int main(int argc, char** argv) {
  return programs::run_program([&](mmtrain::OutOfMemoryContext& memory) { return run(argc, argv, memory); });
}
