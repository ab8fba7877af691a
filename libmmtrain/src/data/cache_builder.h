#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "data/cache_key.h"
#include "mmtrain/data/sample_source.h"

namespace mmtrain::detail {

// Decodes all samples of a source into the file of a complete cache. Works in `partial`, or goes on there if an earlier
// build was interrupted. The caller holds the lock of the cache.
class CacheBuilder {
 public:
  using Progress = std::function<void(std::int64_t done, std::int64_t total)>;

  CacheBuilder(const SampleSource& source, const CacheKey& key, std::filesystem::path partial);

  // The file appears under `target` when all of it is on the disk.
  void build(const std::filesystem::path& target, int num_workers, const Progress& progress) const;

 private:
  class File;
  // Where the rows of a tensor lie in the file.
  struct Rows {
    std::uint64_t begin, bytes;
    std::uint64_t at(std::int64_t row) const { return begin + static_cast<std::uint64_t>(row) * bytes; }
  };

  Rows rows_of(std::string_view name) const;
  bool can_resume() const;
  void create() const;
  void demand_space() const;
  BadRows decode(const File& file, std::int64_t first, std::int64_t last) const;

  const SampleSource& source_;
  const CacheKey& key_;
  const std::filesystem::path partial_;
  const SafetensorsLayout layout_;
  std::vector<Rows> fields_;
  Rows status_;
};

}  // namespace mmtrain::detail
