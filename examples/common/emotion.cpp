#include "common/emotion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <mmtrain/datasets/generate_emotion.h>
#include <mmtrain/datasets/iemocap.h>
#include <mmtrain/datasets/meld.h>
#include <mmtrain/mmtrain.h>
#include <mmtrain/models/emotion.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>

#include "common/predictor.h"

namespace programs {
namespace {

using namespace mmtrain;

struct Options : TrainingOptions {
  EmotionModelOptions model;
  std::string dataset = "MELD", augment = "standard", log_dir;
  double lr_visual = 3e-4, lr_audio = 3e-4, lr_fusion = 3e-3;
  std::vector<std::int64_t> gpu_ids;
  bool use_multi_gpu = true, auto_scale_lr = false, early_stopping = false, shuffle_labels = false;
  std::int64_t test_session = 5;

  explicit Options(const EmotionProgram& program) {
    output_dir = program.output_dir;
    log_dir = program.log_dir;
    batch_size = program.batch_size;
    num_workers = program.num_workers;
    use_multi_gpu = program.use_multi_gpu;
    epochs = 100;
    lr = lr_fusion;
    weight_decay = 1e-4;
    grad_clip = 1;
    scheduler = "cosine";
    save_freq = 5;
    early_stopping_patience = 15;
    workers_shared = true;
  }

  void declare(Cli& cli) {
    cli.add_choice("dataset", dataset, {"MELD", "IEMOCAP"}, "layout of the data");
    cli.add("test_session", test_session, "IEMOCAP: session that is tested on, 1..5; the one before it validates");
    model.declare(cli);
    cli.add_choice("augment", augment, {"standard", "none"},
                   "changes of training clips: crop, flip, color, loudness, shift and gaps of the sound; none");
    cli.add("lr_visual", lr_visual, "learning rate of the visual encoder");
    cli.add("lr_audio", lr_audio, "learning rate of the audio encoder");
    cli.add("lr_fusion", lr_fusion, "learning rate of fusion and classifier");
    cli.add("auto_scale_lr", auto_scale_lr, "learning rates times the number of devices");
    cli.add("gpu_ids", gpu_ids, "GPUs to train on, e.g. 0 1 2; none: as --device says");
    cli.add("use_multi_gpu", use_multi_gpu, "use all GPUs if there are several");
    cli.add("early_stopping", early_stopping, "stop after --early_stopping_patience epochs without improvement");
    cli.add("log_dir", log_dir, "directory that gets a second copy of the TensorBoard events");
    cli.add("shuffle_labels", shuffle_labels, "train on labels in random order: a control, which has to end at chance");
    TrainingOptions::declare(cli);
    cli.add_alias("save_dir", "output_dir", output_dir);
  }

  // What follows from several options together.
  void settle(const Cli& cli) {
    for (const auto& [flag, value] :
         {std::pair("lr_visual", &lr_visual), std::pair("lr_audio", &lr_audio), std::pair("lr_fusion", &lr_fusion)}) {
      if (cli.given("lr") && !cli.given(flag)) *value = lr;
      if (!(*value > 0) || std::isinf(*value)) {
        throw ConfigError(fmt::format("--{} must be positive and finite, got {}", flag, *value));
      }
    }
    lr = lr_fusion;
    if (!early_stopping && !cli.on_command_line("early_stopping_patience")) early_stopping_patience = 0;
    if (name.empty()) name = dataset;
    if (cli.on_command_line("gpu_ids") && cli.on_command_line("device") && device != "auto" && device != gpu_spec()) {
      throw ConfigError(fmt::format("--gpu_ids {} and --device {} contradict each other: take one of the two",
                                    fmt::join(gpu_ids, " "), device));
    }
    validate();
  }

  std::string gpu_spec() const { return fmt::format("cuda:{}", fmt::join(gpu_ids, ",")); }

  // GPUs named on the command line are a demand; those of a file, and several at all, are wishes.
  void settle_devices(const Cli& cli) {
    if (cli.on_command_line("gpu_ids") && !gpu_ids.empty()) {
      device = gpu_spec();
      return;
    }
    if (device != "auto") return;
    std::string wish;
    if (!gpu_ids.empty())
      wish = fmt::format("GPUs {}", fmt::join(gpu_ids, ", "));
    else if (cli.given("use_multi_gpu") && use_multi_gpu)
      wish = "several GPUs";
    const int there = cuda_device_count();
    const int wanted = gpu_ids.empty() ? 2 : 1;
    const bool all =
        std::all_of(gpu_ids.begin(), gpu_ids.end(), [&](std::int64_t id) { return 0 <= id && id < there; });
    if (!wish.empty() && (!all || there < wanted)) {
      const std::string reason = there == 0 ? cuda_unavailable_reason() : fmt::format("this machine has {}", there);
      log::warning(fmt::format("{} were wished for, but {}: {} is used", wish, reason,
                               there == 0 ? "the CPU" : "what there is"));
      gpu_ids.clear();
    }
    if (!gpu_ids.empty()) {
      device = gpu_spec();
    } else if (!use_multi_gpu && there > 1) {
      device = "cuda:0";
    }
    device_is_wish = true;
  }

  // A checkpoint says what its net is and what it is given; flags may still say otherwise.
  void take_model_of_evaluated(const Cli& cli) {
    if (evaluate.empty() || !std::filesystem::is_directory(evaluate)) return;
    const EmotionModelOptions trained = EmotionModelOptions::from(load_trained(evaluate).config);
    const auto take = [&](const char* flag, auto& value, const auto& of_checkpoint) {
      if (!cli.given(flag)) value = of_checkpoint;
    };
    take("fusion_type", model.fusion_type, trained.fusion_type);
    take("modality", model.modality, trained.modality);
    take("d_model", model.d_model, trained.d_model);
    take("n_heads", model.n_heads, trained.n_heads);
    take("width", model.width, trained.width);
    take("frames", model.frames, trained.frames);
    take("image_size", model.image_size, trained.image_size);
    take("mel_frames", model.mel_frames, trained.mel_frames);
    take("max_seconds", model.max_seconds, trained.max_seconds);
  }

  // Encoders and the rest, of what there is.
  void set_groups(std::int64_t ranks) {
    const double factor = auto_scale_lr ? static_cast<double>(ranks) : 1.0;
    groups.clear();
    if (model.visual()) groups.push_back({.prefix = "visual_encoder.", .lr = factor * lr_visual, .name = "visual"});
    if (model.audio()) groups.push_back({.prefix = "audio_encoder.", .lr = factor * lr_audio, .name = "audio"});
    groups.push_back({.prefix = "", .lr = factor * lr_fusion, .name = "fusion"});
    lr = factor * lr_fusion;
    if (factor > 1) {
      log::info(fmt::format("Learning rates times {}: visual {:g}, audio {:g}, fusion {:g}", ranks, factor * lr_visual,
                            factor * lr_audio, factor * lr_fusion));
    }
  }
};

// No data given: generated clips, made once, and defaults that show a result within five minutes.
void use_demo_data(Options& options, const Cli& cli, const parallel::Strategy& strategy) {
  options.data_dir = "demo_data/emotion";
  if (strategy.is_main() && !datasets::is_meld(options.data_dir)) {
    log::info("No --data_dir: making demo clips in " + options.data_dir);
    datasets::generate_emotion(options.data_dir, {.seed = 0});
  }
  parallel::ProcessGroup processes = strategy.processes();
  processes.barrier();  // the others wait for them
  const auto use = [&](const char* flag, auto& value, auto demo) {
    if (!cli.given(flag)) value = demo;
  };
  use("epochs", options.epochs, 25);
  use("batch_size", options.batch_size, 8);
  use("num_workers", options.num_workers, 2);
  use("image_size", options.model.image_size, 64);
  use("mel_frames", options.model.mel_frames, 160);
  use("d_model", options.model.d_model, 128);
  use("width", options.model.width, 0.5);
  use("lr_visual", options.lr_visual, 1e-3);
  use("lr_audio", options.lr_audio, 1e-3);
  use("lr_fusion", options.lr_fusion, 1e-3);
  log::info(
      fmt::format("Demo data and defaults: --epochs {} --batch_size {} --image_size {} --mel_frames {} --d_model {} "
                  "--width {} --lr_visual {} --lr_audio {} --lr_fusion {}",
                  options.epochs, options.batch_size, options.model.image_size, options.model.mel_frames,
                  options.model.d_model, options.model.width, options.lr_visual, options.lr_audio, options.lr_fusion));
}

// The same clips with labels in random order: what a net learns from them is nothing.
class ShuffledLabels final : public Dataset {
 public:
  ShuffledLabels(std::shared_ptr<const Dataset> data, std::uint64_t seed) : data_(std::move(data)) {
    const std::vector<std::int64_t> labels = data_->labels();
    for (const std::int64_t index : RandomSampler(data_->size(), seed).indices(0)) {
      labels_.push_back(labels[static_cast<std::size_t>(index)]);
    }
  }
  DatasetSpec spec() const override { return data_->spec(); }
  std::int64_t size() const override { return data_->size(); }
  void write(std::int64_t index, SampleSlot& slot) const override {
    data_->write(index, slot);
    slot.target<std::int64_t>()[0] = labels_[static_cast<std::size_t>(index)];
  }
  std::string sample_name(std::int64_t index) const override { return data_->sample_name(index); }
  std::vector<std::string> class_names() const override { return data_->class_names(); }
  std::vector<std::int64_t> labels() const override { return labels_; }

 private:
  std::shared_ptr<const Dataset> data_;
  std::vector<std::int64_t> labels_;
};

std::shared_ptr<const Dataset> open_split(const Options& options, const std::string& split) {
  const bool training = split == "train";
  datasets::ClipDatasetOptions transform = clip_transform(options.model, training && options.augment == "standard");
  const datasets::ClipCacheOptions cache{options.cache, options.num_workers};
  std::shared_ptr<const Dataset> data;
  if (options.dataset == "IEMOCAP") {
    data = datasets::iemocap(options.data_dir, split, {.test_session = static_cast<int>(options.test_session)},
                             std::move(transform), options.model.clips(), cache);
  } else {
    data = datasets::meld(options.data_dir, split, std::move(transform), options.model.clips(), cache);
  }
  require_readable(data, split);
  if (training && options.shuffle_labels) return std::make_shared<ShuffledLabels>(std::move(data), options.seed);
  return data;
}

}  // namespace

void EmotionModelOptions::declare(Cli& cli) {
  cli.add_choice("fusion_type", fusion_type, {"attention", "cross_attention", "concat", "transformer"},
                 "how sight and sound meet");
  cli.add_choice("modality", modality, {"both", "visual", "audio"}, "what the net is given");
  cli.add("d_model", d_model, "features of each modality");
  cli.add("n_heads", n_heads, "heads of attention");
  cli.add("dropout", dropout, "dropout of the classifier");
  cli.add("width", width, "factor on the channels of the convolutions, 1: the reference");
  cli.add("frames", frames, "pictures of a clip, spread evenly");
  cli.add("image_size", image_size, "height and width of the pictures, pixels");
  cli.add("mel_frames", mel_frames, "length of the spectrogram in frames of 10 ms; clips are cut or filled up to it");
  cli.add("max_seconds", max_seconds, "seconds of a clip that are looked at; long ones are cut");
}

EmotionModelOptions EmotionModelOptions::from(const Config& config) {
  EmotionModelOptions options;
  const auto whole = [&](const char* key, auto& value) {
    value = static_cast<std::remove_reference_t<decltype(value)>>(config.get<std::int64_t>(key).value_or(value));
  };
  options.fusion_type = config.get<std::string>("fusion_type").value_or(options.fusion_type);
  options.modality = config.get<std::string>("modality").value_or(options.modality);
  whole("d_model", options.d_model);
  whole("n_heads", options.n_heads);
  whole("frames", options.frames);
  whole("image_size", options.image_size);
  whole("mel_frames", options.mel_frames);
  options.dropout = config.get<double>("dropout").value_or(options.dropout);
  options.width = config.get<double>("width").value_or(options.width);
  options.max_seconds = config.get<double>("max_seconds").value_or(options.max_seconds);
  return options;
}

datasets::ClipOptions EmotionModelOptions::clips() const {
  return {.frames = frames, .image_size = image_size, .mel_frames = mel_frames, .max_seconds = max_seconds};
}

datasets::ClipDatasetOptions clip_transform(const EmotionModelOptions& options, bool augmented) {
  datasets::ClipDatasetOptions result{.visual = options.visual(), .audio = options.audio()};
  if (!augmented) return result;
  const int size = options.image_size, frames = options.mel_frames;
  result.image = media::ImageTransform({media::RandomResizedCrop{size, size, {0.7, 1.0}}, media::RandomHorizontalFlip{},
                                        media::ColorJitter{0.2, 0.2, 0.2, 0.05}, media::Normalize{}});
  result.mel = {.time_shift = frames / 16, .gain = 2, .time_mask = frames / 20, .frequency_mask = 6};
  return result;
}

std::shared_ptr<Model> make_emotion_model(const EmotionModelOptions& options, std::int64_t classes) {
  return models::as_model(
      models::EmotionRecognizer(models::EmotionOptions{.num_emotions = classes,
                                                       .d_model = options.d_model,
                                                       .n_heads = options.n_heads,
                                                       .fusion = models::parse_fusion(options.fusion_type),
                                                       .modality = models::parse_modality(options.modality),
                                                       .dropout = options.dropout,
                                                       .width = options.width}));
}

int train_emotion(int argc, char** argv, const EmotionProgram& program, OutOfMemoryContext& memory) {
  Options options(program);
  Cli cli(program.name, program.description);
  options.declare(cli);
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  options.settle(cli);
  if (options.quiet) log::set_level(log::Level::warning);
  if (const std::optional<int> done = launch_ranks(options, argc, argv)) return *done;

  options.settle_devices(cli);
  const auto strategy = make_strategy(options);
  const torch::Device device = strategy->ranks()[0].device;
  if (options.data_dir.empty()) use_demo_data(options, cli, *strategy);
  options.take_model_of_evaluated(cli);
  memory = {.device = device,
            .batch_size = options.batch_size,
            .flags = {"--batch_size", "--accumulation_steps", "--amp", "--num_workers"}};
  seed_all(options.seed);
  apply_runtime({.deterministic = options.deterministic});

  // One after the other, so that the first thing wrong is the first thing said.
  const std::shared_ptr<const Dataset> train_set = open_split(options, "train"), val_set = open_split(options, "dev"),
                                       test_set = open_split(options, "test");
  const Loaders loaders = make_loaders(options, *strategy, train_set, val_set, test_set);
  const auto classes = static_cast<std::int64_t>(loaders.train->dataset().class_names().size());
  const auto build = [&] { return make_emotion_model(options.model, classes); };
  if (options.summary) {
    print_summary(build()->module());
    return 0;
  }
  if (!options.evaluate.empty()) return evaluate(options, build(), loaders.tested(), device);

  const Config config = cli.values();
  const RunPlan plan = plan_run(options, config, *strategy);
  if (plan.finished) return strategy->is_main() ? print_result(*plan.finished) : 0;
  std::optional<log::File> log_file;
  if (strategy->is_main()) log_file.emplace(plan.run_dir / "training.log");
  options.set_groups(strategy->world_size());

  const RankFactory make_parts = [&, first = true](torch::Device on) mutable {
    const std::shared_ptr<Model> model = build();
    if (std::exchange(first, false)) {
      if (!options.pretrained.empty()) {
        load_pretrained(model->module(), options.pretrained);
      } else if (options.model.visual() && !plan.checkpoint) {
        log::warning("the visual encoder begins with random weights; --pretrained FILE takes torchvision's resnet18");
      }
      print_setup(options, config, loaders, model->module(), *strategy);
    }
    return make_rank(options, model, on, loaders.train->size());
  };
  const Loss loss = make_loss(options, class_counts(loaders.train->dataset()));
  Trainer trainer(strategy, make_parts, loss, trainer_options(options, plan, config, program.name));
  trainer.add(std::make_shared<ConsoleLogger>(options.print_every, /*f1=*/true));
  trainer.add(std::make_shared<CsvLogger>());
  trainer.add(std::make_shared<TensorBoardLogger>(options.log_dir.empty() ? std::filesystem::path()
                                                                          : std::filesystem::path(options.log_dir) /
                                                                                plan.run_dir.filename()));
  trainer.add(std::make_shared<ReportCallback>());
  return run_training(trainer, plan, loaders, *strategy);
}

}  // namespace programs
