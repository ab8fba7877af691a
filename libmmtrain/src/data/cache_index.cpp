#include "data/cache_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace mmtrain::detail {
namespace {

using Json = nlohmann::json;

constexpr const char* kFormatKey = "format";
constexpr const char* kFormat = "mmtrain decode cache 1";
constexpr const char* kFingerprintKey = "fingerprint";
constexpr const char* kStateKey = "state";
constexpr const char* kComplete = "complete";
constexpr const char* kBadKey = "bad_samples";

// The header stands before the data, so its length is fixed before the bad samples are known. There is room for any
// sensible number of them.
std::size_t header_room(const CacheIndex& wanted) {
  constexpr std::size_t kLeast = 4096, kPerSample = 64, kMost = 1 << 20;
  const std::size_t fields = 256 * wanted.entries.size();
  return kLeast + fields + std::min(kMost, kPerSample * static_cast<std::size_t>(wanted.samples));
}

// Lays the file out with a header of exactly `header_room` bytes; empty if that is too little.
SafetensorsLayout padded_layout(const CacheIndex& wanted, const std::string& state, const std::string& bad_json) {
  SafetensorsMetadata metadata{
      {kFormatKey, kFormat}, {kFingerprintKey, wanted.fingerprint}, {kStateKey, state}, {kBadKey, bad_json}};
  const std::size_t room = header_room(wanted) / 8 * 8,
                    used = safetensors_layout(wanted.entries, metadata).header.size();
  if (used > room) return {};
  // Blanks around JSON mean nothing.
  metadata[kBadKey].append(room - used, ' ');
  return safetensors_layout(wanted.entries, metadata);
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

SafetensorsLayout unfinished_layout(const CacheIndex& wanted, std::string_view session) {
  return padded_layout(wanted, fmt::format("unfinished in {}", session), "{}");
}

SafetensorsLayout finished_layout(const CacheIndex& wanted, const BadRows& bad) {
  SafetensorsLayout layout = padded_layout(wanted, kComplete, to_json(bad));
  // The status of each row says that it is bad; only the reasons are lost.
  return layout.header.empty() ? padded_layout(wanted, kComplete, "{}") : layout;
}

std::string mismatch(const SafetensorsFile& file, const CacheIndex& wanted) {
  if (metadata_of(file, kFormatKey) != kFormat) return "is no decode cache";
  if (metadata_of(file, kStateKey) != kComplete) return "is not complete";
  if (metadata_of(file, kFingerprintKey) != wanted.fingerprint) return "belongs to another state of the data";
  for (const SafetensorsEntry& entry : wanted.entries) {
    const SafetensorsEntry* found = file.find(entry.name);
    if (found == nullptr || found->type != entry.type || found->shape != entry.shape) {
      return fmt::format("has another form of '{}'", entry.name);
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
