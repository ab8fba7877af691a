#include "report/panels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "mmtrain/core/error.h"
#include "mmtrain/io/atomic_file.h"
#include "report/axis.h"

namespace mmtrain {
namespace {

constexpr double kGroupShare = 0.8;  // of the room of a group, which its bars fill

void draw_legend(Canvas& canvas, const PlotBars& bars, const Box& frame) {
  constexpr double kGap = 16, kSample = 12;
  double x = frame.left + 6;
  for (std::size_t s = 0; s < bars.series.size(); ++s) {
    canvas.fill({x, frame.bottom() + 36, kSample, kSample}, line_color(s));
    canvas.text({x + kSample + 6, frame.bottom() + 42}, bars.series[s], {.size = kTickSize});
    x += kSample + 6 + Canvas::text_width(bars.series[s], kTickSize) + kGap;
  }
}

}  // namespace

void check(const PlotBars& bars) {
  const bool fits = bars.values.size() == bars.series.size() && !bars.groups.empty() &&
                    std::ranges::all_of(bars.values, [&](const auto& row) { return row.size() == bars.groups.size(); });
  if (fits) return;
  throw ConfigError(fmt::format("[Plots] '{}' needs a value for each of its {} series and {} groups", bars.title,
                                bars.series.size(), bars.groups.size()));
}

void draw(Canvas& canvas, const PlotBars& bars, Point corner) {
  const Box frame{corner.x + 78, corner.y + 46, kPanelWidth - 104, kPanelHeight - 120};
  double highest = 0;
  for (const auto& row : bars.values) {
    for (const double value : row) highest = std::isfinite(value) ? std::max(highest, value) : highest;
  }
  Axis axis = fit_axis(0, highest > 0 ? highest : 1, 6, 0.06);
  axis.low = 0;  // bars stand on the frame
  const auto height_of = [&](double value) { return axis.position(std::max(0.0, value)) * frame.height; };
  for (const double tick : axis.ticks()) {
    const double y = std::round(frame.bottom() - height_of(tick));
    canvas.fill({frame.left, y, frame.width, 1}, kGrid);
    canvas.text({frame.left - 9, y + 0.5}, axis.label(tick), {.size = kTickSize, .x = AlignX::right});
  }
  const double room = frame.width / static_cast<double>(bars.groups.size());
  const double width = room * kGroupShare / static_cast<double>(std::max<std::size_t>(bars.series.size(), 1));
  for (std::size_t g = 0; g < bars.groups.size(); ++g) {
    const double left = frame.left + room * (static_cast<double>(g) + (1 - kGroupShare) / 2);
    for (std::size_t s = 0; s < bars.series.size(); ++s) {
      const double value = bars.values[s][g];
      if (!std::isfinite(value)) continue;
      const double height = height_of(value), x = left + width * static_cast<double>(s);
      canvas.fill({x, frame.bottom() - height, width - 1, height}, line_color(s));
      canvas.text({x + width / 2, frame.bottom() - height - 9}, fmt::format("{:.3g}", value),
                  {.size = 11, .x = AlignX::center});
    }
    canvas.text({frame.left + room * (static_cast<double>(g) + 0.5), frame.bottom() + 10}, bars.groups[g],
                {.size = kTickSize, .x = AlignX::center, .y = AlignY::top});
  }
  canvas.fill({frame.left, frame.top, 1, frame.height + 1}, kEdge);
  canvas.fill({frame.left, frame.bottom(), frame.width, 1}, kEdge);
  canvas.text({frame.left + frame.width / 2, frame.top - 24}, bars.title,
              {.size = kTitleSize, .x = AlignX::center, .bold = true});
  canvas.text({frame.left - 60, frame.top + frame.height / 2}, bars.y_label,
              {.size = kLabelSize, .x = AlignX::center, .vertical = true});
  if (bars.series.size() > 1) draw_legend(canvas, bars, frame);
}

void write_figure(const std::filesystem::path& path,
                  const std::vector<std::variant<PlotPanel, PlotBars, PlotMatrix>>& parts, int columns) {
  if (columns < 1) throw ConfigError(fmt::format("[Plots] columns must be positive, got {}", columns));
  for (const auto& part : parts) std::visit([](const auto& chart) { check(chart); }, part);
  const auto across = std::min(static_cast<std::size_t>(columns), std::max<std::size_t>(parts.size(), 1));
  const std::size_t down = std::max<std::size_t>((parts.size() + across - 1) / across, 1);
  Canvas canvas(kPanelWidth * static_cast<double>(across), kPanelHeight * static_cast<double>(down));
  for (std::size_t k = 0; k < parts.size(); ++k) {
    const Point corner{kPanelWidth * static_cast<double>(k % across), kPanelHeight * static_cast<double>(k / across)};
    std::visit([&](const auto& chart) { draw(canvas, chart, corner); }, parts[k]);
  }
  write_file_atomic(path, canvas.png());
}

}  // namespace mmtrain
