#include "mmtrain/models/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "mmtrain/core/error.h"
#include "models/checks.h"

namespace mmtrain::models {

std::int64_t scaled(std::int64_t channels, double width) {
  constexpr std::int64_t kUnit = 16;
  const double units = std::floor(static_cast<double>(channels) * width / kUnit + 0.5);
  return kUnit * std::max<std::int64_t>(1, static_cast<std::int64_t>(units));
}

void check_positive(std::int64_t value, std::string_view option, std::string_view who) {
  if (value < 1) throw ConfigError(fmt::format("[{}] {} must be positive, got {}", who, option, value));
}

void check_width(double width, std::string_view who) {
  constexpr double kMaxWidth = 16.0;
  // Written so that NaN fails too.
  if (!(width > 0.0 && width <= kMaxWidth)) {
    throw ConfigError(fmt::format("[{}] width must be in (0, {}], got {}", who, kMaxWidth, width));
  }
}

void check_probability(double p, std::string_view option, std::string_view who) {
  if (!(p >= 0 && p <= 1)) throw ConfigError(fmt::format("[{}] {} must be between 0 and 1, got {}", who, option, p));
}

void check_heads(std::int64_t d_model, std::int64_t num_heads, std::string_view who) {
  check_positive(d_model, "d_model", who);
  check_positive(num_heads, "num_heads", who);
  if (d_model % num_heads != 0) {
    throw ConfigError(fmt::format("[{}] num_heads must divide d_model, got {} and {}", who, num_heads, d_model));
  }
}

const ModelOptions& validated(const ModelOptions& options, std::string_view who) {
  constexpr std::int64_t kMinImageSize = 8;
  check_positive(options.num_classes, "num_classes", who);
  check_width(options.width, who);
  if (options.image_size < kMinImageSize) {
    throw ConfigError(
        fmt::format("[{}] image_size must be at least {} pixels, got {}", who, kMinImageSize, options.image_size));
  }
  return options;
}

}  // namespace mmtrain::models
