#include "data/cache_format.h"

#include <c10/util/hash.h>
#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "mmtrain/core/error.h"

namespace mmtrain::detail {
namespace {

using Json = nlohmann::json;

constexpr const char* kFormatKey = "format";
constexpr const char* kFormat = "mmtrain decode cache 1";
constexpr const char* kFingerprintKey = "fingerprint";
constexpr const char* kStateKey = "state";
constexpr const char* kComplete = "complete";
constexpr const char* kBadKey = "bad_samples";

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

std::vector<SafetensorsEntry> entries_of(const CacheKey& key) {
  std::vector<SafetensorsEntry> entries{{std::string(kStatusField), SafetensorsType::u8, {key.samples}}};
  for (const TensorSpec& field : key.spec) {
    if (field.name == kStatusField) throw ConfigError("[DecodeCache] a field must not be called 'status'");
    std::vector<std::int64_t> shape{key.samples};
    shape.insert(shape.end(), field.shape.begin(), field.shape.end());
    entries.push_back({field.name, file_type(field), std::move(shape)});
  }
  return entries;
}

// The header stands before the data, so its length is fixed before the bad samples are known. There is room for any
// sensible number of them.
std::size_t header_room(const CacheKey& key) {
  constexpr std::size_t kLeast = 4096, kPerSample = 64, kMost = 1 << 20;
  const std::size_t fields = 256 * (key.spec.size() + 1);
  return kLeast + fields + std::min(kMost, kPerSample * static_cast<std::size_t>(key.samples));
}

// Lays the file out with a header of exactly `header_room` bytes; empty if that is too little.
SafetensorsLayout padded_layout(const CacheKey& key, const std::string& state, const std::string& bad_json) {
  SafetensorsMetadata metadata{
      {kFormatKey, kFormat}, {kFingerprintKey, key.fingerprint}, {kStateKey, state}, {kBadKey, bad_json}};
  const std::size_t room = header_room(key) / 8 * 8, used = safetensors_layout(entries_of(key), metadata).header.size();
  if (used > room) return {};
  // Blanks around JSON mean nothing.
  metadata[kBadKey].append(room - used, ' ');
  return safetensors_layout(entries_of(key), metadata);
}

std::string to_json(const BadRows& bad) {
  std::map<std::string, std::vector<std::int64_t>> by_reason;
  for (const auto& [index, reason] : bad) by_reason[reason].push_back(index);
  return Json(by_reason).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string metadata_of(const SafetensorsFile& file, const char* key) {
  const auto found = file.metadata().find(key);
  return found == file.metadata().end() ? "" : found->second;
}

}  // namespace

CacheKey::CacheKey(const SampleSource& source)
    : spec(source.spec()), samples(source.size()), fingerprint(c10::sha1("mmtrain " + source.fingerprint()).str()) {}

SafetensorsLayout unfinished_layout(const CacheKey& key, std::string_view session) {
  return padded_layout(key, fmt::format("unfinished in {}", session), "{}");
}

SafetensorsLayout finished_layout(const CacheKey& key, const BadRows& bad) {
  SafetensorsLayout layout = padded_layout(key, kComplete, to_json(bad));
  // The status of each row says that it is bad; only the reasons are lost.
  return layout.header.empty() ? padded_layout(key, kComplete, "{}") : layout;
}

std::string mismatch(const SafetensorsFile& file, const CacheKey& key) {
  if (metadata_of(file, kFormatKey) != kFormat) return "is no decode cache";
  if (metadata_of(file, kStateKey) != kComplete) return "is not complete";
  if (metadata_of(file, kFingerprintKey) != key.fingerprint) return "belongs to another state of the data";
  for (const SafetensorsEntry& wanted : entries_of(key)) {
    const SafetensorsEntry* found = file.find(wanted.name);
    if (found == nullptr || found->type != wanted.type || found->shape != wanted.shape) {
      return fmt::format("has another form of '{}'", wanted.name);
    }
  }
  return {};
}

BadRows bad_rows(const SafetensorsFile& file) {
  BadRows bad;
  const Json by_reason = Json::parse(metadata_of(file, kBadKey), nullptr, /*allow_exceptions=*/false);
  if (!by_reason.is_object()) return bad;
  for (const auto& [reason, indices] : by_reason.items()) {
    for (const Json& index : indices) {
      if (index.is_number_integer()) bad.emplace(index.get<std::int64_t>(), reason);
    }
  }
  return bad;
}

}  // namespace mmtrain::detail
