#include "mmtrain/datasets/tiny_imagenet.h"

#include <fmt/format.h>

#include <utility>

#include "datasets/cached_source.h"
#include "datasets/file_reader.h"
#include "datasets/tiny_imagenet_index.h"
#include "mmtrain/core/error.h"
#include "mmtrain/media/image.h"

namespace mmtrain::datasets {
namespace fs = std::filesystem;
namespace {

constexpr int kChannels = 3;

std::size_t image_bytes(int size) {
  return static_cast<std::size_t>(size) * static_cast<std::size_t>(size) * kChannels;
}

}  // namespace

struct TinyImageNetFiles::Impl {
  Impl(detail::TinyImageNetIndex listed, int size)
      : index(std::move(listed)), reader(index.root), image_size(size), resize({media::Resize{size, size}}) {}

  const detail::TinyImageNetIndex index;
  const detail::FileReader reader;
  const int image_size;
  const media::ImageTransform resize;
};

bool is_tiny_imagenet(const fs::path& directory) { return detail::find_tiny_imagenet(directory).has_value(); }

TinyImageNetFiles::TinyImageNetFiles(const fs::path& directory, const std::string& split, int image_size) {
  if (image_size < 1) throw ConfigError(fmt::format("[TinyImageNet] image_size must be positive, got {}", image_size));
  impl_ = std::make_unique<Impl>(detail::index_tiny_imagenet(directory, split), image_size);
}

TinyImageNetFiles::~TinyImageNetFiles() = default;

const fs::path& TinyImageNetFiles::root() const { return impl_->index.root; }
const std::vector<std::int64_t>& TinyImageNetFiles::labels() const { return impl_->index.labels; }
const std::vector<std::string>& TinyImageNetFiles::class_names() const { return impl_->index.class_names; }
const std::vector<std::string>& TinyImageNetFiles::wnids() const { return impl_->index.wnids; }

std::vector<TensorSpec> TinyImageNetFiles::spec() const {
  return {{"image", {impl_->image_size, impl_->image_size, kChannels}, torch::kUInt8}};
}

std::int64_t TinyImageNetFiles::size() const { return static_cast<std::int64_t>(impl_->index.files.size()); }

std::span<const std::span<const std::byte>> TinyImageNetFiles::read(std::int64_t index, Scratch& scratch) const {
  const std::string& file = impl_->index.files.at(static_cast<std::size_t>(index));
  const std::span<const std::byte> encoded = impl_->reader.read(file, scratch.file);
  const int size = impl_->image_size;
  // The decoder's image borrows the scratch memory: no copy, no allocation.
  media::Image image;
  image.pixels = std::move(scratch.decoded);
  media::decode_image(encoded, image);
  if (image.height != size || image.width != size) {
    RandomStream unused(0);
    image = impl_->resize.apply_uint8(image.view(), unused);
  }
  scratch.decoded = std::move(image.pixels);
  scratch.fields.assign({std::as_bytes(std::span(scratch.decoded)).first(image_bytes(size))});
  return scratch.fields;
}

std::string TinyImageNetFiles::sample_name(std::int64_t index) const {
  return (impl_->index.root / impl_->index.files.at(static_cast<std::size_t>(index))).string();
}

std::string TinyImageNetFiles::fingerprint() const {
  std::string text = fmt::format("images {}\n", impl_->image_size);
  for (const std::string& file : impl_->index.files) {
    const auto status = impl_->reader.status(file);
    const auto entry =
        status ? fmt::format("{} {} {}.{}\n", file, status->st_size, status->st_mtim.tv_sec, status->st_mtim.tv_nsec)
               : fmt::format("{} missing\n", file);
    text += entry;
  }
  return text;
}

std::shared_ptr<ImageDataset> tiny_imagenet(const fs::path& directory, const std::string& split,
                                            media::ImageTransform transform, const TinyImageNetOptions& options) {
  const auto files = std::make_shared<TinyImageNetFiles>(directory, split, options.image_size);
  auto source = detail::cached_source(files, {.cache = options.cache,
                                              .split = split,
                                              .shape = fmt::format("{0}x{0}", options.image_size),
                                              .things = "images",
                                              .data_dir = files->root(),
                                              .num_workers = options.num_workers});
  return std::make_shared<ImageDataset>(std::move(source), files->labels(), files->class_names(), std::move(transform));
}

}  // namespace mmtrain::datasets
