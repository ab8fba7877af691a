#include "data/collate.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>

#include "mmtrain/core/error.h"

namespace mmtrain::detail {
namespace {

bool fits(const TensorSpec& spec, torch::IntArrayRef sizes) {
  return std::equal(spec.shape.begin(), spec.shape.end(), sizes.begin(), sizes.end(),
                    [](std::int64_t wanted, std::int64_t size) { return wanted < 0 || wanted == size; });
}

std::vector<std::int64_t> varying_dimensions(const TensorSpec& spec) {
  std::vector<std::int64_t> dimensions;
  for (std::size_t dimension = 0; dimension < spec.shape.size(); ++dimension) {
    if (spec.shape[dimension] < 0) dimensions.push_back(static_cast<std::int64_t>(dimension));
  }
  return dimensions;
}

// One tensor of every sample, joined, and the lengths of its varying dimensions (undefined if there are none).
struct Joined {
  torch::Tensor values, lengths;
};

Joined join(const TensorSpec& spec, const std::vector<torch::Tensor>& rows, bool pinned) {
  const auto count = static_cast<std::int64_t>(rows.size());
  std::vector<std::int64_t> shape{count};
  shape.insert(shape.end(), spec.shape.begin(), spec.shape.end());
  const std::vector<std::int64_t> varying = varying_dimensions(spec);
  for (const std::int64_t dimension : varying) {
    std::int64_t longest = 0;
    for (const torch::Tensor& row : rows) longest = std::max(longest, row.size(dimension));
    shape[static_cast<std::size_t>(dimension) + 1] = longest;
  }
  const auto options = torch::TensorOptions(spec.dtype).pinned_memory(pinned);
  if (varying.empty()) {
    Joined joined{torch::empty(shape, options), {}};
    for (std::int64_t row = 0; row < count; ++row) {
      joined.values.select(0, row).copy_(rows[static_cast<std::size_t>(row)]);
    }
    return joined;
  }
  Joined joined{torch::zeros(shape, options),
                torch::empty({count, static_cast<std::int64_t>(varying.size())}, options.dtype(torch::kInt64))};
  auto* length = joined.lengths.data_ptr<std::int64_t>();
  for (std::int64_t row = 0; row < count; ++row) {
    const torch::Tensor& source = rows[static_cast<std::size_t>(row)];
    torch::Tensor place = joined.values.select(0, row);
    for (const std::int64_t dimension : varying) {
      place = place.narrow(dimension, 0, source.size(dimension));
      *length++ = source.size(dimension);
    }
    place.copy_(source);
  }
  if (varying.size() == 1) joined.lengths = joined.lengths.squeeze(1);
  return joined;
}

}  // namespace

torch::Tensor checked_tensor(const TensorSpec& spec, const torch::Tensor* tensor) {
  if (tensor == nullptr || !tensor->defined()) {
    throw ConfigError(fmt::format("[SampleDataset] get() returned no '{}', which spec() promises", spec.name));
  }
  if (tensor->scalar_type() != spec.dtype) {
    throw ConfigError(fmt::format("[SampleDataset] '{}' is {}, spec() says {}", spec.name,
                                  c10::toString(tensor->scalar_type()), c10::toString(spec.dtype)));
  }
  if (!fits(spec, tensor->sizes())) {
    throw DataError(fmt::format("'{}' has shape [{}], spec() says [{}]", spec.name, fmt::join(tensor->sizes(), ","),
                                fmt::join(spec.shape, ",")));
  }
  return *tensor;
}

Sample checked_sample(const DatasetSpec& spec, const Sample& sample) {
  Sample checked;
  for (const TensorSpec& input : spec.inputs) {
    checked.inputs.insert(input.name, checked_tensor(input, sample.inputs.find(input.name)));
  }
  if (!spec.target.name.empty()) checked.target = checked_tensor(spec.target, &sample.target);
  return checked;
}

bool has_lengths(const DatasetSpec& spec) {
  return !spec.target.fixed() ||
         std::any_of(spec.inputs.begin(), spec.inputs.end(), [](const TensorSpec& input) { return !input.fixed(); });
}

Batch collate(const DatasetSpec& spec, const std::vector<Sample>& samples, bool pinned) {
  Batch batch;
  std::vector<std::pair<std::string, torch::Tensor>> lengths;
  std::vector<torch::Tensor> rows(samples.size());
  const auto join_field = [&](const TensorSpec& field, auto&& tensor_of) {
    std::transform(samples.begin(), samples.end(), rows.begin(), tensor_of);
    Joined joined = join(field, rows, pinned);
    if (joined.lengths.defined()) lengths.emplace_back(field.name + "_lengths", std::move(joined.lengths));
    return joined.values;
  };
  for (std::size_t k = 0; k < spec.inputs.size(); ++k) {
    batch.inputs.insert(spec.inputs[k].name,
                        join_field(spec.inputs[k], [k](const Sample& sample) { return sample.inputs[k].value(); }));
  }
  if (!spec.target.name.empty()) {
    batch.target = join_field(spec.target, [](const Sample& sample) { return sample.target; });
  }
  for (auto& [name, tensor] : lengths) batch.inputs.insert(name, std::move(tensor));
  return batch;
}

}  // namespace mmtrain::detail
