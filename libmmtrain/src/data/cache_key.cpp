#include "data/cache_key.h"

#include <c10/util/hash.h>
#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <utility>

#include "mmtrain/core/error.h"

namespace mmtrain::detail {
namespace {

// What decoders give; a cache of anything else is a mistake.
constexpr std::array<std::pair<torch::ScalarType, SafetensorsType>, 10> kTypes{{
    {torch::kBool, SafetensorsType::boolean},
    {torch::kUInt8, SafetensorsType::u8},
    {torch::kInt8, SafetensorsType::i8},
    {torch::kInt16, SafetensorsType::i16},
    {torch::kInt32, SafetensorsType::i32},
    {torch::kInt64, SafetensorsType::i64},
    {torch::kFloat16, SafetensorsType::f16},
    {torch::kBFloat16, SafetensorsType::bf16},
    {torch::kFloat32, SafetensorsType::f32},
    {torch::kFloat64, SafetensorsType::f64},
}};

SafetensorsType file_type(const TensorSpec& field) {
  const auto* found = std::find_if(kTypes.begin(), kTypes.end(), [&](const auto& t) { return t.first == field.dtype; });
  if (found == kTypes.end()) {
    throw ConfigError(fmt::format("[DecodeCache] '{}' has type {}, which caches do not hold", field.name,
                                  c10::toString(field.dtype)));
  }
  return found->second;
}

}  // namespace

CacheKey::CacheKey(const SampleSource& source) : spec(source.spec()) {
  samples = source.size();
  fingerprint = c10::sha1("mmtrain " + source.fingerprint()).str();
  entries.push_back({std::string(kStatusField), SafetensorsType::u8, {samples}});
  for (const TensorSpec& field : spec) {
    if (field.name == kStatusField) throw ConfigError("[DecodeCache] a field must not be called 'status'");
    std::vector<std::int64_t> shape{samples};
    shape.insert(shape.end(), field.shape.begin(), field.shape.end());
    entries.push_back({field.name, file_type(field), std::move(shape)});
  }
}

}  // namespace mmtrain::detail
