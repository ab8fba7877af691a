#pragma once

#include <cstdint>
#include <string_view>

/// Range checks of the nets' options; each throws `ConfigError` naming `who`, the option and its value.
namespace mmtrain::models {

void check_positive(std::int64_t value, std::string_view option, std::string_view who);
/// In (0, 16].
void check_width(double width, std::string_view who);
void check_probability(double p, std::string_view option, std::string_view who);
/// Heads share the features of attention evenly.
void check_heads(std::int64_t d_model, std::int64_t num_heads, std::string_view who);

}  // namespace mmtrain::models
