#include "mmtrain/train/metrics.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <limits>
#include <numeric>

#include "mmtrain/core/error.h"

namespace mmtrain {
namespace {

constexpr std::int64_t kTop = 5;

double ratio(double numerator, double denominator) { return denominator == 0 ? 0 : numerator / denominator; }

void check_batch(const torch::Tensor& logits, const torch::Tensor& target, const torch::Tensor& row_weights,
                 std::int64_t classes) {
  if (logits.dim() != 2 || logits.size(1) != classes) {
    throw ConfigError(fmt::format("[ClassificationMetrics] logits must be [batch, {}], got [{}]", classes,
                                  fmt::join(logits.sizes(), ", ")));
  }
  const auto is_column = [&](const torch::Tensor& tensor) {
    return tensor.dim() == 1 && tensor.size(0) == logits.size(0);
  };
  if (!is_column(target) || target.scalar_type() != torch::kInt64) {
    throw ConfigError(fmt::format("[ClassificationMetrics] target must be class indices int64 [{}], got {} [{}]",
                                  logits.size(0), c10::toString(target.scalar_type()),
                                  fmt::join(target.sizes(), ", ")));
  }
  if (row_weights.defined() && !is_column(row_weights)) {
    throw ConfigError(fmt::format("[ClassificationMetrics] row_weights must be [{}], got [{}]", logits.size(0),
                                  fmt::join(row_weights.sizes(), ", ")));
  }
}

std::int64_t row_sum(const ConfusionMatrix& confusion, std::size_t row) {
  return std::accumulate(confusion[row].begin(), confusion[row].end(), std::int64_t{0});
}

// Mean over the classes that occur at all: those never seen and never predicted say nothing about the model.
double macro_f1(const std::vector<ClassMetrics>& classes, const std::vector<std::int64_t>& predicted) {
  double sum = 0;
  int present = 0;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    if (classes[c].support == 0 && predicted[c] == 0) continue;
    sum += classes[c].f1;
    ++present;
  }
  return ratio(sum, present);
}

std::vector<std::int64_t> predicted_counts(const ConfusionMatrix& confusion) {
  std::vector<std::int64_t> counts(confusion.size());
  for (const auto& row : confusion) {
    for (std::size_t c = 0; c < row.size(); ++c) counts[c] += row[c];
  }
  return counts;
}

void fill_class_figures(MetricValues& values) {
  values.classes = class_metrics(values.confusion);
  std::int64_t correct = 0;
  double weighted = 0;
  for (std::size_t c = 0; c < values.classes.size(); ++c) {
    const ClassMetrics& one = values.classes[c];
    correct += values.confusion[c][c];
    values.rows += one.support;
    weighted += one.f1 * static_cast<double>(one.support);
  }
  const auto rows = static_cast<double>(values.rows);
  values.accuracy = ratio(static_cast<double>(correct), rows);
  values.f1_weighted = ratio(weighted, rows);
  values.f1_macro = macro_f1(values.classes, predicted_counts(values.confusion));
}

}  // namespace

std::vector<ClassMetrics> class_metrics(const ConfusionMatrix& confusion) {
  for (const auto& row : confusion) {
    if (row.size() != confusion.size()) {
      throw ConfigError(
          fmt::format("[class_metrics] the confusion matrix must be square, got {} rows and one of {} columns",
                      confusion.size(), row.size()));
    }
  }
  const std::vector<std::int64_t> predicted = predicted_counts(confusion);
  std::vector<ClassMetrics> classes(confusion.size());
  for (std::size_t c = 0; c < classes.size(); ++c) {
    ClassMetrics& one = classes[c];
    one.support = row_sum(confusion, c);
    const auto hits = static_cast<double>(confusion[c][c]), seen = static_cast<double>(one.support),
               said = static_cast<double>(predicted[c]);
    one.precision = ratio(hits, said);
    one.recall = ratio(hits, seen);
    one.f1 = ratio(2 * hits, seen + said);
  }
  return classes;
}

ClassificationMetrics::ClassificationMetrics(std::int64_t classes, torch::Device device) : classes_(classes) {
  if (classes < 1) throw ConfigError(fmt::format("[ClassificationMetrics] classes must be positive, got {}", classes));
  const auto integers = torch::TensorOptions(torch::kInt64).device(device);
  counts_ = torch::zeros({classes * classes + 1}, integers);
  sums_ = torch::zeros({2}, integers.dtype(torch::kFloat64));
  columns_ = torch::arange(classes, integers);
}

void ClassificationMetrics::add(const torch::Tensor& logits, const torch::Tensor& given_target,
                                const torch::Tensor& loss_sum, const torch::Tensor& weight,
                                const torch::Tensor& row_weights) {
  const torch::NoGradGuard no_grad;
  const bool soft = given_target.is_floating_point() && given_target.dim() == 2;
  const torch::Tensor target = soft ? given_target.argmax(1) : given_target;
  check_batch(logits, target, row_weights, classes_);
  sums_.add_(
      torch::stack({loss_sum.detach().to(torch::kFloat64).squeeze(), weight.detach().to(torch::kFloat64).squeeze()}));
  if (target.size(0) == 0) return;

  torch::Tensor counted = target.ge(0);
  if (row_weights.defined()) counted = counted.logical_and(row_weights.ne(0));
  const torch::Tensor ones = counted.to(torch::kInt64);
  const torch::Tensor truth = target.clamp_min(0);
  // NaN and infinity are alike for argmax, and comparable for the rank of the target.
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const torch::Tensor scores = logits.detach().nan_to_num(infinity, infinity, -infinity);
  counts_.scatter_add_(0, truth * classes_ + scores.argmax(1), ones);

  // The rank of the target by counting better classes: no sort, and ties are settled as argmax settles them.
  const torch::Tensor column = truth.unsqueeze(1), own = scores.gather(1, column);
  const torch::Tensor better = scores.gt(own).logical_or_(scores.eq(own).logical_and_(columns_.lt(column)));
  counts_.narrow(0, classes_ * classes_, 1).add_(better.sum(1).lt(kTop).logical_and_(counted).sum());
}

MetricValues ClassificationMetrics::compute() const {
  const torch::Tensor counts = counts_.to(torch::kCPU), sums = sums_.to(torch::kCPU);
  MetricValues values;
  const auto* next = counts.const_data_ptr<std::int64_t>();
  values.confusion.reserve(static_cast<std::size_t>(classes_));
  for (std::int64_t row = 0; row < classes_; ++row, next += classes_)
    values.confusion.emplace_back(next, next + classes_);
  fill_class_figures(values);
  values.loss = sums[0].item<double>() / sums[1].item<double>();
  values.top5 = ratio(static_cast<double>(*next), static_cast<double>(values.rows));
  return values;
}

void ClassificationMetrics::reset() {
  counts_.zero_();
  sums_.zero_();
}

}  // namespace mmtrain
