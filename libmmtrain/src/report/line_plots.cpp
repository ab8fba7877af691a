#include "mmtrain/report/plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "mmtrain/core/error.h"
#include "mmtrain/io/atomic_file.h"
#include "report/axis.h"
#include "report/canvas.h"
#include "report/panels.h"

namespace mmtrain {
namespace {

// Okabe and Ito, "Color universal design", 2008, the pale yellow left out.
constexpr std::array<Color, 7> kLineColors = {
    {{0, 114, 178}, {213, 94, 0}, {0, 158, 115}, {204, 121, 167}, {230, 159, 0}, {86, 180, 233}, {0, 0, 0}}};

constexpr double kLineWidth = 2, kDotRadius = 3, kRingRadius = 7;
constexpr std::size_t kMarkedPoints = 40;  // longer lines go without a dot at each value

bool finite(const PlotSeries& series, std::size_t i) {
  return std::isfinite(series.x[i]) && std::isfinite(series.y[i]);
}

// A series without any finite value, such as the validation of a run that has none, is not there.
bool visible(const PlotSeries& series) {
  for (std::size_t i = 0; i < series.x.size(); ++i) {
    if (finite(series, i)) return true;
  }
  return false;
}

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

// A panel's frame on the sheet and the two axes that map values into it.
struct Chart {
  Box frame;
  Axis x, y;

  Point at(double x_value, double y_value) const {
    return {frame.left + x.position(x_value) * frame.width, frame.bottom() - y.position(y_value) * frame.height};
  }
};

bool whole_numbers(const PlotPanel& panel) {
  return std::ranges::all_of(panel.series, [](const PlotSeries& series) {
    return std::ranges::all_of(series.x, [](double x) { return !std::isfinite(x) || x == std::floor(x); });
  });
}

Chart lay_out(const PlotPanel& panel, Point corner) {
  Range x, y;
  for (const PlotSeries& series : panel.series) {
    for (std::size_t i = 0; i < series.x.size(); ++i) {
      if (!finite(series, i)) continue;
      x.include(series.x[i]);
      y.include(series.y[i]);
    }
  }
  Chart chart{.frame = {corner.x + 78, corner.y + 46, kPanelWidth - 104, kPanelHeight - 110}, .x = {}, .y = {}};
  if (x.empty()) return chart;
  chart.x = fit_axis(x.low, x.high, 8, 0.03, whole_numbers(panel));
  chart.y = fit_axis(y.low, y.high, 6, 0.06);
  return chart;
}

void draw_axes(Canvas& canvas, const Chart& chart, const PlotPanel& panel) {
  const Box& frame = chart.frame;
  for (const double tick : chart.x.ticks()) {
    const double x = std::round(chart.at(tick, chart.y.low).x);
    canvas.fill({x, frame.top, 1, frame.height}, kGrid);
    canvas.text({x + 0.5, frame.bottom() + 10}, chart.x.label(tick),
                {.size = kTickSize, .x = AlignX::center, .y = AlignY::top});
  }
  for (const double tick : chart.y.ticks()) {
    const double y = std::round(chart.at(chart.x.low, tick).y);
    canvas.fill({frame.left, y, frame.width, 1}, kGrid);
    canvas.text({frame.left - 9, y + 0.5}, chart.y.label(tick), {.size = kTickSize, .x = AlignX::right});
  }
  canvas.fill({frame.left, frame.top, 1, frame.height + 1}, kEdge);
  canvas.fill({frame.left, frame.bottom(), frame.width, 1}, kEdge);
  canvas.text({frame.left + frame.width / 2, frame.top - 24}, panel.title,
              {.size = kTitleSize, .x = AlignX::center, .bold = true});
  canvas.text({frame.left + frame.width / 2, frame.bottom() + 44}, panel.x_label,
              {.size = kLabelSize, .x = AlignX::center});
  canvas.text({frame.left - 60, frame.top + frame.height / 2}, panel.y_label,
              {.size = kLabelSize, .x = AlignX::center, .vertical = true});
}

// The finite values of a series as the unbroken pieces between its gaps.
std::vector<std::vector<Point>> pieces(const Chart& chart, const PlotSeries& series) {
  std::vector<std::vector<Point>> found(1);
  for (std::size_t i = 0; i < series.x.size(); ++i) {
    if (finite(series, i))
      found.back().push_back(chart.at(series.x[i], series.y[i]));
    else if (!found.back().empty())
      found.emplace_back();
  }
  return found;
}

// The white edge keeps dots of lines that meet apart.
void draw_dot(Canvas& canvas, Point center, Color color) {
  canvas.disc(center, kDotRadius + 1, kWhite);
  canvas.disc(center, kDotRadius, color);
}

void draw_series(Canvas& canvas, const Chart& chart, const PlotSeries& series, Color color) {
  for (const std::vector<Point>& piece : pieces(chart, series)) {
    if (piece.size() > 1 && !series.rings) canvas.polyline(piece, color, kLineWidth);
    if (series.x.size() > kMarkedPoints && piece.size() > 1 && !series.rings) continue;
    for (const Point& point : piece) {
      if (series.rings)
        canvas.ring(point, kRingRadius, color, kLineWidth);
      else
        draw_dot(canvas, point, color);
    }
  }
}

// How much of the lines a legend at `box` would hide: points on them, evenly spread between the values.
int hidden_points(const Chart& chart, const PlotPanel& panel, const Box& box) {
  constexpr int kBetween = 8;
  int hidden = 0;
  for (const PlotSeries& series : panel.series) {
    for (const std::vector<Point>& piece : pieces(chart, series)) {
      for (std::size_t i = 0; i < piece.size(); ++i) {
        const Point from = piece[i], to = piece[std::min(i + 1, piece.size() - 1)];
        for (int part = 0; part < kBetween; ++part) {
          const double share = double(part) / kBetween;
          const double x = from.x + share * (to.x - from.x), y = from.y + share * (to.y - from.y);
          hidden += x >= box.left && x <= box.right() && y >= box.top && y <= box.bottom();
        }
      }
    }
  }
  return hidden;
}

Box place_legend(const Chart& chart, const PlotPanel& panel, double width, double height) {
  constexpr double kInset = 10;
  const Box& frame = chart.frame;
  const double left = frame.left + kInset, right = frame.right() - width - kInset;
  const double top = frame.top + kInset, bottom = frame.bottom() - height - kInset;
  const std::array<Box, 4> corners = {{{right, top, width, height},
                                       {right, bottom, width, height},
                                       {left, top, width, height},
                                       {left, bottom, width, height}}};
  return *std::ranges::min_element(corners, {}, [&](const Box& box) { return hidden_points(chart, panel, box); });
}

void draw_sample(Canvas& canvas, Point start, double length, const PlotSeries& series, Color color) {
  const Point middle{start.x + length / 2, start.y};
  if (series.rings) return canvas.ring(middle, kRingRadius, color, kLineWidth);
  canvas.line(start, {start.x + length, start.y}, color, kLineWidth);
  draw_dot(canvas, middle, color);
}

void draw_legend(Canvas& canvas, const Chart& chart, const PlotPanel& panel) {
  constexpr double kRow = 22, kPadding = 10, kSample = 26, kGap = 9;
  double text_width = 0, rows = 0;
  for (const PlotSeries& series : panel.series) {
    if (!visible(series)) continue;
    text_width = std::max(text_width, Canvas::text_width(series.label, kTickSize));
    ++rows;
  }
  if (rows == 0) return;
  const Box box =
      place_legend(chart, panel, std::ceil(text_width + kSample + kGap + 2 * kPadding), kRow * rows + kPadding);
  canvas.fill(box, kWhite);
  canvas.frame(box, kGrid, 1);
  Point start{box.left + kPadding, box.top + kPadding / 2 + kRow / 2};
  for (std::size_t i = 0; i < panel.series.size(); ++i) {
    if (!visible(panel.series[i])) continue;
    draw_sample(canvas, start, kSample, panel.series[i], line_color(i));
    canvas.text({start.x + kSample + kGap, start.y}, panel.series[i].label, {.size = kTickSize});
    start.y += kRow;
  }
}

PlotSeries column(const std::vector<EpochRecord>& history, const char* label, double EpochRecord::*member,
                  double scale = 1) {
  PlotSeries series;
  series.label = label;
  for (const EpochRecord& record : history) {
    series.x.push_back(static_cast<double>(record.epoch));
    series.y.push_back(record.*member * scale);
  }
  return series;
}

// The last record that was the best when it was written.
const EpochRecord* best_of(const std::vector<EpochRecord>& history) {
  const auto last =
      std::find_if(history.rbegin(), history.rend(), [](const EpochRecord& record) { return record.best; });
  return last == history.rend() ? nullptr : &*last;
}

}  // namespace

Color line_color(std::size_t series) { return kLineColors[series % kLineColors.size()]; }

void check(const PlotPanel& panel) {
  for (const PlotSeries& series : panel.series) {
    if (series.x.size() == series.y.size()) continue;
    throw ConfigError(fmt::format("[Plots] a series needs as many x as y values, got {} and {} for '{}'",
                                  series.x.size(), series.y.size(), series.label));
  }
}

void draw(Canvas& canvas, const PlotPanel& panel, Point corner) {
  const Chart chart = lay_out(panel, corner);
  draw_axes(canvas, chart, panel);
  for (std::size_t i = 0; i < panel.series.size(); ++i) draw_series(canvas, chart, panel.series[i], line_color(i));
  draw_legend(canvas, chart, panel);
}

void write_line_plots(const std::filesystem::path& path, const std::vector<PlotPanel>& panels) {
  for (const PlotPanel& panel : panels) check(panel);
  Canvas canvas(kPanelWidth * static_cast<double>(std::max<std::size_t>(panels.size(), 1)), kPanelHeight);
  for (std::size_t i = 0; i < panels.size(); ++i) draw(canvas, panels[i], {kPanelWidth * static_cast<double>(i), 0});
  write_file_atomic(path, canvas.png());
}

void write_curves(const std::filesystem::path& path, const std::vector<EpochRecord>& history) {
  PlotPanel loss{.title = "Loss",
                 .x_label = "Epoch",
                 .y_label = "Loss",
                 .series = {column(history, "train", &EpochRecord::train_loss),
                            column(history, "validation", &EpochRecord::val_loss)}};
  PlotPanel accuracy{.title = "Accuracy",
                     .x_label = "Epoch",
                     .y_label = "Accuracy (%)",
                     .series = {column(history, "train", &EpochRecord::train_acc, 100),
                                column(history, "validation", &EpochRecord::val_acc, 100)}};
  if (const EpochRecord* best = best_of(history)) {
    accuracy.series.push_back({.label = fmt::format("best: {:.2f} % (epoch {})", best->val_acc * 100, best->epoch),
                               .x = {static_cast<double>(best->epoch)},
                               .y = {best->val_acc * 100},
                               .rings = true});
  }
  write_line_plots(path, {loss, accuracy});
}

}  // namespace mmtrain
