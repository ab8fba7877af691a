#include "mmtrain/data/mix.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "mmtrain/core/error.h"
#include "mmtrain/core/random.h"

namespace mmtrain {
namespace {

void check(const MixOptions& options) {
  if (!(options.alpha > 0)) throw ConfigError(fmt::format("[mix] alpha must be positive, got {}", options.alpha));
  if (!(options.probability >= 0 && options.probability <= 1)) {
    throw ConfigError(fmt::format("[mix] probability must be between 0 and 1, got {}", options.probability));
  }
}

// Gamma(shape, 1) by Marsaglia and Tsang, "A simple method for generating gamma variables", ACM TOMS 2000; logarithm,
// because the value itself underflows for small shapes.
double log_gamma_draw(RandomStream& random, double shape) {
  if (shape < 1) return log_gamma_draw(random, shape + 1) + std::log(1 - random.uniform()) / shape;
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  while (true) {
    const double normal = random.normal(), root = 1 + c * normal;
    if (root <= 0) continue;
    const double v = root * root * root;
    if (std::log(1 - random.uniform()) < 0.5 * normal * normal + d - d * v + d * std::log(v)) return std::log(d * v);
  }
}

double beta_draw(RandomStream& random, double alpha) {
  const double a = log_gamma_draw(random, alpha), b = log_gamma_draw(random, alpha);
  return 1 / (1 + std::exp(b - a));
}

torch::Tensor other_rows(const torch::Tensor& rows) { return rows.roll(1, 0); }

torch::Tensor probabilities(const torch::Tensor& target, std::int64_t num_classes) {
  if (target.dim() == 2 && target.size(1) == num_classes && target.is_floating_point()) return target;
  if (target.dim() != 1 || target.is_floating_point() || num_classes < 1) {
    throw ConfigError(
        fmt::format("[mix] targets must be class indices [B], or probabilities [B,{}] of num_classes "
                    "classes; got [{}]",
                    num_classes, fmt::join(target.sizes(), ",")));
  }
  return torch::one_hot(target, num_classes).to(torch::kFloat);
}

}  // namespace

MixParameters cutmix_parameters(double share, std::int64_t row, std::int64_t column, std::int64_t height,
                                std::int64_t width) {
  const double half = 0.5 * std::sqrt(1 - share);
  const auto half_height = static_cast<std::int64_t>(half * static_cast<double>(height));
  const auto half_width = static_cast<std::int64_t>(half * static_cast<double>(width));
  const MixBox box{.top = std::max<std::int64_t>(row - half_height, 0),
                   .left = std::max<std::int64_t>(column - half_width, 0),
                   .bottom = std::min(row + half_height, height),
                   .right = std::min(column + half_width, width)};
  const auto area = static_cast<double>((box.bottom - box.top) * (box.right - box.left));
  return {MixKind::cutmix, 1 - area / static_cast<double>(height * width), box};
}

std::optional<MixParameters> draw_mix(const MixOptions& options, std::int64_t height, std::int64_t width,
                                      std::uint64_t seed, std::int64_t epoch, std::int64_t batch_index) {
  check(options);
  RandomStream random(seed, RandomDomain::batch, static_cast<std::uint64_t>(epoch),
                      static_cast<std::uint64_t>(batch_index));
  if (!random.bernoulli(options.probability)) return std::nullopt;
  const bool cut = options.kind == MixKind::cutmix || (options.kind == MixKind::either && random.bernoulli(0.5));
  const double share = beta_draw(random, options.alpha);
  if (!cut) return MixParameters{.kind = MixKind::mixup, .share = share, .box = {}};
  const std::int64_t column = random.uniform_int(width), row = random.uniform_int(height);
  return cutmix_parameters(share, row, column, height, width);
}

torch::Tensor mix_images(const torch::Tensor& images, const MixParameters& parameters) {
  if (images.dim() != 4) {
    throw ConfigError(fmt::format("[mix] images must be [B,C,H,W], got [{}]", fmt::join(images.sizes(), ",")));
  }
  if (parameters.kind == MixKind::mixup) {
    if (!images.is_floating_point()) {
      throw ConfigError("[mix] mixup needs floating-point images: mix after conversion, or use cutmix");
    }
    return other_rows(images).mul_(1 - parameters.share).add_(images * parameters.share);
  }
  const MixBox& box = parameters.box;
  const auto inside = [&](const torch::Tensor& tensor) {
    return tensor.slice(2, box.top, box.bottom).slice(3, box.left, box.right);
  };
  torch::Tensor mixed = images.clone();
  inside(mixed).copy_(other_rows(inside(images)));
  return mixed;
}

torch::Tensor mix_targets(const torch::Tensor& target, const MixParameters& parameters, std::int64_t num_classes) {
  const torch::Tensor own = probabilities(target, num_classes);
  return other_rows(own).mul_(1 - parameters.share).add_(own * parameters.share);
}

Batch mix(const Batch& batch, const MixOptions& options, std::uint64_t seed, std::int64_t epoch,
          std::int64_t batch_index) {
  const torch::Tensor& images = batch.input(options.input);
  const auto parameters = draw_mix(options, images.size(-2), images.size(-1), seed, epoch, batch_index);
  Batch mixed = batch;
  if (!parameters) {
    mixed.target = probabilities(batch.target, options.num_classes);
    return mixed;
  }
  mixed.inputs[options.input] = mix_images(images, *parameters);
  mixed.target = mix_targets(batch.target, *parameters, options.num_classes);
  return mixed;
}

}  // namespace mmtrain
