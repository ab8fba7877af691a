// Makes learnable data in the exact layouts of the public data sets.
#include <fmt/format.h>
#include <mmtrain/core/error.h>
#include <mmtrain/core/log.h>
#include <mmtrain/datasets/generate_behavior.h>
#include <mmtrain/datasets/generate_emotion.h>
#include <mmtrain/datasets/generate_images.h>

#include <optional>
#include <string>

#include "common/cli.h"
#include "common/program.h"

namespace {

using namespace mmtrain;

struct Options {
  std::string out;
  std::uint64_t seed = 0;
  std::int64_t classes = 10, per_class = 100;
  bool quirks = false;
};

int make_images(int argc, char** argv) {
  Options options;
  programs::Cli cli("mmtrain_makedata images", "Images in TinyImageNet's layout: class = shape x texture.");
  cli.add("out", options.out, "directory to make");
  cli.add("seed", options.seed, "the same seed gives the same bytes");
  cli.add("classes", options.classes, "number of classes, at most 200");
  cli.add("per_class", options.per_class, "training images of a class; a fifth as many for validation");
  cli.add("quirks", options.quirks, "plant the faults of real collections: broken, empty, gray and stray files");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (options.out.empty()) throw ConfigError("--out DIR is needed: the directory to make");
  datasets::generate_images(options.out, {.seed = options.seed,
                                          .classes = static_cast<int>(options.classes),
                                          .per_class = static_cast<int>(options.per_class),
                                          .val_per_class = static_cast<int>(options.per_class / 5),
                                          .quirks = options.quirks});
  log::info(fmt::format("{} classes x {} images in {}", options.classes, options.per_class, options.out));
  return 0;
}

int make_behavior(int argc, char** argv) {
  std::string out;
  datasets::GenerateBehaviorOptions options;
  programs::Cli cli("mmtrain_makedata behavior",
                    "Recordings of ear and throat sensors: folders pK_data of text files.");
  cli.add("out", out, "directory to make");
  cli.add("seed", options.seed, "the same seed gives the same bytes");
  cli.add("people", options.people, "people, a folder each");
  cli.add("seconds", options.seconds, "length of a recording");
  cli.add("quirks", options.quirks, "plant the faults of real collections: GBK names, broken lines, dead channels");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (out.empty()) throw ConfigError("--out DIR is needed: the directory to make");
  const datasets::GeneratedBehavior made = datasets::generate_behavior(out, options);
  log::info(fmt::format("{} recordings of {} people in {}", made.recordings, options.people, out));
  return 0;
}

int make_emotion(int argc, char** argv) {
  std::string out;
  datasets::GenerateEmotionOptions options;
  programs::Cli cli("mmtrain_makedata emotion",
                    "Talking faces in MELD's layout: emotion = expression x tone of voice.");
  cli.add("out", out, "directory to make");
  cli.add("seed", options.seed, "the same seed gives the same bytes");
  cli.add("train", options.train, "training clips");
  cli.add("dev", options.dev, "validation clips");
  cli.add("test", options.test, "test clips");
  cli.add("quirks", options.quirks, "plant the faults of the real collection: broken, missing, silent, doubled clips");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (out.empty()) throw ConfigError("--out DIR is needed: the directory to make");
  const datasets::GeneratedEmotion made = datasets::generate_emotion(out, options);
  log::info(fmt::format("{} train, {} dev and {} test clips in {}", made.train, made.dev, made.test, out));
  return 0;
}

int run(int argc, char** argv) {
  const std::string kind = argc > 1 ? argv[1] : "";
  if (kind == "emotion") return make_emotion(argc - 1, argv + 1);
  if (kind == "behavior") return make_behavior(argc - 1, argv + 1);
  if (kind == "images") return make_images(argc - 1, argv + 1);
  if (kind == "--help" || kind == "-h") {
    log::info(
        "mmtrain_makedata emotion --out DIR [--seed N] [--train N] [--dev N] [--test N] [--quirks]\n"
        "mmtrain_makedata behavior --out DIR [--seed N] [--people N] [--seconds S] [--quirks]\n"
        "mmtrain_makedata images --out DIR [--seed N] [--classes K] [--per_class N] [--quirks]\n"
        "  (mmtrain_makedata KIND --help lists every flag)");
    return 0;
  }
  throw ConfigError(fmt::format("the first argument says what to make: emotion, behavior or images; got '{}'", kind));
}

}  // namespace

int main(int argc, char** argv) {
  return programs::run_program([&](mmtrain::OutOfMemoryContext&) { return run(argc, argv); });
}
