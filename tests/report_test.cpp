#include <torch/torch.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

#include "catch.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/media/image.h"
#include "mmtrain/report/classification_report.h"
#include "mmtrain/report/plots.h"
#include "mmtrain/report/report_callback.h"
#include "report/axis.h"
#include "temp_dir.h"

using namespace mmtrain;
using fixtures::TempDir;
namespace fs = std::filesystem;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A library without images draws nothing; then there is only that to test.
bool draws() {
  try {
    const std::array<std::uint8_t, 3> pixel{};
    media::encode_png({pixel.data(), 1, 1});
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

using Rgb = std::array<int, 3>;
constexpr Rgb kTrain{0, 114, 178}, kVal{213, 94, 0}, kBest{0, 158, 115}, kDarkest{8, 48, 107};

// The pixels of one color within part of an image: how many, and where their middle is (0..1 of the image).
struct Found {
  int count = 0;
  double x = 0, y = 0;
};
Found find(const media::Image& image, const Rgb& color, double from = 0, double to = 1) {
  Found found;
  for (int y = 0; y < image.height; ++y) {
    for (int x = static_cast<int>(from * image.width); x < static_cast<int>(to * image.width); ++x) {
      const auto* pixel = &image.pixels[static_cast<std::size_t>(y * image.width + x) * 3];
      if (pixel[0] != color[0] || pixel[1] != color[1] || pixel[2] != color[2]) continue;
      ++found.count;
      found.x += (x + 0.5) / image.width;
      found.y += (y + 0.5) / image.height;
    }
  }
  if (found.count > 0) {
    found.x /= found.count;
    found.y /= found.count;
  }
  return found;
}

EpochRecord epoch(std::int64_t number, double train_loss, double val_loss, double train_acc, double val_acc,
                  bool best = false) {
  EpochRecord record;
  record.epoch = number;
  record.train_loss = train_loss;
  record.val_loss = val_loss;
  record.train_acc = train_acc;
  record.val_acc = val_acc;
  record.best = best;
  return record;
}

std::vector<EpochRecord> learning(int epochs) {
  std::vector<EpochRecord> history;
  for (int e = 1; e <= epochs; ++e) history.push_back(epoch(e, 2.0 / e, 2.5 / e, 1 - 0.9 / e, 0.8 - 0.7 / e, true));
  return history;
}

std::vector<std::string> numbered(std::size_t classes) {
  std::vector<std::string> names;
  for (std::size_t c = 0; c < classes; ++c) names.push_back("class " + std::to_string(c));
  return names;
}

ConfusionMatrix diagonal(std::size_t classes, std::int64_t count) {
  ConfusionMatrix matrix(classes, std::vector<std::int64_t>(classes));
  for (std::size_t c = 0; c < classes; ++c) matrix[c][c] = count;
  return matrix;
}

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("the report refuses names and matrices that do not fit", "[report]") {
  CHECK_THROWS_AS(classification_report({}, {}), ConfigError);
  CHECK_THROWS_AS(classification_report({{1}}, {"a", "b"}), ConfigError);
  CHECK_THROWS_AS(classification_report({{1, 2}, {3}}, {"a", "b"}), ConfigError);
  CHECK_THROWS_AS(classification_report({{1}}, {"a"}, -1), ConfigError);
}

TEST_CASE("the report of nothing is all zeros", "[report]") {
  const std::string text = classification_report({{0, 0}, {0, 0}}, {"a", "b"});
  CHECK(text.find("nan") == std::string::npos);
  CHECK(text.find("accuracy                           0.00       0.0\n") != std::string::npos);
}

TEST_CASE("ticks lie at round numbers inside the axis", "[report]") {
  const auto texts = [](const Axis& axis) {
    std::vector<std::string> labels;
    for (const double tick : axis.ticks()) labels.push_back(axis.label(tick));
    return labels;
  };
  using Labels = std::vector<std::string>;
  CHECK(texts(fit_axis(0, 1, 5, 0)) == Labels{"0.0", "0.2", "0.4", "0.6", "0.8", "1.0"});
  CHECK(texts(fit_axis(-0.3, 0.3, 5, 0)) == Labels{"-0.2", "0.0", "0.2"});
  CHECK(texts(fit_axis(1, 3, 8, 0.03, true)) == Labels{"1", "2", "3"});
  CHECK(texts(fit_axis(1, 80, 8, 0, true)) == Labels{"10", "20", "30", "40", "50", "60", "70", "80"});
  CHECK(texts(fit_axis(7, 7, 8, 0, true)) == Labels{"6", "7", "8"});
  CHECK(texts(fit_axis(0, 4e6, 4, 0)) == Labels{"0", "1e+06", "2e+06", "3e+06", "4e+06"});
  for (const double value : {0.0, 1e-9, -5.0, 1e12}) {
    const Axis axis = fit_axis(value, value, 6, 0.05);
    CHECK(axis.low < value);
    CHECK(axis.high > value);
    CHECK(axis.ticks().size() >= 2);
  }
}

TEST_CASE("a library without images says once that it draws nothing", "[report]") {
  if (draws()) return;
  const TempDir dir;
  std::vector<std::string> said;
  log::set_sink([&](log::Level, std::string_view text) { said.emplace_back(text); });
  write_curves(dir / "curves.png", learning(3));
  write_confusion_matrix(dir / "matrix.png", diagonal(2, 1), numbered(2));
  log::set_sink({});
  REQUIRE(said.size() == 1);
  CHECK(said[0].find("MMTRAIN_WITH_IMAGE") != std::string::npos);
  CHECK_FALSE(fs::exists(dir / "curves.png"));
}

TEST_CASE("curves show loss at the left and accuracy at the right, high values above low ones", "[report]") {
  if (!draws()) return;
  const TempDir dir;
  std::vector<EpochRecord> history;
  for (int e = 1; e <= 10; ++e) history.push_back(epoch(e, 1.0, 3.0, 0.9, 0.2, e == 1));
  write_curves(dir / "curves.png", history);
  const media::Image image = media::read_image(dir / "curves.png");
  CHECK(image.width == 2 * image.height * 640 / 460);
  const Found train_loss = find(image, kTrain, 0, 0.5), val_loss = find(image, kVal, 0, 0.5);
  const Found train_acc = find(image, kTrain, 0.5, 1), val_acc = find(image, kVal, 0.5, 1);
  for (const Found& line : {train_loss, val_loss, train_acc, val_acc}) CHECK(line.count > 300);
  CHECK(train_loss.y - val_loss.y > 0.4);
  CHECK(val_acc.y - train_acc.y > 0.4);
  CHECK(find(image, kBest, 0, 0.5).count == 0);
  CHECK(find(image, kBest, 0.5, 1).count > 10);
}

TEST_CASE("curves are drawn of any history", "[report]") {
  if (!draws()) return;
  const TempDir dir;
  const fs::path path = dir / "curves.png";
  SECTION("none") {
    write_curves(path, {});
    const media::Image image = media::read_image(path);
    CHECK(find(image, kTrain).count == 0);
  }
  SECTION("one epoch") {
    write_curves(path, learning(1));
    CHECK(find(media::read_image(path), kVal).count > 10);
  }
  SECTION("no validation") {
    auto history = learning(5);
    for (EpochRecord& record : history) {
      record.val_loss = record.val_acc = kNan;
      record.best = false;
    }
    write_curves(path, history);
    const media::Image image = media::read_image(path);
    CHECK(find(image, kVal).count == 0);
    CHECK(find(image, kTrain).count > 300);
  }
  SECTION("a loss that became infinite") {
    auto history = learning(5);
    history[3].train_loss = std::numeric_limits<double>::infinity();
    history[4].train_loss = kNan;
    write_curves(path, history);
    CHECK(find(media::read_image(path), kTrain, 0, 0.5).count > 100);
  }
  SECTION("very many epochs") {
    write_curves(path, learning(2000));
    CHECK(find(media::read_image(path), kTrain).count > 300);
  }
}

TEST_CASE("a confusion matrix is dark where the counts are", "[report]") {
  if (!draws()) return;
  const TempDir dir;
  const fs::path path = dir / "matrix.png";
  const auto count_dark = [&](const ConfusionMatrix& matrix, const ConfusionPlotOptions& options = {}) {
    write_confusion_matrix(path, matrix, numbered(matrix.size()), options);
    return find(media::read_image(path), kDarkest);
  };
  ConfusionMatrix right_top(30, std::vector<std::int64_t>(30)), left_bottom = right_top;
  right_top[0][29] = 5;
  left_bottom[29][0] = 5;
  const Found top = count_dark(right_top), bottom = count_dark(left_bottom);
  CHECK(top.x - bottom.x > 0.5);
  CHECK(bottom.y - top.y > 0.5);

  ConfusionMatrix uneven = {{1, 0}, {0, 1000}};
  const int by_count = count_dark(uneven).count, by_share = count_dark(uneven, {.normalize = true}).count;
  CHECK(by_share > by_count * 3 / 2);
}

TEST_CASE("a confusion matrix of any size is drawn, up to hundreds of classes", "[report]") {
  if (!draws()) return;
  const TempDir dir;
  const fs::path path = dir / "matrix.png";
  for (const std::size_t classes : {1, 2, 7, 20, 21, 50, 51, 200, 1000}) {
    CAPTURE(classes);
    write_confusion_matrix(path, diagonal(classes, 3), numbered(classes));
    const media::Image image = media::read_image(path);
    CHECK(image.width < 1400);
    CHECK(find(image, kDarkest).count >= static_cast<int>(classes));
  }
  write_confusion_matrix(path, diagonal(2, 0), {"caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac", std::string(500, 'x')});
  CHECK(media::read_image(path).width < 600);
}

TEST_CASE("a figure holds charts of all kinds, row by row", "[report]") {
  if (!draws()) return;
  const TempDir directory;
  const PlotPanel panel{.title = "Loss", .x_label = "Epoch", .y_label = "Loss", .series = {{"a", {1, 2}, {3, 1}}}};
  const PlotBars bars{.title = "F1",
                      .y_label = "F1",
                      .groups = {"one", "two"},
                      .series = {"a", "b"},
                      .values = {{0.2, 0.1}, {0.9, kNan}}};
  const PlotMatrix matrix{{{9, 0}, {0, 3}}, {"one", "two"}};
  write_figure(directory / "figure.png", {panel, bars, matrix, bars}, 2);
  const media::Image image = media::read_image(directory / "figure.png");
  CHECK(image.width == 2 * 640);
  CHECK(image.height == 2 * 460);
  // The taller bar of the second series is in the right half, and the matrix below on the left.
  const Found second = find(image, kVal, 0.5, 1);
  const Found first = find(image, kTrain, 0.5, 1);
  CHECK(second.count > 2 * first.count);
  CHECK(find(image, kDarkest, 0, 0.5).y > 0.5);
  CHECK(find(image, kDarkest, 0.5, 1).count == 0);

  PlotBars torn = bars;
  torn.values.pop_back();
  CHECK_THROWS_AS(write_figure(directory / "torn.png", {torn}), ConfigError);
  CHECK_THROWS_AS(write_figure(directory / "torn.png", {PlotMatrix{{{1}}, {}}}), ConfigError);
  CHECK_THROWS_AS(write_figure(directory / "torn.png", {panel}, 0), ConfigError);
  CHECK_FALSE(fs::exists(directory / "torn.png"));
}

TEST_CASE("charts refuse what does not fit and leave no torn file", "[report]") {
  if (!draws()) return;
  const TempDir dir;
  const PlotPanel uneven{.title = "", .x_label = "", .y_label = "", .series = {{.label = "a", .x = {1, 2}, .y = {1}}}};
  CHECK_THROWS_AS(write_line_plots(dir / "plot.png", {uneven}), ConfigError);
  CHECK_THROWS_AS(write_confusion_matrix(dir / "plot.png", {{1, 2}}, {"a"}), ConfigError);
  CHECK_THROWS_AS(write_confusion_matrix(dir / "plot.png", {{1}}, {"a", "b"}), ConfigError);
  CHECK_THROWS_AS(write_confusion_matrix(dir / "plot.png", {}, {}), ConfigError);
  CHECK_FALSE(fs::exists(dir / "plot.png"));
  CHECK_THROWS_AS(write_curves(dir / "no" / "such" / "folder.png", learning(2)), Error);
}

TEST_CASE("the callback writes curves as epochs end and the reports of the test", "[report]") {
  const TempDir dir;
  const fs::path run = dir / "run";
  fs::create_directories(run);
  MetricValues metrics;
  metrics.confusion = {{3, 1}, {0, 4}};

  ReportCallback report;
  SECTION("in a run directory, with the epochs before a resume") {
    const auto history = learning(3);
    report.on_fit_begin({.epochs = 3,
                         .first_epoch = 3,
                         .history = {history[0], history[1]},
                         .run_dir = run,
                         .class_names = {"a<b", "dog"}});
    report.on_epoch_end(history[2]);
    report.on_test_end(metrics);
    CHECK(read(run / "classification_report.txt") == classification_report(metrics.confusion, {"a<b", "dog"}));
    const std::string page = read(run / "report.html");
    CHECK_THAT(page, Catch::Contains("a&lt;b") && !Catch::Contains("a<b") && Catch::Contains("<td>3<td>"));
    if (!draws()) return;
    // The eight bytes with which each PNG begins, and no file of another place.
    CHECK_THAT(page, Catch::Contains("src=\"data:image/png;base64,iVBORw0KGgo"));
    CHECK_THAT(page, !Catch::Contains("src=\"plots"));
    write_curves(dir / "expected.png", history);
    CHECK(read(run / "plots" / "curves.png") == read(dir / "expected.png"));
    CHECK(find(media::read_image(run / "plots" / "confusion_matrix.png"), kDarkest).count > 0);
  }
  SECTION("without class names") {
    report.on_fit_begin({.epochs = 1, .first_epoch = 1, .history = {}, .run_dir = run, .class_names = {}});
    report.on_test_end(metrics);
    CHECK(read(run / "classification_report.txt") == classification_report(metrics.confusion, {"0", "1"}));
  }
  SECTION("without a run directory") {
    report.on_fit_begin({});
    report.on_epoch_end(learning(1)[0]);
    report.on_test_end(metrics);
    CHECK(fs::is_empty(run));
  }
}
