#include "mmtrain/media/image_transform.h"

#include <fmt/format.h>

#include <cmath>
#include <type_traits>

#include "media/image_frame.h"
#include "media/resizer.h"
#include "mmtrain/core/error.h"
#include "mmtrain/media/image_ops.h"
#include "mmtrain/media/image_sampling.h"

namespace mmtrain::media {
namespace {

using detail::ColorStep;
using detail::Frame;

/// Combines lambdas into one visitor.
template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

template <class Op>
constexpr bool works_on_planar = std::is_same_v<Op, Normalize> || std::is_same_v<Op, RandomErasing>;

void require(bool holds, const char* who, const char* rule, const std::string& value) {
  if (!holds) throw ConfigError(fmt::format("[{}] {}, got {}", who, rule, value));
}

void require_size(const char* who, int height, int width) {
  require(height > 0 && width > 0, who, "height and width must be positive", fmt::format("{} x {}", height, width));
}

void require_probability(const char* who, double p) {
  require(p >= 0 && p <= 1, who, "p must be in [0, 1]", fmt::format("{}", p));
}

void require_range(const char* who, const char* rule, const std::array<double, 2>& range, double most) {
  require(range[0] > 0 && range[0] <= range[1] && range[1] <= most, who, rule,
          fmt::format("[{}, {}]", range[0], range[1]));
}

void validate(const Resize& op) {
  require(op.height > 0 && op.width >= 0, "Resize", "height must be positive and width positive or 0",
          fmt::format("{} x {}", op.height, op.width));
}

void validate(const CenterCrop& op) { require_size("CenterCrop", op.height, op.width); }

void validate(const RandomCrop& op) {
  require_size("RandomCrop", op.height, op.width);
  require(op.padding >= 0, "RandomCrop", "padding must not be negative", fmt::format("{}", op.padding));
}

void validate(const RandomResizedCrop& op) {
  require_size("RandomResizedCrop", op.height, op.width);
  require_range("RandomResizedCrop", "scale must be a rising range in (0, 1]", op.scale, 1.0);
  require_range("RandomResizedCrop", "ratio must be a rising range of positive numbers", op.ratio, HUGE_VAL);
}

void validate(const RandomHorizontalFlip& op) { require_probability("RandomHorizontalFlip", op.p); }

void validate(const ColorJitter& op) {
  require(op.brightness >= 0 && op.contrast >= 0 && op.saturation >= 0, "ColorJitter", "strengths must not be negative",
          fmt::format("{}, {}, {}", op.brightness, op.contrast, op.saturation));
  require(op.hue >= 0 && op.hue <= 0.5, "ColorJitter", "hue must be in [0, 0.5]", fmt::format("{}", op.hue));
}

void validate(const Normalize& op) {
  for (std::size_t c = 0; c < 3; ++c) {
    require(std::isfinite(op.mean[c]), "Normalize", "mean must be finite", fmt::format("{}", op.mean[c]));
    require(op.std[c] > 0 && std::isfinite(op.std[c]), "Normalize", "std must be positive",
            fmt::format("{}", op.std[c]));
  }
}

void validate(const RandomErasing& op) {
  require_probability("RandomErasing", op.p);
  require_range("RandomErasing", "scale must be a rising range in (0, 1]", op.scale, 1.0);
  require_range("RandomErasing", "ratio must be a rising range of positive numbers", op.ratio, HUGE_VAL);
}

void validate_order(const std::vector<ImageOp>& ops) {
  bool planar = false, erased = false;
  for (const ImageOp& op : ops) {
    if (std::holds_alternative<Normalize>(op)) {
      if (planar) throw ConfigError("[ImageTransform] Normalize may come once, before RandomErasing");
      planar = true;
    } else if (std::holds_alternative<RandomErasing>(op)) {
      planar = erased = true;
    } else if (planar) {
      throw ConfigError(fmt::format("[ImageTransform] crops, flips, resizes and colour changes come before {}",
                                    erased ? "RandomErasing" : "Normalize"));
    }
  }
}

/// torchvision's rule: with width 0 the shorter side becomes `height`.
std::array<int, 2> resized(const Resize& op, int height, int width) {
  if (op.width != 0) return {op.height, op.width};
  const std::int64_t side = op.height;
  if (width <= height) return {static_cast<int>(side * height / width), op.height};
  return {op.height, static_cast<int>(side * width / height)};
}

/// The middle of an axis; a shorter axis gets the smaller half of the padding first.
int middle(int size, int wanted) {
  if (wanted > size) return -((wanted - size) / 2);
  return static_cast<int>(std::nearbyint((size - wanted) / 2.0));
}

void require_pixels(ImageView image) {
  if (image.data == nullptr || image.height <= 0 || image.width <= 0) {
    throw DataError(fmt::format("[ImageTransform] needs an image with pixels, got {} x {}", image.height, image.width));
  }
}

}  // namespace

struct ImageTransform::Scratch::Memory {
  Image pages[2];
  int next_page = 0;
  std::vector<float> planar;
  std::vector<ColorStep> steps;
  detail::Resizer resizer;
};

ImageTransform::Scratch::Scratch() : memory_(std::make_unique<Memory>()) {}
ImageTransform::Scratch::~Scratch() = default;
ImageTransform::Scratch::Scratch(Scratch&&) noexcept = default;
ImageTransform::Scratch& ImageTransform::Scratch::operator=(Scratch&&) noexcept = default;

/// One image on its way: crops and flips move the frame's window, colour changes wait in `steps` until something needs
/// their pixels.
class ImageTransform::Run {
 public:
  Run(ImageView image, RandomStream& random, Scratch::Memory& memory)
      : frame_(image), random_(random), memory_(memory) {
    memory_.steps.clear();
  }

  const Frame& frame() const { return frame_; }
  std::span<const ColorStep> steps() const { return memory_.steps; }

  /// Runs the operations that work on pixels; returns the first of the others.
  std::vector<ImageOp>::const_iterator run(const std::vector<ImageOp>& ops) {
    auto op = ops.begin();
    const auto visitor = [this]<class Op>(const Op& o) {
      if constexpr (works_on_planar<Op>)
        return false;
      else
        return (*this)(o), true;
    };
    while (op != ops.end() && std::visit(visitor, *op)) ++op;
    return op;
  }

 private:
  void operator()(const Resize& op) {
    const auto [height, width] = resized(op, frame_.height(), frame_.width());
    resize(height, width, op.antialias);
  }

  void operator()(const CenterCrop& op) {
    crop({middle(frame_.height(), op.height), middle(frame_.width(), op.width), op.height, op.width}, 0);
  }

  void operator()(const RandomCrop& op) { crop(sample_crop(op, frame_.height(), frame_.width(), random_), op.fill); }

  void operator()(const RandomResizedCrop& op) {
    crop(sample_resized_crop(op, frame_.height(), frame_.width(), random_), 0);
    resize(op.height, op.width, true);
  }

  void operator()(const RandomHorizontalFlip& op) {
    if (random_.bernoulli(op.p)) frame_.flip();
  }

  void operator()(const ColorJitter& op) {
    const JitterFactors factors = sample_jitter(op, random_);
    const std::optional<double> amounts[] = {factors.brightness, factors.contrast, factors.saturation, factors.hue};
    for (const int kind : factors.order) {
      if (const auto& amount = amounts[kind]) {
        memory_.steps.push_back({static_cast<ColorStep::Kind>(kind), static_cast<float>(*amount)});
      }
    }
  }

  void crop(const Box& box, std::uint8_t fill) {
    // A mean is that of all pixels, so colours come before a crop.
    if (!memory_.steps.empty() || frame_.conflicts(box, fill)) flatten();
    frame_.crop(box, fill);
  }

  void resize(int height, int width, bool antialias) {
    if (height == frame_.height() && width == frame_.width()) return;
    if (!memory_.steps.empty() || frame_.flipped() || frame_.padded()) flatten();
    Image& page = next_page();
    detail::reshape(page, height, width);
    memory_.resizer.resize(frame_.rows(), height, width, antialias, page.pixels.data());
    frame_ = Frame(page.view());
  }

  /// Makes the window a plain image.
  void flatten() {
    Image& page = next_page();
    detail::render(frame_, memory_.steps, memory_.planar, page);
    memory_.steps.clear();
    frame_ = Frame(page.view());
  }

  /// The frame may lie in one of the pages: the other is free.
  Image& next_page() {
    memory_.next_page = 1 - memory_.next_page;
    return memory_.pages[memory_.next_page];
  }

  Frame frame_;
  RandomStream& random_;
  Scratch::Memory& memory_;
};

ImageTransform::ImageTransform(std::vector<ImageOp> ops) : ops_(std::move(ops)) {
  for (const ImageOp& op : ops_) {
    std::visit([](const auto& o) { validate(o); }, op);
  }
  validate_order(ops_);
}

std::array<int, 2> ImageTransform::output_size(int height, int width) const {
  std::array<int, 2> size = {height, width};
  for (const ImageOp& op : ops_) {
    std::visit(Overloaded{[&](const Resize& o) { size = resized(o, size[0], size[1]); },
                          [&](const CenterCrop& o) {
                            size = {o.height, o.width};
                          },
                          [&](const RandomCrop& o) {
                            size = {o.height, o.width};
                          },
                          [&](const RandomResizedCrop& o) {
                            size = {o.height, o.width};
                          },
                          [](const auto&) {}},
               op);
  }
  return size;
}

void ImageTransform::apply(ImageView image, RandomStream& random, std::span<float> output, Scratch& scratch) const {
  require_pixels(image);
  Run run(image, random, *scratch.memory_);
  auto affine = detail::normalization({0, 0, 0}, {1, 1, 1});
  auto op = run.run(ops_);
  if (op != ops_.end()) {
    if (const auto* normalize = std::get_if<Normalize>(&*op)) {
      affine = detail::normalization(normalize->mean, normalize->std);
      ++op;
    }
  }

  const int height = run.frame().height(), width = run.frame().width();
  if (output.size() != std::size_t{3} * static_cast<std::size_t>(height) * static_cast<std::size_t>(width)) {
    throw DataError(fmt::format("[ImageTransform] the result is {} x {} pixels of 3 values, got room for {} values",
                                height, width, output.size()));
  }
  detail::render(run.frame(), run.steps(), affine, output);

  for (; op != ops_.end(); ++op) {
    const auto& erasing = std::get<RandomErasing>(*op);
    if (const auto box = sample_erasing(erasing, height, width, random)) {
      erase(output, height, width, *box, erasing.value);
    }
  }
}

Image ImageTransform::apply_uint8(ImageView image, RandomStream& random) const {
  require_pixels(image);
  Scratch scratch;
  Run run(image, random, *scratch.memory_);
  run.run(ops_);
  Image result;
  detail::render(run.frame(), run.steps(), scratch.memory_->planar, result);
  return result;
}

}  // namespace mmtrain::media
