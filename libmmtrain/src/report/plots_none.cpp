#include "mmtrain/report/plots.h"

#include "mmtrain/core/log.h"

namespace mmtrain {
namespace {

void say_once() {
  log::warn_once("plots", "[Plots] no charts are written: this library was built with MMTRAIN_WITH_IMAGE=OFF");
}

}  // namespace

void write_line_plots(const std::filesystem::path&, const std::vector<PlotPanel>&) { say_once(); }

void write_curves(const std::filesystem::path&, const std::vector<EpochRecord>&) { say_once(); }

void write_confusion_matrix(const std::filesystem::path&, const ConfusionMatrix&, const std::vector<std::string>&,
                            const ConfusionPlotOptions&) {
  say_once();
}

void write_figure(const std::filesystem::path&, const std::vector<std::variant<PlotPanel, PlotBars, PlotMatrix>>&,
                  int) {
  say_once();
}

}  // namespace mmtrain
