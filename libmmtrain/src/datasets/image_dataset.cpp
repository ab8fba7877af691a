#include "mmtrain/datasets/image_dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "mmtrain/core/error.h"
#include "mmtrain/media/image.h"

namespace mmtrain::datasets {
namespace {

TensorSpec image_field(const SampleSource& source) {
  std::vector<TensorSpec> spec = source.spec();
  if (spec.size() != 1 || spec[0].dtype != torch::kUInt8 || spec[0].shape.size() != 3 || spec[0].shape[2] != 3) {
    throw ConfigError("[ImageDataset] the source must have one field, an image uint8 [H,W,3]");
  }
  return std::move(spec[0]);
}

void check_labels(const std::vector<std::int64_t>& labels, std::int64_t samples, std::size_t classes) {
  if (static_cast<std::int64_t>(labels.size()) != samples) {
    throw ConfigError(fmt::format("[ImageDataset] {} samples need as many labels, got {}", samples, labels.size()));
  }
  const auto stray = std::find_if(labels.begin(), labels.end(), [classes](std::int64_t label) {
    return label < 0 || label >= static_cast<std::int64_t>(classes);
  });
  if (stray != labels.end()) {
    throw ConfigError(fmt::format("[ImageDataset] label {} is not one of the {} classes", *stray, classes));
  }
}

}  // namespace

ImageDataset::ImageDataset(std::shared_ptr<const SampleSource> source, std::vector<std::int64_t> labels,
                           std::vector<std::string> class_names, media::ImageTransform transform, ImageFormat format)
    : source_(std::move(source)),
      labels_(std::move(labels)),
      class_names_(std::move(class_names)),
      transform_(std::move(transform)),
      format_(format) {
  const TensorSpec image = image_field(*source_);
  check_labels(labels_, source_->size(), class_names_.size());
  height_ = static_cast<int>(image.shape[0]);
  width_ = static_cast<int>(image.shape[1]);
}

DatasetSpec ImageDataset::spec() const {
  const auto [height, width] = transform_.output_size(height_, width_);
  TensorSpec image = format_ == ImageFormat::planar_float ? TensorSpec{"image", {3, height, width}, torch::kFloat32}
                                                          : TensorSpec{"image", {height, width, 3}, torch::kUInt8};
  return {{std::move(image)}};
}

std::int64_t ImageDataset::size() const { return source_->size(); }

void ImageDataset::write(std::int64_t index, SampleSlot& slot) const {
  thread_local SampleSource::Scratch source_scratch;
  thread_local media::ImageTransform::Scratch transform_scratch;
  const std::span<const std::byte> pixels = source_->read(index, source_scratch)[0];
  const media::ImageView image{reinterpret_cast<const std::uint8_t*>(pixels.data()), height_, width_};
  if (format_ == ImageFormat::planar_float) {
    transform_.apply(image, slot.random(), slot.input<float>(0), transform_scratch);
  } else {
    const media::Image result = transform_.apply_uint8(image, slot.random());
    std::ranges::copy(std::span(result.pixels).first(slot.input<std::uint8_t>(0).size()),
                      slot.input<std::uint8_t>(0).begin());
  }
  slot.target<std::int64_t>()[0] = labels_[static_cast<std::size_t>(index)];
}

std::string ImageDataset::sample_name(std::int64_t index) const { return source_->sample_name(index); }

}  // namespace mmtrain::datasets
