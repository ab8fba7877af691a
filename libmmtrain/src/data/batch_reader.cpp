#include "data/batch_reader.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "data/collate.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/random.h"

namespace mmtrain::detail {
namespace {

// Tensors of a block start on cache lines of their own.
constexpr std::size_t kAlignment = 64;

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::vector<std::int64_t> batch_shape(std::int64_t rows, const TensorSpec& spec) {
  std::vector<std::int64_t> shape{rows};
  shape.insert(shape.end(), spec.shape.begin(), spec.shape.end());
  return shape;
}

const SampleDataset* if_collated(const Dataset& dataset, const DatasetSpec& spec) {
  if (!has_lengths(spec)) return nullptr;
  const auto* samples = dynamic_cast<const SampleDataset*>(&dataset);
  if (samples == nullptr) {
    throw ConfigError("[DataLoader] only a SampleDataset may have dimensions of varying length (-1) in its spec");
  }
  return samples;
}

// Unused blocks worth keeping: all that the queue may hold, the consumer's batch, and one in the making.
std::size_t blocks_kept(const DataLoaderOptions& options) {
  return static_cast<std::size_t>(options.num_workers) * static_cast<std::size_t>(options.prefetch_factor) + 2;
}

}  // namespace

BatchReader::BatchReader(std::shared_ptr<const Dataset> dataset, const DataLoaderOptions& options)
    : dataset_(std::move(dataset)),
      collated_(if_collated(*dataset_, dataset_->spec())),
      spec_(dataset_->spec()),
      seed_(options.seed),
      skip_(options.bad_samples == BadSamplePolicy::skip),
      pinned_(options.pin_memory || options.prefetch_device.has_value()) {
  if (collated_ != nullptr) return;
  std::size_t block = 0;
  const auto add_field = [&](const TensorSpec& spec) {
    fields_.push_back({spec, block, spec.nbytes()});
    block += aligned(spec.nbytes() * static_cast<std::size_t>(options.batch_size));
  };
  std::for_each(spec_.inputs.begin(), spec_.inputs.end(), add_field);
  if (!spec_.target.name.empty()) add_field(spec_.target);
  pool_ = std::make_shared<BufferPool>(block, blocks_kept(options));
}

BatchReader::~BatchReader() {
  if (pool_) pool_->close();
}

// Page-locked memory comes from LibTorch's own pool: it knows when a copy to the device has finished with a block,
// which is after the last tensor is gone.
std::vector<torch::Tensor> BatchReader::allocate(std::int64_t rows) const {
  std::vector<torch::Tensor> tensors;
  tensors.reserve(fields_.size());
  const std::shared_ptr<std::byte> block = pinned_ ? nullptr : pool_->acquire();
  for (const Field& field : fields_) {
    const std::vector<std::int64_t> shape = batch_shape(rows, field.spec);
    const auto options = torch::TensorOptions(field.spec.dtype);
    tensors.push_back(pinned_ ? torch::empty(shape, options.pinned_memory(true))
                              : torch::from_blob(
                                    block.get() + field.offset, shape, [block](void*) {}, options));
  }
  return tensors;
}

// Runs `read` for one sample; false if the sample is bad.
template <class Read>
bool BatchReader::attempt(std::int64_t index, ReadResult& result, Read read) const {
  try {
    read();
    return true;
  } catch (const DataError& error) {
    result.bad.push_back({index, dataset_->sample_name(index), error.what()});
    return false;
  } catch (...) {
    result.failed_sample = fmt::format("{} ({})", index, dataset_->sample_name(index));
    throw;
  }
}

torch::Tensor BatchReader::ids_tensor(const std::vector<std::int64_t>& ids) const {
  const auto options = torch::TensorOptions(torch::kInt64).pinned_memory(pinned_);
  torch::Tensor tensor = torch::empty({static_cast<std::int64_t>(ids.size())}, options);
  std::copy(ids.begin(), ids.end(), tensor.data_ptr<std::int64_t>());
  return tensor;
}

void BatchReader::read_into_slots(std::span<const std::int64_t> indices, std::int64_t epoch,
                                  const std::stop_token& stop, ReadResult& result) const {
  const auto rows = static_cast<std::int64_t>(indices.size());
  const std::vector<torch::Tensor> tensors = allocate(rows);
  std::vector<std::byte*> first_rows;
  for (const torch::Tensor& tensor : tensors) first_rows.push_back(static_cast<std::byte*>(tensor.data_ptr()));
  std::vector<std::span<std::byte>> places(fields_.size());
  const auto inputs = std::span<const std::span<std::byte>>(places).first(spec_.inputs.size());
  const bool has_target = places.size() > inputs.size();
  std::vector<std::int64_t> ids;
  ids.reserve(indices.size());
  for (const std::int64_t index : indices) {
    if (stop.stop_requested()) return;
    // A bad sample leaves its place to the next one.
    for (std::size_t k = 0; k < places.size(); ++k) {
      places[k] = {first_rows[k] + ids.size() * fields_[k].row_bytes, fields_[k].row_bytes};
    }
    SampleSlot slot(inputs, has_target ? places.back() : std::span<std::byte>(),
                    RandomStream(seed_, RandomDomain::sample, static_cast<std::uint64_t>(epoch),
                                 static_cast<std::uint64_t>(index)));
    if (attempt(index, result, [&] { dataset_->write(index, slot); })) {
      ids.push_back(index);
    } else if (!skip_) {
      return;
    }
  }
  if (ids.empty()) return;
  for (std::size_t k = 0; k < spec_.inputs.size(); ++k) result.batch.inputs.insert(spec_.inputs[k].name, tensors[k]);
  if (has_target) result.batch.target = tensors.back();
  if (ids.size() < indices.size()) result.batch = result.batch.narrow(0, static_cast<std::int64_t>(ids.size()));
  result.batch.ids = ids_tensor(ids);
}

void BatchReader::read_and_collate(const SampleDataset& dataset, std::span<const std::int64_t> indices,
                                   const std::stop_token& stop, ReadResult& result) const {
  std::vector<Sample> samples;
  std::vector<std::int64_t> ids;
  for (const std::int64_t index : indices) {
    if (stop.stop_requested()) return;
    if (attempt(index, result, [&] { samples.push_back(checked_sample(spec_, dataset.get(index))); })) {
      ids.push_back(index);
    } else if (!skip_) {
      return;
    }
  }
  if (ids.empty()) return;
  result.batch = collate(spec_, samples, pinned_);
  result.batch.ids = ids_tensor(ids);
}

ReadResult BatchReader::read(std::span<const std::int64_t> indices, std::int64_t epoch,
                             const std::stop_token& stop) const noexcept {
  ReadResult result;
  try {
    const at::NoGradGuard no_grad;
    if (collated_ != nullptr) {
      read_and_collate(*collated_, indices, stop, result);
    } else {
      read_into_slots(indices, epoch, stop, result);
    }
  } catch (...) {
    result.failure = std::current_exception();
  }
  return result;
}

}  // namespace mmtrain::detail
