#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "mmtrain/data/sample_source.h"

namespace mmtrain::datasets::detail {

struct CachedSourceOptions {
  std::string cache = "auto";  // "auto", "off", or where the cache is to be
  std::string split, shape;    // name the cache: "train", "64x64"
  std::string things;          // what a sample is called in words: "images"
  std::filesystem::path data_dir;
  int num_workers = 0;
};

// `files` decoded once into a cache, with a line of progress; `files` itself with "off", and with a warning where
// "auto" finds no place for a cache.
std::shared_ptr<const SampleSource> cached_source(std::shared_ptr<const SampleSource> files,
                                                  const CachedSourceOptions& options);

}  // namespace mmtrain::datasets::detail
