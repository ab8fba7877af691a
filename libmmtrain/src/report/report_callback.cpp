#include "mmtrain/report/report_callback.h"

#include "mmtrain/io/atomic_file.h"
#include "mmtrain/report/classification_report.h"
#include "mmtrain/report/html_report.h"
#include "mmtrain/report/plots.h"

namespace mmtrain {
namespace {

std::filesystem::path plot_directory(const std::filesystem::path& run_dir) {
  const auto directory = run_dir / "plots";
  std::filesystem::create_directories(directory);
  return directory;
}

std::vector<std::string> names_or_indices(const std::vector<std::string>& names, std::size_t classes) {
  if (!names.empty()) return names;
  std::vector<std::string> indices;
  for (std::size_t c = 0; c < classes; ++c) indices.push_back(std::to_string(c));
  return indices;
}

}  // namespace

void write_test_report(const std::filesystem::path& run_dir, const MetricValues& metrics,
                       const std::vector<std::string>& class_names) {
  const std::vector<std::string> names = names_or_indices(class_names, metrics.confusion.size());
  write_file_atomic(run_dir / "classification_report.txt", classification_report(metrics.confusion, names));
  write_confusion_matrix(plot_directory(run_dir) / "confusion_matrix.png", metrics.confusion, names);
}

void ReportCallback::on_fit_begin(const FitInfo& info) {
  run_dir_ = info.run_dir;
  class_names_ = info.class_names;
  history_ = info.history;
}

void ReportCallback::on_epoch_end(const EpochRecord& record) {
  if (run_dir_.empty()) return;
  history_.push_back(record);
  write_curves(plot_directory(run_dir_) / "curves.png", history_);
}

void ReportCallback::on_test_end(const MetricValues& metrics) {
  if (run_dir_.empty()) return;
  write_test_report(run_dir_, metrics, class_names_);
  write_html_report(run_dir_, history_);
}

}  // namespace mmtrain
