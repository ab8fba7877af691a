#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/data/sample_source.h"
#include "mmtrain/io/safetensors.h"

namespace mmtrain {

struct DecodeCacheOptions {
  /// Names the cache among those of one folder, e.g. "train-64x64". A new cache replaces former ones of its name.
  std::string name;
  /// A folder, or the file itself if it ends in `.safetensors`. Empty: `<data_dir>/.mmtrain_cache`, or where that
  /// cannot be written a folder for `data_dir` under `$XDG_CACHE_HOME/mmtrain/data` (default `~/.cache/mmtrain/data`).
  std::filesystem::path place = {};
  /// Where the source's files are; needed if `place` is empty.
  std::filesystem::path data_dir = {};
  int num_workers = 0;  ///< threads that decode; 0: as many as the machine runs at once
  /// Called on the calling thread several times a second while the cache is built; an exception stops the building,
  /// which the next call takes up where it stopped.
  std::function<void(std::int64_t done, std::int64_t total)> progress = {};
};

/// Decoded samples of a source in one file, decoded once and mapped ever after: the same bytes as the source's, without
/// copying. The file is in safetensors format, readable from Python: one tensor `[N, ...]` for each field, and `status`
/// uint8 `[N]` (0 good, 1 bad). Its metadata hold a hash of the source's fingerprint and, as JSON, the bad samples by
/// reason.
class MMTRAIN_API DecodeCache final : public SampleSource {
 public:
  /// Opens the cache of `source`. Builds it if there is none, if it belongs to another state of the source or is
  /// damaged, and says so in the log. It is built under another name and renamed when complete, so that an interrupted
  /// build (a crash, `kill -9`) is taken up by the next call. When several processes want it at once, one builds and
  /// the others wait. Throws `ConfigError` if no place can be written, `Error` if the disk has not enough room (before
  /// anything is decoded), and what the source throws other than `DataError`.
  static std::shared_ptr<DecodeCache> open_or_build(std::shared_ptr<const SampleSource> source,
                                                    const DecodeCacheOptions& options);

  /// Bytes that a cache of `source` will take on disk.
  static std::uint64_t expected_bytes(const SampleSource& source);

  const std::filesystem::path& path() const { return path_; }

  /// Samples that could not be decoded, with the reasons; remove the file to have them tried again.
  std::vector<SampleError> bad_samples() const;

  std::vector<TensorSpec> spec() const override;
  std::int64_t size() const override;
  /// Spans of the mapped file. For a sample that was bad when the cache was built, `DataError` with the reason of then.
  std::span<const std::span<const std::byte>> read(std::int64_t index, Scratch& scratch) const override;
  std::string sample_name(std::int64_t index) const override;
  std::string fingerprint() const override;

 private:
  struct Key;

  DecodeCache(std::filesystem::path path, std::shared_ptr<const SampleSource> source, const Key& key);
  static std::shared_ptr<DecodeCache> open(const std::filesystem::path& path,
                                           const std::shared_ptr<const SampleSource>& source, const Key& key);

  std::filesystem::path path_;
  std::shared_ptr<const SampleSource> source_;
  SafetensorsFile file_;
  std::vector<std::span<const std::byte>> fields_;
  std::vector<std::size_t> row_bytes_;
  std::span<const std::byte> status_;
  std::map<std::int64_t, std::string> reasons_;
};

}  // namespace mmtrain
