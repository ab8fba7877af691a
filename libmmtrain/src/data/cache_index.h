#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "mmtrain/io/safetensors.h"

// How a decode-once cache looks inside: see `DecodeCache`. Without LibTorch, as all that reads foreign bytes.
namespace mmtrain::detail {

constexpr std::string_view kStatusField = "status";

enum class RowStatus : std::uint8_t {
  good = 0,
  bad = 1,
  missing = 255  // only while the cache is built
};

// Why samples are bad: index to reason.
using BadRows = std::map<std::int64_t, std::string>;

// What decides whether a cache can be used: content and form.
struct CacheIndex {
  std::vector<SafetensorsEntry> entries;  // one row a sample each
  std::int64_t samples = 0;
  std::string fingerprint;
};

// The file of a cache under construction. It has the same length and the same places as a complete one, but is never
// taken for one. `session` names the run of the machine in which it is written.
SafetensorsLayout unfinished_layout(const CacheIndex& wanted, std::string_view session);

// The file of a complete cache.
SafetensorsLayout finished_layout(const CacheIndex& wanted, const BadRows& bad);

// Empty if `file` is a complete cache of the wanted content and form, else why not.
std::string mismatch(const SafetensorsFile& file, const CacheIndex& wanted);

// The reasons that a complete cache holds.
BadRows bad_rows(const SafetensorsFile& file);

}  // namespace mmtrain::detail
