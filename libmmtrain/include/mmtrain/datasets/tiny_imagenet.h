#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/data/sample_source.h"
#include "mmtrain/datasets/image_dataset.h"
#include "mmtrain/media/image_transform.h"

/// TinyImageNet-200 as it is published, and as people keep it:
///
///     wnids.txt                      one class a line; the line number is the class index
///     words.txt                      class TAB names (may be absent)
///     train/<wnid>/images/*.JPEG     .jpeg, .jpg in any case; other and hidden files are ignored
///     val/images/*, val/val_annotations.txt (file TAB class ...), or val/<wnid>/images/*.JPEG
///
/// Class folders may also hold the images directly. Without wnids.txt the folders of train/ are the classes, in
/// alphabetical order. A list of classes longer than the folders is fine (a subset), and said.
namespace mmtrain::datasets {

/// Whether `directory` or a folder tiny-imagenet* in it has this layout.
MMTRAIN_API bool is_tiny_imagenet(const std::filesystem::path& directory);

/// The files of one split as uint8 images `[S,S,3]`; grey ones are spread over three channels, those of another size
/// are resized. Thread-safe.
class MMTRAIN_API TinyImageNetFiles final : public SampleSource {
 public:
  /// Lists the files of `split`, "train" or "val". Throws `DataError` naming file and line for a directory that is
  /// missing or has no images, and a label file that cannot be read or names unknown classes.
  TinyImageNetFiles(const std::filesystem::path& directory, const std::string& split, int image_size = 64);
  ~TinyImageNetFiles() override;

  /// The directory that holds wnids.txt.
  const std::filesystem::path& root() const;
  /// Class of each sample.
  const std::vector<std::int64_t>& labels() const;
  /// First name of each class in words.txt, or its wnid; made unique by the wnid where two classes share a name.
  const std::vector<std::string>& class_names() const;
  const std::vector<std::string>& wnids() const;

  std::vector<TensorSpec> spec() const override;
  std::int64_t size() const override;
  std::span<const std::span<const std::byte>> read(std::int64_t index, Scratch& scratch) const override;
  std::string sample_name(std::int64_t index) const override;
  /// Names, sizes and times of change of all files, and the image size.
  std::string fingerprint() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct TinyImageNetOptions {
  int image_size = 64;
  /// "off": decode each time. "auto": a `DecodeCache` beside the data or in the user's cache folder; if there is no
  /// room for it, a warning and no cache. Else the folder for the cache, which must be usable.
  std::string cache = "off";
  int num_workers = 0;  ///< threads that build the cache; 0: all the machine has
};

/// A split of TinyImageNet, ready for a `DataLoader`. Throws as `TinyImageNetFiles` does.
MMTRAIN_API std::shared_ptr<ImageDataset> tiny_imagenet(const std::filesystem::path& directory,
                                                        const std::string& split, media::ImageTransform transform,
                                                        const TinyImageNetOptions& options = {});

}  // namespace mmtrain::datasets
