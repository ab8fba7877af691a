#include "mmtrain/datasets/generate_images.h"

#include <fmt/format.h>

#include <array>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/parallel_for.h"
#include "datasets/draw_image.h"
#include "datasets/new_directory.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/random.h"
#include "mmtrain/media/image.h"

namespace mmtrain::datasets {
namespace fs = std::filesystem;
namespace {

using detail::Box;

constexpr int kJpegQuality = 85;
constexpr double kGreyShare = 0.02;
constexpr int kMostPerClass = 1'000'000;

// Streams are named by split, class and number, so that an image does not depend on how many others there are.
enum class Split : std::uint64_t { train = 0, val = 1, order = 2 };

RandomStream stream(std::uint64_t seed, Split split, int kind, int number) {
  return RandomStream(seed, RandomDomain::generator, static_cast<std::uint64_t>(split),
                      (static_cast<std::uint64_t>(kind) << 32) | static_cast<std::uint64_t>(number));
}

void demand(bool holds, std::string_view option, int most, int value) {
  if (!holds) throw ConfigError(fmt::format("[generate_images] {} must be 1..{}, got {}", option, most, value));
}

void check(const GenerateImagesOptions& options) {
  const auto in_range = [](int value, int most) { return value >= 1 && value <= most; };
  demand(in_range(options.classes, detail::kDrawnClasses), "classes", detail::kDrawnClasses, options.classes);
  demand(in_range(options.per_class, kMostPerClass), "per_class", kMostPerClass, options.per_class);
  demand(in_range(options.val_per_class, kMostPerClass), "val_per_class", kMostPerClass, options.val_per_class);
}

void write_file(const fs::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) throw Error(fmt::format("[generate_images] cannot write '{}': is the disk full?", path.string()));
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string box_columns(const Box& box) {
  return fmt::format("\t{}\t{}\t{}\t{}\n", box.left, box.top, box.right, box.bottom);
}

// Writes the files of one data set into a directory.
class Generator {
 public:
  Generator(fs::path root, const GenerateImagesOptions& options) : root_(std::move(root)), options_(options) {
    for (int kind = 0; kind < options.classes; ++kind) {
      // Not in alphabetical order: the order of wnids.txt is what counts.
      wnids_.push_back(fmt::format("n{:08d}", 90'000'000 + kind * 61'803 % 100'000));
    }
    count_ = {.train = std::int64_t{options.classes} * options.per_class,
              .val = std::int64_t{options.classes} * options.val_per_class};
  }

  GeneratedImages run() {
    make_folders();
    write_classes();
    write_train();
    write_val();
    if (options_.quirks) plant_strays();
    return count_;
  }

 private:
  void make_folders() const;
  void write_classes() const;
  void write_train();
  void write_val();
  void plant_strays() const;
  void plant_bad_train(std::vector<std::string>& boxes);
  std::string train_name(int kind, int number) const;
  fs::path train_folder(int kind) const { return root_ / "train" / wnids_[static_cast<std::size_t>(kind)]; }
  std::string encoded(Split split, int kind, int number, Box& box) const;
  std::vector<int> val_order() const;

  const fs::path root_;
  const GenerateImagesOptions options_;
  std::vector<std::string> wnids_;
  GeneratedImages count_;
};

void Generator::make_folders() const {
  fs::create_directories(root_ / "val" / "images");
  for (int kind = 0; kind < options_.classes; ++kind) fs::create_directories(train_folder(kind) / "images");
}

void Generator::write_classes() const {
  std::string wnids, words;
  for (int kind = 0; kind < options_.classes; ++kind) {
    const std::string& wnid = wnids_[static_cast<std::size_t>(kind)];
    wnids += wnid + '\n';
    words += fmt::format("{}\t{}, generated\n", wnid, detail::drawn_class_name(kind));
  }
  write_file(root_ / "wnids.txt", wnids);
  write_file(root_ / "words.txt", words);
}

std::string Generator::train_name(int kind, int number) const {
  constexpr std::array<const char*, 4> kSpellings{"JPEG", "jpeg", "jpg", "JPG"};
  const bool other = options_.quirks && number < static_cast<int>(kSpellings.size());
  return fmt::format("{}_{}.{}", wnids_[static_cast<std::size_t>(kind)], number,
                     other ? kSpellings[static_cast<std::size_t>(number)] : "JPEG");
}

// The file of one image.
std::string Generator::encoded(Split split, int kind, int number, Box& box) const {
  RandomStream random = stream(options_.seed, split, kind, number);
  const bool grey = random.bernoulli(kGreyShare) || (options_.quirks && number == 0);
  const detail::Drawing drawing = detail::draw(detail::drawn_class(kind), random);
  box = drawing.box;
  return std::string(as_text(media::encode_jpeg(drawing.image.view(), kJpegQuality, grey)));
}

void Generator::write_train() {
  std::vector<Box> boxes(static_cast<std::size_t>(count_.train));
  mmtrain::detail::parallel_for(mmtrain::detail::machine_threads(), count_.train, [&](std::int64_t index) {
    const int kind = static_cast<int>(index / options_.per_class),
              number = static_cast<int>(index % options_.per_class);
    const std::string bytes = encoded(Split::train, kind, number, boxes[static_cast<std::size_t>(index)]);
    write_file(train_folder(kind) / "images" / train_name(kind, number), bytes);
  });
  std::vector<std::string> lists;
  for (int kind = 0; kind < options_.classes; ++kind) {
    std::string& list = lists.emplace_back();
    for (int number = 0; number < options_.per_class; ++number) {
      const auto index = static_cast<std::size_t>(kind) * static_cast<std::size_t>(options_.per_class) +
                         static_cast<std::size_t>(number);
      list += train_name(kind, number) + box_columns(boxes[index]);
    }
  }
  if (options_.quirks) plant_bad_train(lists);
  for (int kind = 0; kind < options_.classes; ++kind) {
    write_file(train_folder(kind) / fmt::format("{}_boxes.txt", wnids_[static_cast<std::size_t>(kind)]),
               lists[static_cast<std::size_t>(kind)]);
  }
}

// Adds one broken file of each sort behind the good ones of the first classes.
void Generator::plant_bad_train(std::vector<std::string>& boxes) {
  Box box;
  const std::string whole = encoded(Split::train, 0, options_.per_class, box);
  const std::array<std::string, 3> broken{whole.substr(0, whole.size() / 2), "",
                                          "This is a text file with the name of a picture.\n"};
  for (int sort = 0; sort < static_cast<int>(broken.size()); ++sort) {
    const int kind = sort % options_.classes, number = options_.per_class + sort / options_.classes;
    const std::string name = fmt::format("{}_{}.JPEG", wnids_[static_cast<std::size_t>(kind)], number);
    write_file(train_folder(kind) / "images" / name, broken[static_cast<std::size_t>(sort)]);
    boxes[static_cast<std::size_t>(kind)] += name + box_columns(box);
  }
  count_.bad_train = static_cast<std::int64_t>(broken.size());
  count_.train += count_.bad_train;
}

// Class of each validation image: mixed, as in the original.
std::vector<int> Generator::val_order() const {
  std::vector<int> order;
  for (std::int64_t index = 0; index < count_.val; ++index) {
    order.push_back(static_cast<int>(index / options_.val_per_class));
  }
  RandomStream random = stream(options_.seed, Split::order, 0, 0);
  for (std::size_t left = order.size(); left > 1; --left) {
    const auto pick = static_cast<std::size_t>(random.uniform_int(static_cast<std::int64_t>(left)));
    std::swap(order[left - 1], order[pick]);
  }
  return order;
}

void Generator::write_val() {
  const std::vector<int> order = val_order();
  std::vector<int> numbers(order.size()), used(static_cast<std::size_t>(options_.classes));
  for (std::size_t index = 0; index < order.size(); ++index) {
    numbers[index] = used[static_cast<std::size_t>(order[index])]++;
  }
  std::vector<Box> boxes(order.size());
  const auto file_of = [&](std::size_t index) { return fmt::format("val_{}.JPEG", index); };
  mmtrain::detail::parallel_for(mmtrain::detail::machine_threads(), count_.val, [&](std::int64_t position) {
    const auto index = static_cast<std::size_t>(position);
    const std::string bytes = encoded(Split::val, order[index], numbers[index], boxes[index]);
    write_file(root_ / "val" / "images" / file_of(index), bytes);
  });
  std::string annotations;
  const auto annotate = [&](const std::string& file, int kind, const Box& box) {
    annotations += fmt::format("{}\t{}{}", file, wnids_[static_cast<std::size_t>(kind)], box_columns(box));
    if (options_.quirks) annotations.insert(annotations.size() - 1, 1, '\r');
  };
  for (std::size_t index = 0; index < order.size(); ++index) annotate(file_of(index), order[index], boxes[index]);
  if (options_.quirks) {
    Box box;
    const std::string whole = encoded(Split::val, 0, options_.val_per_class, box), file = file_of(order.size());
    write_file(root_ / "val" / "images" / file, std::string_view(whole).substr(0, whole.size() / 2));
    annotate(file, 0, box);
    annotations.resize(annotations.size() - 2);
    count_.bad_val = 1;
    count_.val += count_.bad_val;
  }
  write_file(root_ / "val" / "val_annotations.txt", annotations);
}

// What finders, file managers and archivers leave behind.
void Generator::plant_strays() const {
  const fs::path images = train_folder(0) / "images";
  write_file(root_ / ".DS_Store", "Bud1");
  write_file(images / ".DS_Store", "Bud1");
  write_file(images / fmt::format("._{}", train_name(0, 0)), "Mac OS X");
  write_file(images / "Thumbs.db", "thumbs");
  write_file(images / "notes.txt", "not an image\n");
  write_file(root_ / "val" / "images" / ".DS_Store", "Bud1");
  write_file(root_ / "val" / "images" / "._val_0.JPEG", "Mac OS X");
}

}  // namespace

GeneratedImages generate_images(const fs::path& directory, const GenerateImagesOptions& options) {
  check(options);
  GeneratedImages made;
  detail::make_directory("generate_images", directory,
                         [&](const fs::path& growing) { made = Generator(growing, options).run(); });
  return made;
}

}  // namespace mmtrain::datasets
