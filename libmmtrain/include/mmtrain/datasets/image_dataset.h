#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/data/dataset.h"
#include "mmtrain/data/sample_source.h"
#include "mmtrain/media/image_transform.h"

namespace mmtrain::datasets {

/// What an `ImageDataset` hands out.
enum class ImageFormat {
  planar_float,      ///< float `[3,h,w]`, normalized: what nets take
  interleaved_uint8  ///< uint8 `[h,w,3]`, for work on whole batches; `permute({0,3,1,2})` is channels_last
};

/// Labelled images of a source, files or their cache, each seen through a transform. One input, `image`, and the class
/// as target.
class MMTRAIN_API ImageDataset final : public Dataset {
 public:
  /// The source's only field is uint8 `[H,W,3]`; `labels` holds a class for each sample, an index into `class_names`.
  /// With `interleaved_uint8` only the part of `transform` that works on pixels is applied. Throws `ConfigError` if
  /// these do not fit together.
  ImageDataset(std::shared_ptr<const SampleSource> source, std::vector<std::int64_t> labels,
               std::vector<std::string> class_names, media::ImageTransform transform,
               ImageFormat format = ImageFormat::planar_float);

  DatasetSpec spec() const override;
  std::int64_t size() const override;
  void write(std::int64_t index, SampleSlot& slot) const override;
  std::string sample_name(std::int64_t index) const override;
  std::vector<std::string> class_names() const override { return class_names_; }
  std::vector<std::int64_t> labels() const override { return labels_; }

  const SampleSource& source() const { return *source_; }

 private:
  std::shared_ptr<const SampleSource> source_;
  std::vector<std::int64_t> labels_;
  std::vector<std::string> class_names_;
  media::ImageTransform transform_;
  ImageFormat format_;
  int height_, width_;
};

}  // namespace mmtrain::datasets
