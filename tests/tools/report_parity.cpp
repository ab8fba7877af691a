// Answers tests/python/report_parity.py: each line on stdin is a JSON job, each line on stdout its answer.
//   {"confusion": [[..]], "names": [..], "digits": n}                                    -> the report as a JSON string
//   {"classes": n, "dtype": "float32", "batches": [{"logits": .., "target": .., "row_weights": .., "loss_sum": x,
//    "weight": x}]}                                                                       -> the metrics as an object
// "row_weights" may be null.

#include <torch/torch.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mmtrain/report/classification_report.h"
#include "mmtrain/train/metrics.h"

namespace {

using nlohmann::json;

json report(const json& job) {
  return mmtrain::classification_report(job.at("confusion"), job.at("names"), job.at("digits"));
}

torch::Tensor column(const json& values, torch::Dtype dtype) {
  return torch::tensor(values.get<std::vector<double>>(), torch::kFloat64).to(dtype);
}

void add(mmtrain::ClassificationMetrics& metrics, const json& batch, torch::Dtype dtype) {
  std::vector<double> logits;
  for (const auto& row : batch.at("logits").get<std::vector<std::vector<double>>>()) {
    logits.insert(logits.end(), row.begin(), row.end());
  }
  const json& row_weights = batch.at("row_weights");
  metrics.add(torch::tensor(logits, torch::kFloat64).view({-1, metrics.classes()}).to(dtype),
              column(batch.at("target"), torch::kInt64), torch::tensor(batch.at("loss_sum").get<double>()),
              torch::tensor(batch.at("weight").get<double>()),
              row_weights.is_null() ? torch::Tensor() : column(row_weights, torch::kFloat32));
}

json metrics(const json& job) {
  const torch::Dtype dtype = job.at("dtype") == "float64" ? torch::kFloat64 : torch::kFloat32;
  mmtrain::ClassificationMetrics metrics(job.at("classes"));
  for (const json& batch : job.at("batches")) add(metrics, batch, dtype);
  const mmtrain::MetricValues values = metrics.compute();
  json answer = {{"loss", values.loss},          {"accuracy", values.accuracy},       {"top5", values.top5},
                 {"f1_macro", values.f1_macro},  {"f1_weighted", values.f1_weighted}, {"rows", values.rows},
                 {"confusion", values.confusion}};
  for (const mmtrain::ClassMetrics& one : values.classes) {
    answer["precision"].push_back(one.precision);
    answer["recall"].push_back(one.recall);
    answer["f1"].push_back(one.f1);
    answer["support"].push_back(one.support);
  }
  return answer;
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const json job = json::parse(line);
    std::cout << (job.contains("confusion") ? report(job) : metrics(job)).dump() << '\n';
  }
}
