#include <sys/stat.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "catch.h"
#include "data_fixtures.h"
#include "mmtrain/core/error.h"
#include "mmtrain/data/data_loader.h"
#include "mmtrain/data/decode_cache.h"
#include "mmtrain/datasets/generate_images.h"
#include "mmtrain/datasets/image_dataset.h"
#include "mmtrain/datasets/tiny_imagenet.h"
#include "mmtrain/media/image.h"

using namespace mmtrain;
using namespace mmtrain::datasets;
using Catch::Matchers::Contains;
using fixtures::LogCapture;
using fixtures::read_text;
using fixtures::TempDir;
using fixtures::write_text;
namespace fs = std::filesystem;

namespace {

// A JPEG of one color, nearly: `level` in red, its complement in blue.
std::string jpeg(int level, int height = 64, int width = 64, bool grey = false) {
  media::Image image{height, width, {}};
  for (int pixel = 0; pixel < height * width; ++pixel) {
    image.pixels.push_back(static_cast<std::uint8_t>(level));
    image.pixels.push_back(60);
    image.pixels.push_back(static_cast<std::uint8_t>(255 - level));
  }
  const auto bytes = media::encode_jpeg(image.view(), 95, grey);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Two classes, b before a, with three and two training images and three for validation.
void write_small_set(const fs::path& root) {
  write_text(root / "wnids.txt", "n02\nn01\n");
  write_text(root / "words.txt", "n01\tgoldfish, Carassius auratus\nn02\tstove\nn03\tunused\n");
  for (const int number : {10, 2, 0}) {
    write_text(root / "train/n02/images" / ("n02_" + std::to_string(number) + ".JPEG"), jpeg(10 * number));
  }
  write_text(root / "train/n02/n02_boxes.txt", "n02_0.JPEG\t0\t0\t62\t62\n");
  write_text(root / "train/n01/images/n01_0.JPEG", jpeg(200));
  write_text(root / "train/n01/images/n01_1.JPEG", jpeg(210));
  for (int number = 0; number < 3; ++number) {
    write_text(root / "val/images" / ("val_" + std::to_string(number) + ".JPEG"), jpeg(100 + number));
  }
  write_text(root / "val/val_annotations.txt",
             "val_2.JPEG\tn01\t0\t0\t62\t62\nval_0.JPEG\tn02\t0\t0\t62\t62\nval_1.JPEG\tn01\t0\t0\t62\t62\n");
}

std::vector<std::string> names(const SampleSource& source) {
  std::vector<std::string> result;
  for (std::int64_t index = 0; index < source.size(); ++index) {
    result.push_back(fs::path(source.sample_name(index)).filename().string());
  }
  return result;
}

std::vector<std::uint8_t> pixels(const SampleSource& source, std::int64_t index) {
  SampleSource::Scratch scratch;
  const auto image = source.read(index, scratch)[0];
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(image.data());
  return {bytes, bytes + image.size()};
}

// Every file below `root` with its bytes.
std::map<std::string, std::string> tree(const fs::path& root) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.is_regular_file()) files.emplace(fs::relative(entry.path(), root).string(), read_text(entry.path()));
  }
  return files;
}

std::vector<std::string> lines(const fs::path& path) {
  std::istringstream text(read_text(path));
  std::vector<std::string> result;
  for (std::string line; std::getline(text, line);) result.push_back(line);
  return result;
}

// Components in the frame header (SOF0) of a JPEG.
int components(const std::string& bytes) {
  const std::size_t frame = bytes.find("\xFF\xC0");
  REQUIRE(frame != bytes.npos);
  return bytes.at(frame + 9);
}

// All images of a split as rows of float `[N, 3*64*64]`, and their classes.
struct Table {
  torch::Tensor images, labels;
};

Table load_table(const fs::path& root, const std::string& split) {
  const auto data = tiny_imagenet(root, split, media::ImageTransform({media::Normalize{}}));
  DataLoader loader(data, std::make_shared<SequentialSampler>(data->size()), {.batch_size = data->size()});
  auto epoch = loader.epoch(0);
  Batch& batch = *epoch.begin();
  return {batch.input("image").flatten(1).clone(), batch.target.clone()};
}

double accuracy(const torch::Tensor& scores, const torch::Tensor& labels) {
  return scores.argmax(1).eq(labels).to(torch::kFloat64).mean().item<double>();
}

// Validation accuracy of the best of some ridge regressions from the columns of `train` to the classes.
double linear_accuracy(const Table& train, const Table& val) {
  const auto with_bias = [](const torch::Tensor& x) { return torch::cat({x, torch::ones({x.size(0), 1})}, 1); };
  const torch::Tensor x = with_bias(train.images), y = torch::one_hot(train.labels).to(torch::kFloat32);
  const torch::Tensor gram = x.mm(x.t());
  double best = 0;
  for (const double penalty : {1e0, 1e2, 1e3, 1e4, 1e5, 1e6}) {
    const torch::Tensor dual = torch::linalg_solve(gram + penalty * torch::eye(x.size(0)), y);
    best = std::max(best, accuracy(with_bias(val.images).mm(x.t().mm(dual)), val.labels));
  }
  return best;
}

}  // namespace

TEST_CASE("generated images have TinyImageNet's exact layout", "[datasets][generate]") {
  const TempDir dir;
  const fs::path root = dir.path() / "set";
  const GeneratedImages made = generate_images(root, {.classes = 4, .per_class = 5, .val_per_class = 3});
  CHECK(made.train == 20);
  CHECK(made.val == 12);
  CHECK(made.bad_train + made.bad_val == 0);
  CHECK(is_tiny_imagenet(root));

  const auto wnids = lines(root / "wnids.txt");
  REQUIRE(wnids.size() == 4);
  CHECK_FALSE(std::is_sorted(wnids.begin(), wnids.end()));
  CHECK(lines(root / "words.txt").size() == 4);
  for (const std::string& wnid : wnids) {
    CHECK(wnid.size() == 9);
    const auto boxes = lines(root / "train" / wnid / (wnid + "_boxes.txt"));
    REQUIRE(boxes.size() == 5);
    for (int number = 0; number < 5; ++number) {
      const std::string file = wnid + "_" + std::to_string(number) + ".JPEG";
      const media::Image image = media::read_image(root / "train" / wnid / "images" / file);
      CHECK((image.height == 64 && image.width == 64));
      std::istringstream box(boxes[static_cast<std::size_t>(number)]);
      std::string name;
      int left = 0, top = 0, right = 0, bottom = 0;
      box >> name >> left >> top >> right >> bottom;
      CHECK(name == file);
      CHECK((0 <= left && left + 10 < right && right < 64));
      CHECK((0 <= top && top + 5 < bottom && bottom < 64));
    }
  }
  const auto annotations = lines(root / "val" / "val_annotations.txt");
  REQUIRE(annotations.size() == 12);
  CHECK(annotations[7].starts_with("val_7.JPEG\tn9"));
  CHECK(std::count(annotations[7].begin(), annotations[7].end(), '\t') == 5);
  CHECK(tree(root).size() == 2 + 20 + 4 + 12 + 1);

  const TinyImageNetFiles train(root, "train"), val(root, "val");
  CHECK(train.wnids() == wnids);
  std::vector<int> counts(4);
  for (const std::int64_t label : val.labels()) ++counts.at(static_cast<std::size_t>(label));
  CHECK(counts == std::vector<int>{3, 3, 3, 3});
  CHECK_FALSE(std::is_sorted(val.labels().begin(), val.labels().end()));
}

TEST_CASE("generated files are the same, byte for byte, for the same seed", "[datasets][generate]") {
  const TempDir dir;
  const GenerateImagesOptions options{.seed = 5, .classes = 3, .per_class = 4, .val_per_class = 2, .quirks = true};
  generate_images(dir.path() / "a", options);
  generate_images(dir.path() / "b", options);
  CHECK(tree(dir.path() / "a") == tree(dir.path() / "b"));
  auto other = options;
  other.seed = 6;
  generate_images(dir.path() / "c", other);
  const auto a = tree(dir.path() / "a"), c = tree(dir.path() / "c");
  const std::string wnid = lines(dir.path() / "a" / "wnids.txt")[0];
  const std::string file = "train/" + wnid + "/images/" + wnid + "_0.JPEG";
  CHECK(a.at(file) != c.at(file));
}

TEST_CASE("a generated image does not depend on how many others there are", "[datasets][generate]") {
  const TempDir dir;
  generate_images(dir.path() / "few", {.classes = 2, .per_class = 2, .val_per_class = 1});
  generate_images(dir.path() / "many", {.classes = 5, .per_class = 6, .val_per_class = 2});
  const auto few = tree(dir.path() / "few" / "train"), many = tree(dir.path() / "many" / "train");
  int images = 0;
  for (const auto& [name, bytes] : few) {
    if (!name.ends_with(".JPEG")) continue;
    CHECK(many.at(name) == bytes);
    ++images;
  }
  CHECK(images == 4);
}

TEST_CASE("about two per cent of the generated images are grey", "[datasets][generate]") {
  const TempDir dir;
  generate_images(dir.path() / "set", {.classes = 10, .per_class = 150, .val_per_class = 1});
  int grey = 0;
  for (const auto& [name, bytes] : tree(dir.path() / "set" / "train")) {
    if (name.ends_with(".JPEG")) grey += components(bytes) == 1;
  }
  CHECK(grey > 10);
  CHECK(grey < 55);
}

TEST_CASE("all 200 generated classes are different and named", "[datasets][generate]") {
  const TempDir dir;
  generate_images(dir.path() / "set", {.classes = 200, .per_class = 1, .val_per_class = 1});
  const TinyImageNetFiles train(dir.path() / "set", "train");
  const auto class_names = train.class_names();
  CHECK(std::set<std::string>(class_names.begin(), class_names.end()).size() == 200);
  CHECK(std::set<std::string>(train.wnids().begin(), train.wnids().end()).size() == 200);
  CHECK(class_names[0] == "plain disc");
  CHECK_THAT(class_names[199], !Contains("("));  // no name had to be told apart by its wnid
}

TEST_CASE("neither mean colors nor a linear model tell generated classes apart", "[datasets][generate]") {
  const TempDir dir;
  generate_images(dir.path() / "set", {});
  const Table train = load_table(dir.path() / "set", "train"), val = load_table(dir.path() / "set", "val");
  REQUIRE(train.images.size(0) == 1000);
  REQUIRE(val.images.size(0) == 200);
  CHECK(linear_accuracy(train, val) < 0.3);
  const auto mean_color = [](const Table& table) {
    return Table{table.images.view({-1, 3, 64 * 64}).mean(2), table.labels};
  };
  CHECK(linear_accuracy(mean_color(train), mean_color(val)) < 0.25);
  // The measure itself can tell what is linear: the label drawn into a corner.
  const auto marked = [](Table table) {
    table.images.narrow(1, 0, 10).copy_(20 * torch::one_hot(table.labels, 10));
    return table;
  };
  CHECK(linear_accuracy(marked({train.images.clone(), train.labels}), marked({val.images.clone(), val.labels})) > 0.9);
}

TEST_CASE("planted faults are found, named and counted, and all else is read", "[datasets][generate]") {
  const TempDir dir;
  const int classes = GENERATE(1, 4);
  const fs::path root = dir.path() / "set";
  const GeneratedImages made =
      generate_images(root, {.classes = classes, .per_class = 6, .val_per_class = 4, .quirks = true});
  CHECK(made.train == 6 * classes + 3);
  CHECK(made.bad_train == 3);
  CHECK(made.val == 4 * classes + 1);
  CHECK(made.bad_val == 1);
  CHECK(fs::exists(root / ".DS_Store"));
  CHECK_FALSE(read_text(root / "val" / "val_annotations.txt").ends_with("\n"));
  CHECK_THAT(read_text(root / "val" / "val_annotations.txt"), Contains("\r\n"));

  const auto load = [&](const std::string& split, std::int64_t samples, std::int64_t bad) {
    const auto data = tiny_imagenet(root, split, media::ImageTransform({media::Normalize{}}));
    REQUIRE(data->size() == samples);
    DataLoader loader(data, std::make_shared<SequentialSampler>(samples),
                      {.batch_size = 4, .num_workers = 2, .bad_samples = BadSamplePolicy::skip});
    std::int64_t rows = 0;
    for (Batch& batch : loader.epoch(0)) rows += batch.size();
    CHECK(rows == samples - bad);
    CHECK(static_cast<std::int64_t>(loader.errors().size()) == bad);
    return loader.errors();
  };
  std::string reasons;
  for (const SampleError& error : load("train", made.train, made.bad_train)) {
    CHECK(fs::exists(error.path));
    reasons += error.reason + '\n';
  }
  CHECK_THAT(reasons, Contains("empty") && Contains("not an image"));
  load("val", made.val, made.bad_val);
}

TEST_CASE("the generator refuses what it cannot make, and leaves nothing behind", "[datasets][generate]") {
  const TempDir dir;
  CHECK_THROWS_AS(generate_images(dir.path() / "x", {.classes = 0}), ConfigError);
  CHECK_THROWS_WITH(generate_images(dir.path() / "x", {.classes = 201}), Contains("1..200") && Contains("201"));
  CHECK_THROWS_AS(generate_images(dir.path() / "x", {.per_class = 0}), ConfigError);
  CHECK_THROWS_AS(generate_images(dir.path() / "x", {.val_per_class = -1}), ConfigError);
  CHECK(fs::is_empty(dir.path()));
  write_text(dir.path() / "full" / "file", "mine");
  CHECK_THROWS_AS(generate_images(dir.path() / "full"), ConfigError);
  write_text(dir.path() / "file", "no directory");
  CHECK_THROWS_AS(generate_images(dir.path() / "file" / "set", {.classes = 1, .per_class = 1}), Error);
  fs::create_directories(dir.path() / "empty");
  generate_images(dir.path() / "empty/", {.classes = 1, .per_class = 1, .val_per_class = 1});
  CHECK(is_tiny_imagenet(dir.path() / "empty"));
  CHECK(std::distance(fs::directory_iterator(dir.path()), {}) == 3);
}

TEST_CASE("training images are listed by class in the order of wnids.txt, then by name", "[datasets][tiny]") {
  const TempDir dir;
  write_small_set(dir.path());
  const TinyImageNetFiles train(dir.path(), "train");
  CHECK(names(train) ==
        std::vector<std::string>{"n02_0.JPEG", "n02_10.JPEG", "n02_2.JPEG", "n01_0.JPEG", "n01_1.JPEG"});
  CHECK(train.labels() == std::vector<std::int64_t>{0, 0, 0, 1, 1});
  CHECK(train.class_names() == std::vector<std::string>{"stove", "goldfish"});
  CHECK(train.wnids() == std::vector<std::string>{"n02", "n01"});
  CHECK((train.spec() == std::vector<TensorSpec>{{"image", {64, 64, 3}, torch::kUInt8}}));
  const auto red = pixels(train, 1);
  REQUIRE(red.size() == 64 * 64 * 3);
  CHECK(std::abs(red[0] - 100) < 4);
  CHECK(std::abs(red[2] - 155) < 4);
}

TEST_CASE("validation labels come from the annotations, or from folders", "[datasets][tiny]") {
  const TempDir dir;
  write_small_set(dir.path());
  const auto check = [&](std::vector<std::string> files, std::vector<std::int64_t> labels) {
    const TinyImageNetFiles val(dir.path(), "val");
    CHECK(names(val) == files);
    CHECK(val.labels() == labels);
    CHECK(pixels(val, 0).size() == 64 * 64 * 3);
  };
  const fs::path annotations = dir.path() / "val" / "val_annotations.txt";
  SECTION("as published") { check({"val_2.JPEG", "val_0.JPEG", "val_1.JPEG"}, {1, 0, 1}); }
  SECTION("without the last line end, with CRLF, blank lines and blanks for tabs") {
    write_text(annotations, "\xEF\xBB\xBFval_2.JPEG\tn01\t0\t0\t1\t1\r\n\r\nval_0.JPEG n02  \r\n  \nval_1.JPEG\tn01");
    check({"val_2.JPEG", "val_0.JPEG", "val_1.JPEG"}, {1, 0, 1});
  }
  SECTION("one folder a class") {
    const bool deep = GENERATE(true, false), left_behind = GENERATE(true, false);
    const auto move = [&](const std::string& file, const std::string& wnid) {
      const fs::path folder = dir.path() / "val" / wnid / (deep ? "images" : "");
      fs::create_directories(folder);
      fs::rename(dir.path() / "val" / "images" / file, folder / file);
    };
    move("val_0.JPEG", "n02");
    move("val_1.JPEG", "n01");
    move("val_2.JPEG", "n01");
    if (!left_behind) {
      fs::remove(annotations);
      fs::remove(dir.path() / "val" / "images");
    }
    check({"val_0.JPEG", "val_1.JPEG", "val_2.JPEG"}, {0, 1, 1});
  }
}

TEST_CASE("extensions in any case are images, strays are not", "[datasets][tiny]") {
  const TempDir dir;
  write_small_set(dir.path());
  const fs::path folder = dir.path() / "train/n01/images";
  for (const char* name : {"a.jpg", "b.JPG", "c.Jpeg", "d.jpeg"}) write_text(folder / name, jpeg(5));
  for (const char* name : {".DS_Store", "._n01_0.JPEG", "Thumbs.db", "n01_boxes.txt", "JPEG", "x.png"}) {
    write_text(folder / name, "stray");
  }
  fs::create_directories(folder / "folder.JPEG");
  fs::create_symlink("n01_0.JPEG", folder / "link.JPEG");
  write_text(dir.path() / "train" / ".DS_Store", "stray");
  write_text(dir.path() / "val" / "images" / "._val_0.JPEG", "stray");
  const TinyImageNetFiles train(dir.path(), "train");
  const auto found = names(train);
  CHECK(std::vector<std::string>(found.begin() + 3, found.end()) ==
        std::vector<std::string>{"a.jpg", "b.JPG", "c.Jpeg", "d.jpeg", "link.JPEG", "n01_0.JPEG", "n01_1.JPEG"});
  CHECK(pixels(train, 7) == pixels(train, 8));
  const LogCapture log;
  CHECK(TinyImageNetFiles(dir.path(), "val").size() == 3);
  CHECK(log.text().empty());
}

TEST_CASE("grey images are spread over three channels, other sizes are resized", "[datasets][tiny]") {
  const TempDir dir;
  write_small_set(dir.path());
  write_text(dir.path() / "train/n02/images/n02_0.JPEG", jpeg(100, 64, 64, true));
  write_text(dir.path() / "train/n02/images/n02_10.JPEG", jpeg(180, 48, 100));
  const TinyImageNetFiles train(dir.path(), "train"), small(dir.path(), "train", 32);
  const auto grey = pixels(train, 0);
  for (std::size_t pixel = 0; pixel < 64 * 64; ++pixel) {
    REQUIRE((grey[3 * pixel] == grey[3 * pixel + 1] && grey[3 * pixel] == grey[3 * pixel + 2]));
  }
  for (const TinyImageNetFiles* source : {&train, &small}) {
    const auto resized = pixels(*source, 1);
    CHECK(static_cast<std::int64_t>(resized.size()) == source->spec()[0].numel());
    for (std::size_t k = 0; k < resized.size(); k += 3) REQUIRE(std::abs(resized[k] - 180) < 4);
  }
  // Memory left by a larger image must not show.
  SampleSource::Scratch scratch;
  train.read(1, scratch);
  const auto after = train.read(2, scratch)[0];
  CHECK(after.size() == 64 * 64 * 3);
  const auto alone = pixels(train, 2);
  CHECK(std::equal(after.begin(), after.end(), std::as_bytes(std::span(alone)).begin()));
}

TEST_CASE("the directory may be the set itself or the one that holds it", "[datasets][tiny]") {
  const TempDir dir;
  CHECK_FALSE(is_tiny_imagenet(dir.path()));
  CHECK_FALSE(is_tiny_imagenet(dir.path() / "missing"));
  write_small_set(dir.path() / "tiny-imagenet-200");
  CHECK(is_tiny_imagenet(dir.path()));
  CHECK(is_tiny_imagenet(dir.path() / "tiny-imagenet-200"));
  CHECK(TinyImageNetFiles(dir.path(), "train").root() == dir.path() / "tiny-imagenet-200");
  CHECK(TinyImageNetFiles(dir.path(), "val").size() == 3);
}

TEST_CASE("without wnids.txt the training folders are the classes", "[datasets][tiny]") {
  const TempDir dir;
  write_small_set(dir.path());
  fs::remove(dir.path() / "wnids.txt");
  fs::remove(dir.path() / "words.txt");
  const LogCapture log;
  const TinyImageNetFiles train(dir.path(), "train"), val(dir.path(), "val");
  CHECK_THAT(log.text(), Contains("wnids.txt' is missing"));
  CHECK(train.class_names() == std::vector<std::string>{"n01", "n02"});
  CHECK(train.labels() == std::vector<std::int64_t>{0, 0, 1, 1, 1});
  CHECK(val.labels() == std::vector<std::int64_t>{0, 1, 0});
}

TEST_CASE("classes without images and folders that are no class are mentioned", "[datasets][tiny]") {
  const TempDir dir;
  write_small_set(dir.path());
  write_text(dir.path() / "wnids.txt", "n02\r\nn77\r\n\r\n");
  const LogCapture log;
  const TinyImageNetFiles train(dir.path(), "train");
  CHECK(train.size() == 3);
  CHECK_THAT(log.text(), Contains("1 of 2 classes have no images") && Contains("n77"));
  CHECK_THAT(log.text(), Contains("left out: n01"));
}

TEST_CASE("classes of the same name are told apart by their wnid", "[datasets][tiny]") {
  const TempDir dir;
  write_small_set(dir.path());
  write_text(dir.path() / "words.txt", "n01\tcrane\r\nn02\tcrane, bird\r\n");
  CHECK(TinyImageNetFiles(dir.path(), "train").class_names() == std::vector<std::string>{"crane (n02)", "crane (n01)"});
}

TEST_CASE("what is wrong with a directory is said in one message with file and line", "[datasets][tiny]") {
  const TempDir dir;
  const fs::path root = dir.path() / "set";
  const auto message = [&](const std::string& split, const fs::path& directory) -> std::string {
    try {
      TinyImageNetFiles(directory, split);
    } catch (const DataError& error) {
      return error.what();
    }
    return "no DataError";
  };
  CHECK_THAT(message("train", root), Contains("no directory") && Contains(root.string()));
  write_text(dir.path() / "file", "");
  CHECK_THAT(message("train", dir.path() / "file"), Contains("is not a directory"));
  fs::create_directories(root);
  CHECK_THAT(message("train", root), Contains("neither wnids.txt nor train/"));
  write_small_set(root);

  SECTION("no training folder") {
    fs::remove_all(root / "train");
    CHECK_THAT(message("train", root), Contains("train' is missing"));
  }
  SECTION("no images") {
    fs::remove_all(root / "train/n01");
    fs::remove_all(root / "train/n02/images");
    CHECK_THAT(message("train", root), Contains("train' has no images"));
  }
  SECTION("neither classes nor folders") {
    fs::remove(root / "wnids.txt");
    fs::remove_all(root / "train");
    fs::create_directories(root / "train");
    CHECK_THAT(message("train", root), Contains("wnids.txt' is missing"));
  }
  SECTION("no classes listed") {
    write_text(root / "wnids.txt", "\n \n");
    CHECK_THAT(message("train", root), Contains("lists no classes"));
  }
  SECTION("a class listed twice") {
    write_text(root / "wnids.txt", "n01\nn02\n\nn01\n");
    CHECK_THAT(message("train", root), Contains("wnids.txt:4: class 'n01' is listed twice"));
  }
  SECTION("a list that is none") {
    write_text(root / "wnids.txt", "n01\tgoldfish\n");
    CHECK_THAT(message("train", root), Contains("wnids.txt:1: expected one class"));
  }
  SECTION("no validation folder") {
    fs::remove_all(root / "val");
    CHECK_THAT(message("val", root), Contains("val' is missing"));
  }
  SECTION("no validation images") {
    fs::remove_all(root / "val/images");
    CHECK_THAT(message("val", root), Contains("val' has no images"));
  }
  SECTION("no annotations") {
    fs::remove(root / "val/val_annotations.txt");
    CHECK_THAT(message("val", root), Contains("val_annotations.txt' is missing"));
  }
  SECTION("empty annotations") {
    write_text(root / "val/val_annotations.txt", "");
    CHECK_THAT(message("val", root), Contains("names no images"));
  }
  SECTION("an unknown class") {
    write_text(root / "val/val_annotations.txt", "val_0.JPEG\tn01\nval_1.JPEG\tn99\t0\t0\t1\t1\n");
    CHECK_THAT(message("val", root), Contains("val_annotations.txt:2: 'n99' is not one of the 2 classes"));
  }
  SECTION("a line without a class") {
    write_text(root / "val/val_annotations.txt", "val_0.JPEG\tn01\nval_1.JPEG\n");
    CHECK_THAT(message("val", root), Contains("val_annotations.txt:2: expected a file and its class"));
  }
  SECTION("wrong use") {
    CHECK_THROWS_AS(TinyImageNetFiles(root, "test"), ConfigError);
    CHECK_THROWS_AS(TinyImageNetFiles(root, "val", 0), ConfigError);
  }
}

TEST_CASE("broken and missing files are bad samples with a reason", "[datasets][tiny]") {
  const TempDir dir;
  write_small_set(dir.path());
  const std::string whole = jpeg(100);
  const fs::path folder = dir.path() / "val/images";
  write_text(folder / "val_0.JPEG", whole.substr(0, whole.size() / 2));
  write_text(folder / "val_1.JPEG", "");
  fs::remove(folder / "val_2.JPEG");
  const auto val = tiny_imagenet(dir.path(), "val", media::ImageTransform({media::Normalize{}}));
  CHECK_THROWS_WITH(require_readable(val, "val"), Contains("not one of the 3 samples") && Contains("val_2.JPEG"));
  const TinyImageNetFiles files(dir.path(), "val");
  SampleSource::Scratch scratch;
  CHECK_THROWS_WITH(files.read(0, scratch), Contains("No such file"));
  CHECK_THROWS_AS(files.read(1, scratch), DataError);
  CHECK_THROWS_WITH(files.read(2, scratch), Contains("empty"));
  write_text(folder / "val_1.JPEG", whole);
  CHECK(files.read(2, scratch)[0].size() == 64 * 64 * 3);
  CHECK_NOTHROW(require_readable(val, "val"));
}

TEST_CASE("the fingerprint follows the files, wherever they lie", "[datasets][tiny]") {
  const TempDir dir;
  const fs::path root = dir.path() / "set";
  write_small_set(root);
  const auto fingerprint = [](const fs::path& where, int size = 64) {
    return TinyImageNetFiles(where, "train", size).fingerprint();
  };
  const std::string before = fingerprint(root);
  CHECK(fingerprint(root) == before);
  CHECK(fingerprint(root, 32) != before);
  fs::rename(root, dir.path() / "moved");
  CHECK(fingerprint(dir.path() / "moved") == before);
  fs::rename(dir.path() / "moved", root);
  const fs::path file = root / "train/n02/images/n02_0.JPEG";
  SECTION("another time of change") {
    fs::last_write_time(file, fs::last_write_time(file) + std::chrono::seconds(1));
    CHECK(fingerprint(root) != before);
  }
  SECTION("another size") {
    const auto time = fs::last_write_time(file);
    write_text(file, read_text(file) + "x");
    fs::last_write_time(file, time);
    CHECK(fingerprint(root) != before);
  }
  SECTION("another file") {
    write_text(root / "train/n02/images/new.JPEG", jpeg(1));
    CHECK(fingerprint(root) != before);
  }
  SECTION("a file less") {
    fs::remove(file);
    CHECK(fingerprint(root) != before);
  }
}

namespace {

std::vector<torch::Tensor> batches(const std::shared_ptr<const Dataset>& data, int workers, std::int64_t epoch) {
  DataLoader loader(data, std::make_shared<RandomSampler>(data->size(), 1),
                    {.batch_size = 7, .num_workers = workers, .bad_samples = BadSamplePolicy::skip, .seed = 3});
  std::vector<torch::Tensor> tensors;
  for (Batch& batch : loader.epoch(epoch)) {
    tensors.push_back(batch.input("image").clone());
    tensors.push_back(batch.target.clone());
    tensors.push_back(batch.ids.clone());
  }
  return tensors;
}

bool equal(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const torch::Tensor& x, const torch::Tensor& y) { return torch::equal(x, y); });
}

media::ImageTransform augmentation() {
  return media::ImageTransform({media::RandomResizedCrop{64, 64}, media::RandomHorizontalFlip{},
                                media::ColorJitter{0.2, 0.2, 0.2, 0.1}, media::Normalize{}});
}

}  // namespace

TEST_CASE("images from the cache are those from the files, bit for bit, with any number of workers",
          "[datasets][tiny][cache]") {
  const TempDir dir;
  generate_images(dir.path() / "set", {.classes = 3, .per_class = 10, .val_per_class = 2, .quirks = true});
  const auto files = tiny_imagenet(dir.path() / "set", "train", augmentation());
  const auto cached = tiny_imagenet(dir.path() / "set", "train", augmentation(), {.cache = "auto"});
  REQUIRE(dynamic_cast<const DecodeCache*>(&cached->source()) != nullptr);
  const auto expected = batches(files, 0, 0);
  REQUIRE(expected.size() == 3 * 5);
  CHECK(equal(batches(files, 3, 0), expected));
  CHECK(equal(batches(cached, 0, 0), expected));
  CHECK(equal(batches(cached, 2, 0), expected));
  CHECK_FALSE(equal(batches(cached, 2, 1), expected));
}

TEST_CASE("a cache follows the option: off, auto, a folder", "[datasets][tiny][cache]") {
  const TempDir dir;
  const fs::path root = dir.path() / "set";
  write_small_set(root);
  const auto cache_path = [&](const std::string& cache, const std::string& split = "train") -> std::string {
    const auto data = tiny_imagenet(root, split, media::ImageTransform({media::Normalize{}}), {.cache = cache});
    const auto* opened = dynamic_cast<const DecodeCache*>(&data->source());
    return opened == nullptr ? "" : opened->path().string();
  };
  CHECK(cache_path("off").empty());
  CHECK_FALSE(fs::exists(root / ".mmtrain_cache"));
  CHECK_THAT(cache_path("auto"), Contains(".mmtrain_cache/train-64x64-"));
  CHECK_THAT(cache_path("auto", "val"), Contains(".mmtrain_cache/val-64x64-"));
  CHECK_THAT(cache_path((dir.path() / "own").string()), Contains("own/train-64x64-"));

  const std::string former = cache_path("auto");
  write_text(root / "train/n02/images/new.JPEG", jpeg(1));
  CHECK(cache_path("auto") != former);
  CHECK_FALSE(fs::exists(former));

  write_text(dir.path() / "file", "not a folder");
  CHECK_THROWS_AS(cache_path((dir.path() / "file").string()), ConfigError);
  fs::remove_all(root / ".mmtrain_cache");
  write_text(root / ".mmtrain_cache", "not a folder");
  REQUIRE(::setenv("XDG_CACHE_HOME", (dir.path() / "file").c_str(), 1) == 0);
  const LogCapture log;
  CHECK(cache_path("auto").empty());
  CHECK_THAT(log.text(), Contains("images are decoded each time instead"));
  ::unsetenv("XDG_CACHE_HOME");
}

TEST_CASE("an image dataset hands out the transformed image and the label", "[datasets]") {
  const TempDir dir;
  write_small_set(dir.path());
  const auto source = std::make_shared<TinyImageNetFiles>(dir.path(), "train");
  const auto make = [&](ImageFormat format) {
    return std::make_shared<ImageDataset>(
        source, source->labels(), source->class_names(),
        media::ImageTransform({media::RandomCrop{32, 48}, media::RandomHorizontalFlip{}, media::Normalize{}}), format);
  };
  const auto data = make(ImageFormat::planar_float), raw = make(ImageFormat::interleaved_uint8);
  CHECK((data->spec().inputs == std::vector<TensorSpec>{{"image", {3, 32, 48}, torch::kFloat32}}));
  CHECK((raw->spec().inputs == std::vector<TensorSpec>{{"image", {32, 48, 3}, torch::kUInt8}}));
  CHECK(data->spec().target.dtype == torch::kInt64);
  CHECK(data->class_names() == std::vector<std::string>{"stove", "goldfish"});
  CHECK(class_counts(*data) == std::vector<std::int64_t>{3, 2});

  const auto first_batch = [](const std::shared_ptr<const Dataset>& dataset) {
    DataLoader loader(dataset, std::make_shared<SequentialSampler>(5), {.batch_size = 5, .seed = 8});
    auto epoch = loader.epoch(2);
    return std::move(*epoch.begin());
  };
  const Batch batch = first_batch(data), raw_batch = first_batch(raw);
  CHECK(batch.target.equal(torch::tensor({0, 0, 0, 1, 1}, torch::kInt64)));
  // What the random numbers of (seed 8, epoch 2, index 1) make of image 1.
  const auto image = pixels(*source, 1);
  RandomStream random(8, RandomDomain::sample, 2, 1);
  media::ImageTransform::Scratch scratch;
  std::vector<float> expected(3 * 32 * 48);
  media::ImageTransform({media::RandomCrop{32, 48}, media::RandomHorizontalFlip{}, media::Normalize{}})
      .apply({image.data(), 64, 64}, random, expected, scratch);
  CHECK(batch.input("image")[1].equal(torch::tensor(expected).view({3, 32, 48})));
  // The same pixels without the normalization.
  const auto mean = torch::tensor({0.485F, 0.456F, 0.406F}).view({3, 1, 1});
  const auto std = torch::tensor({0.229F, 0.224F, 0.225F}).view({3, 1, 1});
  const auto from_raw = (raw_batch.input("image").permute({0, 3, 1, 2}) / 255 - mean) / std;
  CHECK(from_raw.allclose(batch.input("image"), 1e-4, 1e-5));

  CHECK_THROWS_AS(ImageDataset(source, {0, 1}, {"a", "b"}, {}), ConfigError);
  CHECK_THROWS_AS(ImageDataset(source, {0, 0, 0, 1, 2}, {"a", "b"}, {}), ConfigError);
}
