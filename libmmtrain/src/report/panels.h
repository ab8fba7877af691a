#pragma once

#include <cstddef>

#include "mmtrain/report/plots.h"
#include "report/canvas.h"
#include "report/plot_style.h"

namespace mmtrain {

// Size of a chart on a sheet, in pixels.
inline constexpr double kPanelWidth = 640, kPanelHeight = 460;

// Colors of series, by their number.
Color line_color(std::size_t series);

// Throw `ConfigError` for values that do not fit together.
void check(const PlotPanel& panel);
void check(const PlotBars& bars);
void check(const PlotMatrix& matrix);

// Draw a chart whose corner is at `corner`.
void draw(Canvas& canvas, const PlotPanel& panel, Point corner);
void draw(Canvas& canvas, const PlotBars& bars, Point corner);
void draw(Canvas& canvas, const PlotMatrix& matrix, Point corner);

}  // namespace mmtrain
