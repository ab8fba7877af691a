#pragma once

#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/train/callback.h"
#include "mmtrain/train/metrics.h"

/// Charts as PNG files, written whole or not at all. A library built without images (MMTRAIN_WITH_IMAGE=OFF) writes
/// none and says so once.
namespace mmtrain {

/// A line of a chart; both vectors are equally long. A value that is not finite leaves a gap.
struct PlotSeries {
  std::string label;
  std::vector<double> x;
  std::vector<double> y;
  bool rings = false;  ///< marks points of other lines with rings instead of drawing a line of its own
};

/// A chart: lines over a common axis, in colors that color-blind readers tell apart (Okabe and Ito).
struct PlotPanel {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<PlotSeries> series;
};

/// Writes charts side by side. Throws `ConfigError` for a series with unequal lengths, `Error` if the file cannot be
/// written.
MMTRAIN_API void write_line_plots(const std::filesystem::path& path, const std::vector<PlotPanel>& panels);

/// Writes the learning curves of a run: loss and accuracy (per cent) of training and validation over the epochs, the
/// best epoch marked. Throws as `write_line_plots`.
MMTRAIN_API void write_curves(const std::filesystem::path& path, const std::vector<EpochRecord>& history);

struct ConfusionPlotOptions {
  std::string title = "Confusion matrix";
  bool normalize = false;  ///< shows each row as shares of its sum instead of counts
};

/// Writes a confusion matrix, true classes downwards and predicted ones to the right. Small ones bear a number in each
/// cell, those above 50 classes indices instead of names. Throws `ConfigError` if the matrix is empty, not square, or
/// does not fit the names, `Error` if the file cannot be written.
MMTRAIN_API void write_confusion_matrix(const std::filesystem::path& path, const ConfusionMatrix& confusion,
                                        const std::vector<std::string>& class_names,
                                        const ConfusionPlotOptions& options = {});

/// Bars in groups: `values[s][g]` is the bar of series `s` in group `g`. A value that is not finite leaves a gap.
struct PlotBars {
  std::string title;
  std::string y_label;
  std::vector<std::string> groups;
  std::vector<std::string> series;  ///< named in a legend if there are several
  std::vector<std::vector<double>> values;
};

/// A confusion matrix with the names of its classes.
struct PlotMatrix {
  ConfusionMatrix confusion;
  std::vector<std::string> class_names;
  std::string title = "Confusion matrix";
};

/// Writes charts of all kinds on one sheet, row by row. Throws as the functions above do.
MMTRAIN_API void write_figure(const std::filesystem::path& path,
                              const std::vector<std::variant<PlotPanel, PlotBars, PlotMatrix>>& parts, int columns = 3);

}  // namespace mmtrain
