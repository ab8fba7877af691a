#include "common/behavior_report.h"

#include <fmt/format.h>
#include <mmtrain/core/log.h>
#include <mmtrain/device/memory.h>
#include <mmtrain/io/atomic_file.h>
#include <mmtrain/report/classification_report.h>
#include <mmtrain/report/html_report.h>
#include <mmtrain/report/plots.h>
#include <mmtrain/report/report_callback.h>
#include <mmtrain/train/loggers.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

namespace programs {
namespace {

using namespace mmtrain;
using nlohmann::ordered_json;
namespace fs = std::filesystem;

// Mean and standard deviation of the folds' accuracies, and the matrix of all their windows.
struct CrossValidation {
  std::vector<double> accuracies;
  double mean = 0, deviation = 0, pooled_accuracy = 0;
  ConfusionMatrix confusion;
};

CrossValidation pool(const std::vector<MetricValues>& folds) {
  CrossValidation result;
  std::int64_t right = 0, all = 0;
  for (const MetricValues& fold : folds) {
    result.accuracies.push_back(fold.accuracy);
    if (result.confusion.empty())
      result.confusion.assign(fold.confusion.size(), std::vector<std::int64_t>(fold.confusion.size()));
    for (std::size_t t = 0; t < fold.confusion.size(); ++t) {
      for (std::size_t p = 0; p < fold.confusion.size(); ++p) {
        result.confusion[t][p] += fold.confusion[t][p];
        all += fold.confusion[t][p];
        if (t == p) right += fold.confusion[t][p];
      }
    }
  }
  const auto count = static_cast<double>(folds.size());
  result.mean = std::accumulate(result.accuracies.begin(), result.accuracies.end(), 0.0) / count;
  double squares = 0;
  for (const double accuracy : result.accuracies) squares += (accuracy - result.mean) * (accuracy - result.mean);
  result.deviation = std::sqrt(squares / count);
  result.pooled_accuracy = all > 0 ? static_cast<double>(right) / static_cast<double>(all) : 0;
  return result;
}

const ModelResult& best_of(const std::vector<ModelResult>& results) {
  return *std::max_element(results.begin(), results.end(), [](const ModelResult& a, const ModelResult& b) {
    return a.fit.best_val_acc < b.fit.best_val_acc;
  });
}

void write_comparison(const fs::path& run_dir, const std::vector<ModelResult>& results) {
  std::string csv =
      "model,parameters,epochs,best_epoch,best_val_acc,test_acc,test_f1_macro,test_f1_weighted,test_loss,"
      "samples_per_second,seconds,cv_acc_mean,cv_acc_std\n";
  log::info(fmt::format("{:<12} {:>10} {:>8} {:>9} {:>9} {:>9} {:>9}", "model", "parameters", "epochs", "val acc",
                        "test acc", "macro F1", "seconds"));
  for (const ModelResult& result : results) {
    const double speed = result.line.get<double>("samples_per_second").value_or(0);
    csv += fmt::format("{},{},{},{},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.2f},{:.2f}", result.name, result.parameters,
                       result.fit.history.size(), result.fit.best_epoch, result.fit.best_val_acc, result.test.accuracy,
                       result.test.f1_macro, result.test.f1_weighted, result.test.loss, speed, result.seconds);
    if (result.folds.empty()) {
      csv += ",,\n";
    } else {
      const CrossValidation pooled = pool(result.folds);
      csv += fmt::format(",{:.6g},{:.6g}\n", pooled.mean, pooled.deviation);
    }
    log::info(fmt::format("{:<12} {:>10} {:>8} {:>8.2f}% {:>8.2f}% {:>9.4f} {:>9.1f}", result.name, result.parameters,
                          result.fit.history.size(), 100 * result.fit.best_val_acc, 100 * result.test.accuracy,
                          result.test.f1_macro, result.seconds));
  }
  write_file_atomic(run_dir / "model_comparison.csv", csv);
}

void write_cross_validation(const fs::path& run_dir, const std::vector<ModelResult>& results,
                            const std::vector<std::string>& class_names) {
  ordered_json models = ordered_json::object();
  for (const ModelResult& result : results) {
    if (result.folds.empty()) continue;
    const CrossValidation pooled = pool(result.folds);
    log::info(fmt::format("Cross-validation of {}: {:.2f} +- {:.2f} % over {} folds, {:.2f} % of all windows",
                          result.name, 100 * pooled.mean, 100 * pooled.deviation, pooled.accuracies.size(),
                          100 * pooled.pooled_accuracy));
    log::info(classification_report(pooled.confusion, class_names));
    models[result.name] = {{"fold_accuracies", pooled.accuracies},
                           {"mean_accuracy", pooled.mean},
                           {"std_accuracy", pooled.deviation},
                           {"pooled_accuracy", pooled.pooled_accuracy},
                           {"confusion_matrix", pooled.confusion}};
    fs::create_directories(run_dir / "plots");
    write_confusion_matrix(run_dir / "plots" / fmt::format("cross_validation_{}.png", result.name), pooled.confusion,
                           class_names, {.title = "Cross-validation of " + result.name});
  }
  if (!models.empty()) write_file_atomic(run_dir / "cross_validation.json", models.dump(2) + "\n");
}

PlotPanel curves(const std::vector<ModelResult>& results, const std::string& title, const std::string& y_label,
                 double EpochRecord::*trained, double EpochRecord::*validated, double scale) {
  PlotPanel panel{.title = title, .x_label = "Epoch", .y_label = y_label, .series = {}};
  for (const ModelResult& result : results) {
    for (const auto& [what, member] : {std::pair("train", trained), {"validation", validated}}) {
      PlotSeries series{.label = fmt::format("{}, {}", result.name, what), .x = {}, .y = {}};
      for (const EpochRecord& record : result.fit.history) {
        series.x.push_back(static_cast<double>(record.epoch));
        series.y.push_back(scale * record.*member);
      }
      panel.series.push_back(std::move(series));
    }
  }
  return panel;
}

void write_comprehensive(const fs::path& path, const std::vector<ModelResult>& results, const ModelResult& best,
                         const datasets::SensorData& data) {
  PlotBars models{.title = "Models",
                  .y_label = "Per cent",
                  .groups = {},
                  .series = {"validation", "test", "macro F1"},
                  .values = std::vector<std::vector<double>>(3)};
  for (const ModelResult& result : results) {
    models.groups.push_back(result.name);
    models.values[0].push_back(100 * result.fit.best_val_acc);
    models.values[1].push_back(100 * result.test.accuracy);
    models.values[2].push_back(100 * result.test.f1_macro);
  }
  const std::vector<std::string>& names = data.class_names;
  PlotBars f1{.title = "F1 of each class", .y_label = "F1", .groups = names, .series = {}, .values = {}};
  for (const ModelResult& result : results) {
    f1.series.push_back(result.name);
    std::vector<double>& row = f1.values.emplace_back();
    for (std::size_t c = 0; c < names.size(); ++c) row.push_back(result.report.classes.at(c).f1);
  }
  PlotBars shares{.title = "Windows of each class",
                  .y_label = "Per cent",
                  .groups = names,
                  .series = {"all"},
                  .values = {std::vector<double>(names.size())}};
  for (const datasets::SensorWindow& window : data.windows) {
    shares.values[0][static_cast<std::size_t>(window.label)] += 100.0 / static_cast<double>(data.windows.size());
  }
  write_figure(
      path, {curves(results, "Loss", "Loss", &EpochRecord::train_loss, &EpochRecord::val_loss, 1),
             curves(results, "Accuracy", "Accuracy (%)", &EpochRecord::train_acc, &EpochRecord::val_acc, 100), models,
             PlotMatrix{best.report.confusion, names, "Confusion matrix of " + best.name}, f1, shares});
}

// How many windows of whom.
ordered_json part_of(const datasets::SensorData& data, const std::vector<std::int64_t>& windows) {
  std::map<std::string, std::int64_t> people;
  for (const std::int64_t index : windows) {
    const auto recording = static_cast<std::size_t>(data.windows[static_cast<std::size_t>(index)].recording);
    ++people[data.recordings[recording].person];
  }
  return {{"windows", windows.size()}, {"windows_of_person", people}};
}

ordered_json summary_of(const std::vector<ModelResult>& results, const ModelResult& best,
                        const datasets::SensorData& data, const datasets::SensorSplit& split, const Config& config,
                        c10::Device device, double seconds) {
  std::map<std::string, std::int64_t> people, classes;
  for (const datasets::SensorWindow& window : data.windows) {
    ++people[data.recordings[static_cast<std::size_t>(window.recording)].person];
    ++classes[data.class_names[static_cast<std::size_t>(window.label)]];
  }
  ordered_json problems = ordered_json::array(), models = ordered_json::array();
  for (const datasets::SensorProblem& problem : data.problems)
    problems.push_back({{"path", problem.path}, {"reason", problem.reason}});
  for (const ModelResult& result : results) {
    ordered_json entry = ordered_json::parse(result.line.dump());
    entry["model"] = result.name;
    entry["parameters"] = result.parameters;
    entry["seconds"] = result.seconds;
    if (!result.folds.empty()) {
      const CrossValidation pooled = pool(result.folds);
      entry["cross_validation"] = {{"folds", pooled.accuracies}, {"mean", pooled.mean}, {"std", pooled.deviation}};
    }
    models.push_back(std::move(entry));
  }
  const MemoryStats memory = memory_stats(device);
  return {
      {"best_model", best.name},
      {"models", std::move(models)},
      {"data",
       {{"recordings", data.recordings.size()},
        {"windows", data.windows.size()},
        {"window_rows", data.window_rows},
        {"rate", data.rate},
        {"channels", data.channels},
        {"classes", data.class_names},
        {"windows_of_class", classes},
        {"windows_of_person", people},
        {"skipped_files", data.skipped_files},
        {"malformed_lines", data.malformed_lines},
        {"problems", std::move(problems)}}},
      {"split",
       {{"train", part_of(data, split.train)}, {"val", part_of(data, split.val)}, {"test", part_of(data, split.test)}}},
      {"device", device.str()},
      {"memory_peak_bytes", memory.peak_allocated},
      {"seconds", seconds},
      {"config", ordered_json::parse(config.dump())}};
}

}  // namespace

std::string report_models(const fs::path& run_dir, const std::vector<ModelResult>& results,
                          const datasets::SensorData& data, const datasets::SensorSplit& split, const Config& config,
                          c10::Device device, double seconds) {
  const ModelResult& best = best_of(results);
  write_comparison(run_dir, results);
  write_cross_validation(run_dir, results, data.class_names);
  write_test_report(run_dir, best.report, data.class_names);
  write_test_results(run_dir / "test_results.json", best.test, data.class_names);
  write_curves(run_dir / "plots" / "curves.png", best.fit.history);
  write_comprehensive(run_dir / "comprehensive_results.png", results, best, data);
  write_html_report(run_dir, best.fit.history);
  const ordered_json summary = summary_of(results, best, data, split, config, device, seconds);
  write_file_atomic(run_dir / "experiment_summary.json",
                    summary.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
  log::info(
      fmt::format("Best model: {}\n{}", best.name, classification_report(best.report.confusion, data.class_names)));
  const MemoryStats memory = memory_stats(device);
  log::info(fmt::format("Memory summary of {}: {} allocated, {} reserved, {} at most, {} of {} free", device.str(),
                        format_bytes(memory.allocated), format_bytes(memory.reserved),
                        format_bytes(memory.peak_allocated), format_bytes(memory.free), format_bytes(memory.total)));
  log::info(fmt::format("Everything about this run is in {} ({:.1f} s)", run_dir.string(), seconds));
  Config line = best.line;
  line.set("run_dir", run_dir.string());
  line.set("model", best.name);
  return line.dump(-1);
}

}  // namespace programs
