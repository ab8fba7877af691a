#include "mmtrain/train/loggers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "mmtrain/core/log.h"
#include "mmtrain/io/atomic_file.h"
#include "mmtrain/io/event_writer.h"

namespace mmtrain {

void ConsoleLogger::on_fit_begin(const FitInfo& info) { epochs_ = info.epochs; }

void ConsoleLogger::on_first_batch(const Batch& batch) {
  const auto describe = [](const std::string& name, const torch::Tensor& tensor) {
    return fmt::format("{} [{}] {}", name, fmt::join(tensor.sizes(), ","), c10::toString(tensor.scalar_type()));
  };
  std::string text;
  for (const auto& input : batch.inputs) text += describe(input.key(), input.value()) + ", ";
  if (batch.target.defined()) text += describe("target", batch.target) + ", ";
  const torch::Device device = batch.inputs.is_empty() ? torch::Device(torch::kCPU) : batch.inputs[0].value().device();
  log::info(fmt::format("First batch: {}on {}", text, device.str()));
}

void ConsoleLogger::on_epoch_end(const EpochRecord& record) {
  if (record.epoch % print_every_ != 0 && record.epoch != epochs_) return;
  const std::string validated = std::isnan(record.val_acc) ? ""
                                                           : fmt::format("Test Loss: {:.4f}, Test Acc: {:.2f}%, ",
                                                                         record.val_loss, 100 * record.val_acc);
  log::info(fmt::format("Epoch {:>3}/{}: Train Loss: {:.4f}, Train Acc: {:.2f}%, {}LR: {:.6f}, Time: {:.2f}s",
                        record.epoch, epochs_, record.train_loss, 100 * record.train_acc, validated, record.lr,
                        record.epoch_seconds));
  if (f1_ && !std::isnan(record.val_f1_macro))
    log::info(
        fmt::format("{:13}Test F1: macro {:.4f}, weighted {:.4f}", "", record.val_f1_macro, record.val_f1_weighted));
}

void CsvLogger::on_fit_begin(const FitInfo& info) {
  if (info.run_dir.empty()) return;
  path_ = info.run_dir / "metrics.csv";
  rows_ = info.history;
  write();
}

void CsvLogger::on_epoch_end(const EpochRecord& record) {
  if (path_.empty()) return;
  rows_.push_back(record);
  write();
}

void CsvLogger::write() const {
  std::string text =
      "epoch,train_loss,train_acc,val_loss,val_acc,val_top5,val_f1_macro,val_f1_weighted,lr,epoch_seconds,"
      "samples_per_second,data_wait_pct,skipped_samples,grad_norm,skipped_steps\n";
  for (const EpochRecord& row : rows_) {
    text +=
        fmt::format("{},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.8g},{:.4f},{:.2f},{:.3f},{},{:.6g},{}\n",
                    row.epoch, row.train_loss, row.train_acc, row.val_loss, row.val_acc, row.val_top5, row.val_f1_macro,
                    row.val_f1_weighted, row.lr, row.epoch_seconds, row.samples_per_second, row.data_wait_pct,
                    row.skipped_samples, std::abs(row.grad_norm), row.skipped_steps);
  }
  write_file_atomic(path_, text);
}

struct TensorBoardLogger::Impl {
  std::filesystem::path also;
  std::vector<std::unique_ptr<EventWriter>> writers;

  void add(const std::string& tag, double value, std::int64_t step) {
    if (std::isnan(value)) return;  // not measured
    for (const auto& writer : writers) writer->add_scalar(tag, value, step);
  }
};

TensorBoardLogger::TensorBoardLogger(std::filesystem::path also) : impl_(std::make_unique<Impl>()) {
  impl_->also = std::move(also);
}
TensorBoardLogger::~TensorBoardLogger() = default;

void TensorBoardLogger::on_fit_begin(const FitInfo& info) {
  for (const std::filesystem::path& directory : {info.run_dir, impl_->also}) {
    if (!directory.empty()) impl_->writers.push_back(std::make_unique<EventWriter>(directory));
  }
}

void TensorBoardLogger::on_epoch_end(const EpochRecord& record) {
  const auto add = [&](const std::string& tag, double value) { impl_->add(tag, value, record.epoch); };
  add("loss/train", record.train_loss);
  add("loss/val", record.val_loss);
  add("accuracy/train", record.train_acc);
  add("accuracy/val", record.val_acc);
  add("accuracy_top5/val", record.val_top5);
  add("f1_macro/val", record.val_f1_macro);
  add("f1_weighted/val", record.val_f1_weighted);
  if (record.group_rates.size() > 1) {
    for (const EpochRecord::GroupRate& rate : record.group_rates) add("lr/" + rate.group, rate.lr);
  } else {
    add("lr", record.lr);
  }
  add("samples_per_second", record.samples_per_second);
  add("data_wait_pct", record.data_wait_pct);
  add("grad_norm", record.grad_norm);
  constexpr double kMebibyte = 1024 * 1024;
  for (const EpochRecord::DeviceMemory& device : record.memory) {
    add("memory_mib/" + device.device + "/allocated", static_cast<double>(device.memory.allocated) / kMebibyte);
    add("memory_mib/" + device.device + "/reserved", static_cast<double>(device.memory.reserved) / kMebibyte);
  }
  for (const auto& writer : impl_->writers) writer->flush();
}

void TensorBoardLogger::on_fit_end(const FitResult&) { impl_->writers.clear(); }

void write_test_results(const std::filesystem::path& path, const MetricValues& values,
                        const std::vector<std::string>& class_names) {
  nlohmann::ordered_json classes = nlohmann::ordered_json::array();
  for (std::size_t k = 0; k < values.classes.size(); ++k) {
    const ClassMetrics& one = values.classes[k];
    classes.push_back({{"name", k < class_names.size() ? class_names[k] : std::to_string(k)},
                       {"precision", one.precision},
                       {"recall", one.recall},
                       {"f1", one.f1},
                       {"support", one.support}});
  }
  const nlohmann::ordered_json results = {
      {"loss", values.loss},           {"accuracy", values.accuracy},         {"top5_accuracy", values.top5},
      {"f1_macro", values.f1_macro},   {"f1_weighted", values.f1_weighted},   {"samples", values.rows},
      {"classes", std::move(classes)}, {"confusion_matrix", values.confusion}};
  write_file_atomic(path, results.dump(2) + "\n");
}

}  // namespace mmtrain
