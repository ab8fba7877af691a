#include "mmtrain/report/plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "mmtrain/core/error.h"
#include "mmtrain/io/atomic_file.h"
#include "report/axis.h"
#include "report/canvas.h"
#include "report/panels.h"
#include "report/utf8.h"

namespace mmtrain {
namespace {

// ColorBrewer's "Blues", lightest first (Harrower and Brewer, 2003).
constexpr std::array<Color, 9> kBlues = {{{247, 251, 255},
                                          {222, 235, 247},
                                          {198, 219, 239},
                                          {158, 202, 225},
                                          {107, 174, 214},
                                          {66, 146, 198},
                                          {33, 113, 181},
                                          {8, 81, 156},
                                          {8, 48, 107}}};
constexpr std::size_t kNamedClasses = 50;     // more have indices at ticks
constexpr std::size_t kNumberedClasses = 20;  // more have no numbers in the cells
constexpr std::size_t kNameLength = 24;
constexpr double kDarkShare = 0.6;  // white text is read better than black on darker cells

Color shade(double share) {
  const double place = std::clamp(share, 0.0, 1.0) * (kBlues.size() - 1);
  const auto index = std::min(static_cast<std::size_t>(place), kBlues.size() - 2);
  const double part = place - static_cast<double>(index);
  const auto mix = [&](std::uint8_t from, std::uint8_t to) {
    return static_cast<std::uint8_t>(std::lround(from + part * (to - from)));
  };
  const Color &low = kBlues[index], &high = kBlues[index + 1];
  return {mix(low.red, high.red), mix(low.green, high.green), mix(low.blue, high.blue)};
}

// Long names lose their middle: the ends are what tells classes apart.
std::string shortened(const std::string& name) {
  constexpr std::size_t kHead = 13, kTail = 9;
  const std::size_t length = utf8_length(name);
  if (length <= kNameLength) return name;
  return name.substr(0, utf8_offset(name, kHead)) + ".." + name.substr(utf8_offset(name, length - kTail));
}

// The values shown: counts, or shares of each row.
struct Heatmap {
  std::vector<std::vector<double>> cells;
  double highest = 1;  // the value of the darkest color
  bool shares = false;

  std::string text(double value) const {
    return shares ? fmt::format("{:.2f}", value) : fmt::format("{}", static_cast<std::int64_t>(value));
  }
};

Heatmap make_heatmap(const ConfusionMatrix& confusion, bool normalize) {
  Heatmap map;
  map.shares = normalize;
  double largest = 0;
  for (const auto& counts : confusion) {
    const auto sum = static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
    const double divisor = normalize ? std::max(sum, 1.0) : 1.0;
    auto& row = map.cells.emplace_back();
    for (const std::int64_t count : counts) row.push_back(static_cast<double>(count) / divisor);
    largest = std::max(largest, *std::ranges::max_element(row));
  }
  if (!normalize && largest > 0) map.highest = largest;
  return map;
}

double cell_side(std::size_t classes) {
  const double side = classes > 100 ? 1000 : 760;
  return std::clamp(std::floor(side / static_cast<double>(classes)), 1.0, 62.0);
}

// Sizes and places on the sheet, in pixels.
struct MatrixLayout {
  Box frame;
  double cell, name_size, width, height;
  bool named, upright;  // names at the axes; those of the columns written upwards
};

// `most` is the largest side that the matrix may have; 0: as large as it likes.
MatrixLayout lay_out_matrix(const std::vector<std::string>& names, Point corner = {}, double most = 0) {
  MatrixLayout layout{};
  const std::size_t classes = names.size();
  layout.cell = cell_side(classes);
  if (most > 0) layout.cell = std::min(layout.cell, most / static_cast<double>(classes));
  layout.named = classes <= kNamedClasses;
  layout.name_size = std::clamp(layout.cell * 0.85, 10.0, kTickSize);
  double longest = Canvas::text_width("000", kTickSize);
  if (layout.named) {
    longest = 0;
    for (const auto& name : names) longest = std::max(longest, Canvas::text_width(shortened(name), layout.name_size));
    layout.upright = longest > layout.cell - 8;
  }
  const double side = std::max(layout.cell * static_cast<double>(classes), 180.0);
  layout.cell = side / static_cast<double>(classes);
  const double below = layout.upright ? longest : kTickSize;
  layout.frame = {corner.x + std::ceil(longest) + 64, corner.y + 52, side, side};
  layout.width = layout.frame.right() + 112;
  layout.height = layout.frame.bottom() + std::ceil(below) + 56;
  return layout;
}

Box cell_box(const MatrixLayout& layout, std::size_t row, std::size_t column) {
  return {layout.frame.left + layout.cell * static_cast<double>(column),
          layout.frame.top + layout.cell * static_cast<double>(row), layout.cell, layout.cell};
}

void draw_cells(Canvas& canvas, const MatrixLayout& layout, const Heatmap& map) {
  const std::size_t classes = map.cells.size();
  double text_size = kTickSize;
  if (classes <= kNumberedClasses) {
    double widest = 0;
    for (const auto& row : map.cells) {
      for (const double value : row) widest = std::max(widest, Canvas::text_width(map.text(value), kTickSize));
    }
    text_size = std::min(kTickSize, kTickSize * (layout.cell - 6) / widest);
  }
  const bool numbered = classes <= kNumberedClasses && text_size >= 8;
  for (std::size_t row = 0; row < classes; ++row) {
    for (std::size_t column = 0; column < classes; ++column) {
      const double share = map.cells[row][column] / map.highest;
      const Box box = cell_box(layout, row, column);
      canvas.fill(box, shade(share));
      if (!numbered) continue;
      canvas.text({box.left + box.width / 2, box.top + box.height / 2}, map.text(map.cells[row][column]),
                  {.size = text_size, .color = share > kDarkShare ? kWhite : kText, .x = AlignX::center});
    }
  }
  canvas.frame({layout.frame.left - 1, layout.frame.top - 1, layout.frame.width + 2, layout.frame.height + 2}, kEdge,
               1);
}

void draw_class_label(Canvas& canvas, const MatrixLayout& layout, std::size_t index, const std::string& label) {
  const Box diagonal = cell_box(layout, index, index);
  const double x = diagonal.left + diagonal.width / 2, y = diagonal.top + diagonal.height / 2;
  canvas.text({layout.frame.left - 8, y}, label, {.size = layout.name_size, .x = AlignX::right});
  canvas.text({x, layout.frame.bottom() + 9}, label,
              {.size = layout.name_size, .x = AlignX::center, .y = AlignY::top, .vertical = layout.upright});
}

void draw_classes(Canvas& canvas, const MatrixLayout& layout, const std::vector<std::string>& names) {
  if (layout.named) {
    for (std::size_t i = 0; i < names.size(); ++i) draw_class_label(canvas, layout, i, shortened(names[i]));
    return;
  }
  const Axis axis = fit_axis(0, static_cast<double>(names.size() - 1), 10, 0, /*whole=*/true);
  for (const double tick : axis.ticks()) {
    draw_class_label(canvas, layout, static_cast<std::size_t>(tick), axis.label(tick));
  }
}

void draw_color_bar(Canvas& canvas, const MatrixLayout& layout, const Heatmap& map) {
  const Box bar{layout.frame.right() + 24, layout.frame.top, 18, layout.frame.height};
  for (double y = 0; y < bar.height; ++y) {
    canvas.fill({bar.left, bar.top + y, bar.width, std::min(1.0, bar.height - y)}, shade(1 - (y + 0.5) / bar.height));
  }
  canvas.frame({bar.left - 1, bar.top - 1, bar.width + 2, bar.height + 2}, kEdge, 1);
  const Axis axis = fit_axis(0, map.highest, 5, 0, /*whole=*/!map.shares);
  for (const double tick : axis.ticks()) {
    if (tick < 0 || tick > map.highest) continue;
    const double y = bar.bottom() - bar.height * tick / map.highest;
    canvas.fill({bar.right() + 1, std::round(y), 4, 1}, kEdge);
    canvas.text({bar.right() + 9, std::round(y) + 0.5}, axis.label(tick), {.size = kTickSize});
  }
}

void draw_matrix(Canvas& canvas, const MatrixLayout& layout, const Heatmap& map, const std::string& title,
                 const std::vector<std::string>& class_names, double left) {
  const double middle = layout.frame.left + layout.frame.width / 2;
  canvas.text({middle, layout.frame.top - 28}, title, {.size = kTitleSize, .x = AlignX::center, .bold = true});
  canvas.text({middle, layout.height - 18}, "Predicted class", {.size = kLabelSize, .x = AlignX::center});
  canvas.text({left + 22, layout.frame.top + layout.frame.height / 2}, "True class",
              {.size = kLabelSize, .x = AlignX::center, .vertical = true});
  draw_cells(canvas, layout, map);
  draw_classes(canvas, layout, class_names);
  draw_color_bar(canvas, layout, map);
}

}  // namespace

void check(const PlotMatrix& matrix) {
  const ConfusionMatrix& confusion = matrix.confusion;
  const bool square = std::ranges::all_of(confusion, [&](const auto& row) { return row.size() == confusion.size(); });
  if (confusion.empty() || !square || matrix.class_names.size() != confusion.size()) {
    throw ConfigError(
        fmt::format("[Plots] a confusion matrix must be square with a name for each class, got {} rows, {} names",
                    confusion.size(), matrix.class_names.size()));
  }
}

void draw(Canvas& canvas, const PlotMatrix& matrix, Point corner) {
  constexpr double kSide = 270;  // leaves room for names on a panel
  const MatrixLayout layout = lay_out_matrix(matrix.class_names, corner, kSide);
  draw_matrix(canvas, layout, make_heatmap(matrix.confusion, false), matrix.title, matrix.class_names, corner.x);
}

void write_confusion_matrix(const std::filesystem::path& path, const ConfusionMatrix& confusion,
                            const std::vector<std::string>& class_names, const ConfusionPlotOptions& options) {
  check(PlotMatrix{confusion, class_names, options.title});
  const MatrixLayout layout = lay_out_matrix(class_names);
  Canvas canvas(layout.width, layout.height);
  draw_matrix(canvas, layout, make_heatmap(confusion, options.normalize), options.title, class_names, 0);
  write_file_atomic(path, canvas.png());
}

}  // namespace mmtrain
