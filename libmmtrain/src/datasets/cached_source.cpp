#include "datasets/cached_source.h"

#include <fmt/format.h>

#include <chrono>

#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/core/progress.h"
#include "mmtrain/data/decode_cache.h"

namespace mmtrain::datasets::detail {

std::shared_ptr<const SampleSource> cached_source(std::shared_ptr<const SampleSource> files,
                                                  const CachedSourceOptions& options) {
  if (options.cache == "off") return files;
  using Clock = std::chrono::steady_clock;
  ProgressLine line("decoding " + options.split, files->size());
  const Clock::time_point start = Clock::now();
  const auto progress = [&](std::int64_t done, std::int64_t) {
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    line.update(done, fmt::format("{:.0f} {}/s", static_cast<double>(done) / seconds, options.things));
  };
  const DecodeCacheOptions place{.name = options.split + "-" + options.shape,
                                 .place = options.cache == "auto" ? "" : options.cache,
                                 .data_dir = options.data_dir,
                                 .num_workers = options.num_workers,
                                 .progress = progress};
  try {
    return DecodeCache::open_or_build(files, place);
  } catch (const Error& error) {
    // "auto" is a wish, a path a demand.
    if (options.cache != "auto") throw;
    log::warning(fmt::format("{}; {} are decoded each time instead", error.what(), options.things));
    return files;
  }
}

}  // namespace mmtrain::datasets::detail
