#pragma once

#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/train/metrics.h"

namespace mmtrain {

/// Precision, recall, F1 and support of each class and their averages as a text table, to the letter what
/// scikit-learn's `classification_report(y_true, y_pred, labels=range(C), target_names=class_names, digits=digits,
/// zero_division=0)` returns. `macro avg` is therefore over all classes, where `MetricValues::f1_macro` leaves out
/// those that never occur. Names are UTF-8. Throws `ConfigError` if `confusion` is empty, not square, or does not fit
/// the names.
MMTRAIN_API std::string classification_report(const ConfusionMatrix& confusion,
                                              const std::vector<std::string>& class_names, int digits = 2);

}  // namespace mmtrain
