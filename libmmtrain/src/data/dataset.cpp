#include "mmtrain/data/dataset.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "data/collate.h"
#include "mmtrain/core/error.h"

namespace mmtrain {
namespace {

void copy_into(std::span<std::byte> place, const torch::Tensor& tensor) {
  torch::from_blob(place.data(), tensor.sizes(), torch::TensorOptions(tensor.scalar_type())).copy_(tensor);
}

}  // namespace

bool TensorSpec::fixed() const {
  return std::none_of(shape.begin(), shape.end(), [](std::int64_t size) { return size < 0; });
}

std::int64_t TensorSpec::numel() const {
  if (!fixed()) {
    throw ConfigError(fmt::format("[TensorSpec] '{}' [{}] has no fixed size: only a SampleDataset may vary in length",
                                  name, fmt::join(shape, ",")));
  }
  return c10::multiply_integers(shape);
}

std::size_t TensorSpec::nbytes() const { return static_cast<std::size_t>(numel()) * c10::elementSize(dtype); }

std::vector<std::int64_t> class_counts(const Dataset& dataset) {
  std::vector<std::int64_t> counts(dataset.class_names().size());
  for (const std::int64_t label : dataset.labels()) {
    if (label < 0) throw DataError(fmt::format("[class_counts] a class index must not be negative, got {}", label));
    const auto index = static_cast<std::size_t>(label);
    if (index >= counts.size()) counts.resize(index + 1);
    ++counts[index];
  }
  return counts;
}

void SampleDataset::write(std::int64_t index, SampleSlot& slot) const {
  const Sample sample = detail::checked_sample(spec(), get(index));
  for (std::size_t k = 0; k < sample.inputs.size(); ++k) copy_into(slot.input<std::byte>(k), sample.inputs[k].value());
  if (sample.target.defined()) copy_into(slot.target<std::byte>(), sample.target);
}

}  // namespace mmtrain
