#include <mmtrain/media/image.h>
#include <mmtrain/media/image_ops.h>
#include <mmtrain/models/registry.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "common/images.h"
#include "common/predictor.h"

namespace programs {
namespace {

namespace fs = std::filesystem;
using namespace mmtrain;

// Image files of any size, as the study's nets take them.
class ImageFiles final : public Dataset {
 public:
  explicit ImageFiles(std::vector<fs::path> files) : files_(std::move(files)), transform_(image_transform("none")) {}

  DatasetSpec spec() const override { return {{TensorSpec{"image", {3, kImageSize, kImageSize}, torch::kFloat32}}}; }
  std::int64_t size() const override { return static_cast<std::int64_t>(files_.size()); }
  void write(std::int64_t index, SampleSlot& slot) const override {
    const media::Image image = media::resize(media::read_image(path(index)).view(), kImageSize, kImageSize);
    media::ImageTransform::Scratch scratch;
    transform_.apply(image.view(), slot.random(), slot.input<float>(0), scratch);
    slot.target<std::int64_t>()[0] = 0;
  }
  std::string sample_name(std::int64_t index) const override { return path(index).string(); }

 private:
  const fs::path& path(std::int64_t index) const { return files_.at(static_cast<std::size_t>(index)); }

  std::vector<fs::path> files_;
  media::ImageTransform transform_;
};

class ImagePredictor final : public Predictor {
 public:
  explicit ImagePredictor(const TrainedModel& trained)
      : net_(trained.config.get<std::string>("model").value_or("baseline")),
        width_(trained.config.get<double>("width").value_or(1)),
        classes_(static_cast<std::int64_t>(trained.class_names.size())) {}

  bool takes(const fs::path& file) const override {
    constexpr std::array<std::string_view, 5> kImages{".jpeg", ".jpg", ".png", ".bmp", ".webp"};
    return std::find(kImages.begin(), kImages.end(), small_extension(file)) != kImages.end();
  }
  std::shared_ptr<const Dataset> dataset(const std::vector<Item>& items) const override {
    std::vector<fs::path> files;
    for (const Item& item : items) files.push_back(item.file);
    return std::make_shared<ImageFiles>(std::move(files));
  }
  std::shared_ptr<Model> model() const override {
    return make_model(net_, {.num_classes = classes_, .width = width_, .image_size = kImageSize});
  }

 private:
  std::string net_;
  double width_;
  std::int64_t classes_;
};

}  // namespace

std::unique_ptr<Predictor> make_image_predictor(const TrainedModel& trained) {
  return std::make_unique<ImagePredictor>(trained);
}

}  // namespace programs
