#include "mmtrain/data/decode_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "core/parallel_for.h"
#include "data/cache_builder.h"
#include "data/cache_key.h"
#include "data/cache_place.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/io/atomic_file.h"

namespace mmtrain {
namespace fs = std::filesystem;

using detail::CachePlace;
using detail::RowStatus;

struct DecodeCache::Key : detail::CacheKey {
  using CacheKey::CacheKey;
};

namespace {

FileLock lock_for_writing(const CachePlace& place) {
  if (std::optional<FileLock> lock = FileLock::try_lock(place.lock)) return std::move(*lock);
  log::info(fmt::format("[DecodeCache] another process builds '{}': waiting for it", place.file.string()));
  return FileLock::wait(place.lock);
}

std::string reason_of(const detail::BadRows& bad, std::int64_t index) {
  const auto found = bad.find(index);
  return found == bad.end() ? "could not be decoded when the cache was built" : found->second;
}

void remove_former(const CachePlace& place) {
  for (const fs::path& former : place.former()) {
    std::error_code error;
    fs::remove(former, error);
    if (!error) log::info(fmt::format("[DecodeCache] removed '{}', of a former state of the data", former.string()));
  }
}

}  // namespace

std::uint64_t DecodeCache::expected_bytes(const SampleSource& source) {
  // One byte of status a sample; the header does not count.
  std::uint64_t row = 1;
  for (const TensorSpec& field : source.spec()) row += field.nbytes();
  return row * static_cast<std::uint64_t>(source.size());
}

std::shared_ptr<DecodeCache> DecodeCache::open_or_build(std::shared_ptr<const SampleSource> source,
                                                        const DecodeCacheOptions& options) {
  const Key key(*source);
  const std::vector<CachePlace> places = detail::cache_places(options, key.fingerprint);
  for (const CachePlace& place : places) {
    if (auto cache = open(place.file, source, key)) return cache;
  }
  const CachePlace& place = detail::writable_place(places);
  const FileLock lock = lock_for_writing(place);
  if (auto cache = open(place.file, source, key)) return cache;
  const int workers = options.num_workers > 0 ? options.num_workers : detail::machine_threads();
  detail::CacheBuilder(*source, key, place.partial()).build(place.file, workers, options.progress);
  remove_former(place);
  return std::shared_ptr<DecodeCache>(new DecodeCache(place.file, std::move(source), key));
}

// Null if the file does not exist or cannot be used; the log says why.
std::shared_ptr<DecodeCache> DecodeCache::open(const fs::path& path, const std::shared_ptr<const SampleSource>& source,
                                               const Key& key) {
  std::error_code error;
  if (!fs::exists(path, error)) return nullptr;
  try {
    std::shared_ptr<DecodeCache> cache(new DecodeCache(path, source, key));
    const std::size_t bad = cache->bad_samples().size();
    log::info(fmt::format("[DecodeCache] using '{}': {} samples{}", path.string(), key.samples,
                          bad == 0 ? "" : fmt::format(", {} bad (remove the file to try them again)", bad)));
    return cache;
  } catch (const DataError& unusable) {
    log::warning(fmt::format("[DecodeCache] cannot use '{}', it is built anew: {}", path.string(), unusable.what()));
    return nullptr;
  }
}

DecodeCache::DecodeCache(fs::path path, std::shared_ptr<const SampleSource> source, const Key& key)
    : path_(std::move(path)), source_(std::move(source)), file_(path_) {
  const std::string fault = detail::mismatch(file_, key);
  if (!fault.empty()) throw DataError("it " + fault);
  for (const TensorSpec& field : key.spec) {
    fields_.push_back(file_.data(*file_.find(field.name)));
    row_bytes_.push_back(field.nbytes());
  }
  status_ = file_.data(*file_.find(detail::kStatusField));
  reasons_ = detail::bad_rows(file_);
}

std::vector<TensorSpec> DecodeCache::spec() const { return source_->spec(); }

std::int64_t DecodeCache::size() const { return static_cast<std::int64_t>(status_.size()); }

std::string DecodeCache::sample_name(std::int64_t index) const { return source_->sample_name(index); }

std::string DecodeCache::fingerprint() const { return source_->fingerprint(); }

std::span<const std::span<const std::byte>> DecodeCache::read(std::int64_t index, Scratch& scratch) const {
  const auto row = static_cast<std::size_t>(index);
  if (row >= status_.size()) {
    throw ConfigError(fmt::format("[DecodeCache] there is no sample {}, the cache has {}", index, status_.size()));
  }
  if (static_cast<RowStatus>(status_[row]) != RowStatus::good) throw DataError(reason_of(reasons_, index));
  scratch.fields.clear();
  for (std::size_t k = 0; k < fields_.size(); ++k) {
    scratch.fields.push_back(fields_[k].subspan(row * row_bytes_[k], row_bytes_[k]));
  }
  return scratch.fields;
}

std::vector<SampleError> DecodeCache::bad_samples() const {
  std::vector<SampleError> bad;
  for (std::size_t row = 0; row < status_.size(); ++row) {
    if (static_cast<RowStatus>(status_[row]) == RowStatus::good) continue;
    const auto index = static_cast<std::int64_t>(row);
    bad.push_back({index, sample_name(index), reason_of(reasons_, index)});
  }
  return bad;
}

}  // namespace mmtrain
