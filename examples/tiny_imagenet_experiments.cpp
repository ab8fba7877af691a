// Trains one net of the TinyImageNet study on images in TinyImageNet's layout.
#include <fmt/format.h>
#include <mmtrain/mmtrain.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "common/cli.h"
#include "common/images.h"
#include "common/program.h"
#include "common/training.h"

namespace {

using namespace mmtrain;

struct Options : programs::TrainingOptions {
  std::string model = "baseline", augment = "reference";
  double width = 1.0;
  bool mixup = false, cutmix = false;

  Options() {
    output_dir = "runs/tiny_imagenet_experiments";
    epochs = 50;
    weight_decay = 1e-6;
  }

  void declare(programs::Cli& cli) {
    cli.add_choice("model", model, model_names(ModelFamily::image), "net to train");
    cli.add("width", width, "factor on all channel counts, 1: the reference");
    cli.add_choice("augment", augment, {"reference", "resized_crop_flip", "crop_flip", "none"},
                   "training transform: random resized crop, flip and color jitter; without jitter (the default with "
                   "--mixup and --cutmix); padded crop and flip; none");
    cli.add("mixup", mixup, "mix images and targets of each batch (mixup, alpha 1)");
    cli.add("cutmix", cutmix, "paste parts of images into others of the batch (cutmix, alpha 1); with --mixup: either");
    TrainingOptions::declare(cli);
  }
};

// No data given: generated images, made once, and defaults that show a result within two minutes.
void use_demo_data(Options& options, const programs::Cli& cli, const parallel::Strategy& strategy) {
  options.data_dir = "demo_data/images";
  if (strategy.is_main() && !datasets::is_tiny_imagenet(options.data_dir)) {
    log::info("No --data_dir: making demo images in " + options.data_dir);
    datasets::generate_images(options.data_dir, {.seed = 0});
  }
  parallel::ProcessGroup processes = strategy.processes();
  processes.barrier();  // the others wait for them
  if (!cli.given("model")) options.model = "residual";
  if (!cli.given("width")) options.width = 0.25;
  if (!cli.given("epochs")) options.epochs = 15;
  if (!cli.given("batch_size")) options.batch_size = 32;
  if (!cli.given("lr")) options.lr = 1e-3;
  if (!cli.given("augment")) options.augment = "crop_flip";
  log::info(
      fmt::format("Demo data and defaults: --model {} --width {} --epochs {} --batch_size {} --lr {} --augment {}",
                  options.model, options.width, options.epochs, options.batch_size, options.lr, options.augment));
}

std::optional<MixOptions> mix_options(const Options& options, std::int64_t classes) {
  if (!options.mixup && !options.cutmix) return std::nullopt;
  const MixKind kind = !options.cutmix ? MixKind::mixup : !options.mixup ? MixKind::cutmix : MixKind::either;
  return MixOptions{.kind = kind, .num_classes = classes};
}

int train(int argc, char** argv, OutOfMemoryContext& memory) {
  Options options;
  programs::Cli cli("tiny_imagenet_experiments", "Trains one net of the TinyImageNet study.");
  options.declare(cli);
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  options.validate();
  if (!cli.given("augment") && (options.mixup || options.cutmix)) options.augment = "resized_crop_flip";
  if (options.quiet) log::set_level(log::Level::warning);
  if (const std::optional<int> done = programs::launch_ranks(options, argc, argv)) return *done;

  const auto strategy = programs::make_strategy(options);
  const torch::Device device = strategy->ranks()[0].device;
  if (options.data_dir.empty()) use_demo_data(options, cli, *strategy);
  if (options.name.empty()) options.name = options.model;
  memory = {.device = device,
            .batch_size = options.batch_size,
            .flags = {"--batch_size", "--accumulation_steps", "--amp", "--num_workers"}};
  seed_all(options.seed);
  apply_runtime({.deterministic = options.deterministic});

  const datasets::TinyImageNetOptions read{
      .image_size = programs::kImageSize, .cache = options.cache, .num_workers = options.num_workers};
  const auto train_set =
      datasets::tiny_imagenet(options.data_dir, "train", programs::image_transform(options.augment), read);
  const auto val_set = datasets::tiny_imagenet(options.data_dir, "val", programs::image_transform("none"), read);
  require_readable(train_set, "train");
  require_readable(val_set, "val");
  const programs::Loaders loaders = programs::make_loaders(options, *strategy, train_set, val_set);

  const auto classes = static_cast<std::int64_t>(loaders.train->dataset().class_names().size());
  const auto build = [&] {
    return make_model(options.model,
                      {.num_classes = classes, .width = options.width, .image_size = programs::kImageSize});
  };
  if (options.summary) {
    programs::print_summary(build()->module());
    return 0;
  }
  if (!options.evaluate.empty()) return programs::evaluate(options, build(), *loaders.val, device);

  const Config config = cli.values();
  const programs::RunPlan plan = programs::plan_run(options, config, *strategy);
  if (plan.finished) return strategy->is_main() ? programs::print_result(*plan.finished) : 0;
  std::optional<log::File> log_file;
  if (strategy->is_main()) log_file.emplace(plan.run_dir / "training.log");

  const RankFactory make_rank = [&, first = true](torch::Device on) mutable {
    const std::shared_ptr<Model> model = build();
    if (std::exchange(first, false)) {
      if (!options.pretrained.empty()) programs::load_pretrained(model->module(), options.pretrained);
      programs::print_setup(options, config, loaders, model->module(), *strategy);
    }
    return programs::make_rank(options, model, on, loaders.train->size());
  };
  TrainerOptions setup = programs::trainer_options(options, plan, config, "tiny_imagenet_experiments");
  setup.mix = mix_options(options, classes);
  Trainer trainer(strategy, make_rank, programs::make_loss(options), setup);
  trainer.add(std::make_shared<ConsoleLogger>(options.print_every));
  trainer.add(std::make_shared<CsvLogger>());
  trainer.add(std::make_shared<TensorBoardLogger>());
  trainer.add(std::make_shared<ReportCallback>());
  return programs::run_training(trainer, plan, loaders, *strategy);
}

}  // namespace

int main(int argc, char** argv) {
  return programs::run_program([&](mmtrain::OutOfMemoryContext& memory) { return train(argc, argv, memory); });
}
