#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "mmtrain/core/error.h"

namespace mmtrain::media::detail {

// The index of `name`; a DataError that begins with `who` and lists the names where it is none of them.
inline std::size_t find_name(std::string_view who, std::string_view name, const std::vector<std::string>& names) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  std::string known;
  for (const std::string& other : names) known += (known.empty() ? "" : ", ") + other;
  throw DataError(fmt::format("{} there is no column '{}', only: {}", who, name, known));
}

}  // namespace mmtrain::media::detail
