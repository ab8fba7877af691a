#include "mmtrain/batch/batch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "mmtrain/core/error.h"

namespace mmtrain {
namespace {

// Applies `change` to every tensor of `batch` that is there.
template <class Change>
Batch map(const Batch& batch, Change change) {
  Batch result;
  result.inputs.reserve(batch.inputs.size());
  for (const auto& input : batch.inputs) result.inputs.insert(input.key(), change(input.value()));
  if (batch.target.defined()) result.target = change(batch.target);
  if (batch.weights.defined()) result.weights = change(batch.weights);
  if (batch.ids.defined()) result.ids = change(batch.ids);
  return result;
}

}  // namespace

const torch::Tensor& input_called(const std::string& name, const NamedTensors& inputs) {
  if (const torch::Tensor* found = inputs.find(name)) return *found;
  throw DataError(fmt::format("[Batch] no input called '{}'; there are: {}", name, fmt::join(inputs.keys(), ", ")));
}

std::int64_t Batch::size() const {
  if (!inputs.is_empty()) return inputs[0].value().size(0);
  return target.defined() ? target.size(0) : 0;
}

Batch Batch::to(torch::Device device, bool non_blocking) const {
  return map(*this, [&](const torch::Tensor& tensor) { return tensor.to(device, non_blocking); });
}

Batch Batch::pin_memory() const {
  return map(*this, [](const torch::Tensor& tensor) { return tensor.pin_memory(); });
}

Batch Batch::narrow(std::int64_t begin, std::int64_t count) const {
  return map(*this, [&](const torch::Tensor& tensor) { return tensor.narrow(0, begin, count); });
}

std::vector<Batch> Batch::split(std::int64_t parts) const {
  if (parts < 1) throw ConfigError(fmt::format("[Batch] split needs at least one part, got {}", parts));
  const std::int64_t rows = size(), whole = rows / parts, longer = rows % parts;
  std::vector<Batch> pieces;
  pieces.reserve(static_cast<std::size_t>(parts));
  for (std::int64_t part = 0, begin = 0; part < parts; ++part) {
    const std::int64_t count = whole + (part < longer ? 1 : 0);
    pieces.push_back(narrow(begin, count));
    begin += count;
  }
  return pieces;
}

}  // namespace mmtrain
