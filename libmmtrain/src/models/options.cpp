#include "mmtrain/models/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "mmtrain/core/error.h"

namespace mmtrain::models {

std::int64_t scaled(std::int64_t channels, double width) {
  constexpr std::int64_t kUnit = 16;
  const double units = std::floor(static_cast<double>(channels) * width / kUnit + 0.5);
  return kUnit * std::max<std::int64_t>(1, static_cast<std::int64_t>(units));
}

const ModelOptions& validated(const ModelOptions& options, std::string_view who) {
  constexpr double kMaxWidth = 16.0;
  constexpr std::int64_t kMinImageSize = 8;
  if (options.num_classes < 1) {
    throw ConfigError(fmt::format("[{}] num_classes must be positive, got {}", who, options.num_classes));
  }
  // Written so that NaN fails too.
  if (!(options.width > 0.0 && options.width <= kMaxWidth)) {
    throw ConfigError(fmt::format("[{}] width must be in (0, {}], got {}", who, kMaxWidth, options.width));
  }
  if (options.image_size < kMinImageSize) {
    throw ConfigError(
        fmt::format("[{}] image_size must be at least {} pixels, got {}", who, kMinImageSize, options.image_size));
  }
  return options;
}

}  // namespace mmtrain::models
