#include "mmtrain/report/classification_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "mmtrain/core/error.h"
#include "report/utf8.h"

namespace mmtrain {
namespace {

// numpy's order of summation. The last bit of a sum decides how an average such as 0.125 is rounded, so an equal text
// needs equal sums.
double numpy_sum(std::span<const double> values) {
  constexpr std::size_t kLanes = 8, kBlock = 128;
  const std::size_t size = values.size();
  if (size > kBlock) {
    const std::size_t half = size / 2 / kLanes * kLanes;
    return numpy_sum(values.first(half)) + numpy_sum(values.subspan(half));
  }
  double sum = 0;
  std::size_t next = 0;
  if (size >= kLanes) {
    std::array<double, kLanes> lanes{};
    for (; next + kLanes <= size; next += kLanes) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += values[next + lane];
    }
    sum = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  }
  for (; next < size; ++next) sum += values[next];
  return sum;
}

struct Averages {
  double precision, recall, f1;
};

template <class Average>
Averages average_each(const std::vector<ClassMetrics>& classes, Average average) {
  const auto column = [&](double ClassMetrics::*member) {
    std::vector<double> values;
    for (const ClassMetrics& one : classes) values.push_back(one.*member);
    return average(values);
  };
  return {column(&ClassMetrics::precision), column(&ClassMetrics::recall), column(&ClassMetrics::f1)};
}

double mean(const std::vector<double>& values) { return numpy_sum(values) / static_cast<double>(values.size()); }

Averages macro_average(const std::vector<ClassMetrics>& classes) { return average_each(classes, mean); }

Averages weighted_average(const std::vector<ClassMetrics>& classes, std::int64_t rows) {
  if (rows == 0) return macro_average(classes);
  return average_each(classes, [&](std::vector<double>& values) {
    for (std::size_t c = 0; c < values.size(); ++c) values[c] *= static_cast<double>(classes[c].support);
    return numpy_sum(values) / static_cast<double>(rows);
  });
}

std::int64_t correct_rows(const ConfusionMatrix& confusion) {
  std::int64_t correct = 0;
  for (std::size_t c = 0; c < confusion.size(); ++c) correct += confusion[c][c];
  return correct;
}

// Right-aligned by characters, as Python counts them.
std::string padded(const std::string& name, std::size_t width) {
  const std::size_t length = utf8_length(name);
  return std::string(length < width ? width - length : 0, ' ') + name;
}

}  // namespace

std::string classification_report(const ConfusionMatrix& confusion, const std::vector<std::string>& class_names,
                                  int digits) {
  if (confusion.empty() || class_names.size() != confusion.size()) {
    throw ConfigError(
        fmt::format("[classification_report] each class needs a name and there must be one: {} classes, {} names",
                    confusion.size(), class_names.size()));
  }
  if (digits < 0) throw ConfigError(fmt::format("[classification_report] digits must not be negative, got {}", digits));
  const std::vector<ClassMetrics> classes = class_metrics(confusion);
  std::int64_t rows = 0;
  for (const ClassMetrics& one : classes) rows += one.support;

  std::size_t width = std::max<std::size_t>(std::string("weighted avg").size(), static_cast<std::size_t>(digits));
  for (const std::string& name : class_names) width = std::max(width, utf8_length(name));
  const std::int64_t correct = correct_rows(confusion);
  const auto support_text = [&](std::int64_t support) {
    // Where no row is right, scikit-learn's counts turn into floating-point numbers on the way.
    return fmt::format("{}{}", support, correct == 0 ? ".0" : "");
  };
  const auto line = [&](const std::string& name, const Averages& values, std::int64_t support) {
    return fmt::format("{}  {:>9.{}f} {:>9.{}f} {:>9.{}f} {:>9}\n", padded(name, width), values.precision, digits,
                       values.recall, digits, values.f1, digits, support_text(support));
  };

  std::string text =
      fmt::format("{}  {:>9} {:>9} {:>9} {:>9}\n\n", padded("", width), "precision", "recall", "f1-score", "support");
  for (std::size_t c = 0; c < classes.size(); ++c) {
    text += line(class_names[c], {classes[c].precision, classes[c].recall, classes[c].f1}, classes[c].support);
  }
  text +=
      fmt::format("\n{}  {:>9} {:>9} {:>9.{}f} {:>9}\n", padded("accuracy", width), "", "",
                  rows == 0 ? 0 : static_cast<double>(correct) / static_cast<double>(rows), digits, support_text(rows));
  text += line("macro avg", macro_average(classes), rows);
  text += line("weighted avg", weighted_average(classes, rows), rows);
  return text;
}

}  // namespace mmtrain
