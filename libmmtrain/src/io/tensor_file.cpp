#include "mmtrain/io/tensor_file.h"

#include <fmt/format.h>
#include <torch/types.h>

#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include "mmtrain/core/error.h"
#include "mmtrain/io/atomic_file.h"

namespace mmtrain {
namespace {

constexpr std::array<std::pair<SafetensorsType, torch::ScalarType>, 19> kTypes{{
    {SafetensorsType::boolean, torch::kBool},
    {SafetensorsType::u8, torch::kUInt8},
    {SafetensorsType::i8, torch::kInt8},
    {SafetensorsType::f8_e5m2, torch::kFloat8_e5m2},
    {SafetensorsType::f8_e4m3, torch::kFloat8_e4m3fn},
    {SafetensorsType::f8_e8m0, torch::kFloat8_e8m0fnu},
    {SafetensorsType::f8_e4m3fnuz, torch::kFloat8_e4m3fnuz},
    {SafetensorsType::f8_e5m2fnuz, torch::kFloat8_e5m2fnuz},
    {SafetensorsType::i16, torch::kInt16},
    {SafetensorsType::u16, torch::kUInt16},
    {SafetensorsType::f16, torch::kFloat16},
    {SafetensorsType::bf16, torch::kBFloat16},
    {SafetensorsType::i32, torch::kInt32},
    {SafetensorsType::u32, torch::kUInt32},
    {SafetensorsType::f32, torch::kFloat32},
    {SafetensorsType::c64, torch::kComplexFloat},
    {SafetensorsType::f64, torch::kFloat64},
    {SafetensorsType::i64, torch::kInt64},
    {SafetensorsType::u64, torch::kUInt64},
}};

torch::ScalarType scalar_type(SafetensorsType type) {
  const auto& [own, scalar] = kTypes.at(static_cast<std::size_t>(type));
  TORCH_INTERNAL_ASSERT(own == type);
  return scalar;
}

SafetensorsEntry describe(const std::string& name, const torch::Tensor& tensor) {
  if (!tensor.defined()) throw DataError(fmt::format("[safetensors] tensor '{}' is undefined", name));
  const auto found =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const auto& pair) { return pair.second == tensor.scalar_type(); });
  if (found == kTypes.end()) {
    throw DataError(fmt::format("[safetensors] tensor '{}': the format has no type for {}; convert it first", name,
                                c10::toString(tensor.scalar_type())));
  }
  if (tensor.layout() != torch::kStrided || tensor.is_meta()) {
    throw DataError(fmt::format("[safetensors] tensor '{}' has no dense values; convert it first", name));
  }
  return {name, found->first, tensor.sizes().vec()};
}

// Row-major bytes on the host, shared with `tensor` where it has that form already. A conjugate or negative view is
// only marked so; its memory holds the values it was made from.
torch::Tensor host_values(const torch::Tensor& tensor) {
  return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous();
}

torch::Tensor copy_tensor(const SafetensorsFile& file, const SafetensorsEntry& entry) {
  torch::Tensor tensor = torch::empty(entry.shape, scalar_type(entry.type));
  const auto bytes = file.data(entry);
  if (!bytes.empty()) std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

torch::Tensor map_tensor(const std::shared_ptr<SafetensorsFile>& file, const SafetensorsEntry& entry) {
  const auto bytes = file->data(entry);
  const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
  // Kernels may not touch misaligned numbers; only files of other writers have them.
  if (bytes.empty() || address % type_size(entry.type) != 0) return copy_tensor(*file, entry);
  // The mapping is copy on write, so its memory may be written.
  return torch::from_blob(
      const_cast<std::byte*>(bytes.data()), entry.shape, [file](void*) {}, scalar_type(entry.type));
}

}  // namespace

StateDict load_safetensors(const std::filesystem::path& path, TensorLoad load) {
  const auto file = std::make_shared<SafetensorsFile>(path, MappedFile::Access::copy_on_write);
  StateDict tensors;
  tensors.reserve(file->entries().size());
  for (const SafetensorsEntry& entry : file->entries()) {
    tensors.insert(entry.name, load == TensorLoad::map ? map_tensor(file, entry) : copy_tensor(*file, entry));
  }
  return tensors;
}

void save_safetensors(const std::filesystem::path& path, const StateDict& tensors,
                      const SafetensorsMetadata& metadata) {
  std::vector<SafetensorsEntry> entries;
  for (const auto& item : tensors) entries.push_back(describe(item.key(), item.value()));
  const SafetensorsLayout layout = safetensors_layout(std::move(entries), metadata);
  AtomicFile file(path);
  file.write(layout.header);
  for (const SafetensorsEntry& entry : layout.entries) {
    const torch::Tensor values = host_values(tensors[entry.name]);
    file.write(std::span(static_cast<const std::byte*>(values.const_data_ptr()), entry.end - entry.begin));
  }
  file.commit();
}

}  // namespace mmtrain
