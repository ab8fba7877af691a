#pragma once

#include <cstdint>
#include <filesystem>

#include "mmtrain/core/export.h"

namespace mmtrain::datasets {

struct GenerateImagesOptions {
  std::uint64_t seed = 0;
  int classes = 10;        ///< 1..200
  int per_class = 100;     ///< training images of each class
  int val_per_class = 20;  ///< validation images of each class
  bool quirks = false;     ///< plant the faults of real collections, see `generate_images`
};

/// How many samples the loader will find, and how many of them cannot be read.
struct GeneratedImages {
  std::int64_t train = 0, val = 0;
  std::int64_t bad_train = 0, bad_val = 0;
};

/// Makes `directory`: images 64x64 in TinyImageNet's exact layout (see `tiny_imagenet.h`, without test/), free of any
/// licence, byte-identical for the same options. A class is one of 10 shapes filled with one of 20 textures; place,
/// size and all colors are random, so that neither the mean color nor any weighted sum of pixels tells classes apart,
/// while a small convolutional net learns them in a minute. 2 % are grey.
///
/// With `quirks`: hidden and stray files, a grey image in every class, other spellings of the extension, CRLF lines and
/// no last line end in val_annotations.txt, and bad samples: in train a truncated JPEG, an empty file and a text file
/// named .JPEG, in val a truncated JPEG.
///
/// The directory appears complete or not at all. Throws `ConfigError` for options out of range or a directory that is
/// there and not empty, `Error` where it cannot be written.
MMTRAIN_API GeneratedImages generate_images(const std::filesystem::path& directory,
                                            const GenerateImagesOptions& options = {});

}  // namespace mmtrain::datasets
