#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "mmtrain/data/decode_cache.h"

namespace mmtrain::detail {

// Where a cache may be: the file, the lock that its writers hold, and whether caches of former states of the data may
// lie beside it under the same name.
struct CachePlace {
  std::filesystem::path file, lock;
  std::filesystem::path partial() const;
  std::vector<std::filesystem::path> former() const;

  std::string name;  // empty if the file was named by the user
};

// The places that `options` allow, best first.
std::vector<CachePlace> cache_places(const DecodeCacheOptions& options, const std::string& fingerprint);

// The first place whose folder can be written, made if need be. Throws `ConfigError` with the reason for each.
const CachePlace& writable_place(const std::vector<CachePlace>& places);

}  // namespace mmtrain::detail
