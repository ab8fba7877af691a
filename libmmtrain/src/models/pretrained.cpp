#include "mmtrain/models/pretrained.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <set>
#include <string_view>

#include "mmtrain/core/error.h"

namespace mmtrain {
namespace {

// One way to turn names of the file into names of the module.
struct Renaming {
  std::string strip, add;

  std::string operator()(const std::string& name) const {
    return add + (name.starts_with(strip) ? name.substr(strip.size()) : name);
  }
};

std::size_t count_fitting(const StateDict& own, const StateDict& weights, const Renaming& rename) {
  return static_cast<std::size_t>(std::count_if(weights.begin(), weights.end(), [&](const auto& item) {
    const torch::Tensor* target = own.find(rename(item.key()));
    return target != nullptr && target->sizes() == item.value().sizes();
  }));
}

bool begins_with_part(const std::string& name, const std::string& prefix) {
  return name.starts_with(prefix) &&
         (name.size() == prefix.size() || prefix.empty() || prefix.back() == '.' || name[prefix.size()] == '.');
}

// The parts that names have where `prefix` goes wrong.
std::set<std::string> parts_at(const torch::nn::Module& module, std::string prefix) {
  std::set<std::string> parts;
  while (parts.empty()) {
    const std::size_t dot = prefix.rfind('.');
    prefix = dot == prefix.npos ? "" : prefix.substr(0, dot);
    for (const auto& item : module.named_parameters()) {
      if (!begins_with_part(item.key(), prefix)) continue;
      const std::size_t end = item.key().find('.', prefix.empty() ? 0 : prefix.size() + 1);
      parts.insert(item.key().substr(0, end));
    }
    if (prefix.empty()) break;
  }
  return parts;
}

}  // namespace

LoadReport load_pretrained(torch::nn::Module& module, const StateDict& weights,
                           const std::vector<std::string>& prefixes) {
  std::vector<Renaming> ways;
  for (const char* strip : {"", "module."}) {
    ways.push_back({strip, ""});
    for (const std::string& prefix : prefixes) ways.push_back({strip, prefix});
  }
  const StateDict own = state_dict(module);
  const auto fitting = [&](const Renaming& way) { return count_fitting(own, weights, way); };
  const auto best = std::ranges::max_element(ways, {}, fitting);
  if (fitting(*best) == 0) {
    throw DataError(
        fmt::format("[load_pretrained] none of {} tensors fits the model by name and shape; the file has "
                    "'{}', the model '{}'",
                    weights.size(), weights.is_empty() ? "" : weights[0].key(), own.is_empty() ? "" : own[0].key()));
  }
  return load_state_dict(module, weights, {.strict = false, .partial = true, .rename = *best});
}

std::int64_t freeze(torch::nn::Module& module, const std::vector<std::string>& prefixes) {
  std::int64_t elements = 0;
  for (const std::string& prefix : prefixes) {
    bool found = false;
    for (const auto& item : module.named_parameters()) {
      if (prefix.empty() || !begins_with_part(item.key(), prefix)) continue;
      found = true;
      if (!item.value().requires_grad()) continue;
      elements += item.value().numel();
      torch::Tensor(item.value()).set_requires_grad(false);
    }
    if (!found) {
      throw ConfigError(fmt::format("[freeze] no parameter begins with '{}'; there are: {}", prefix,
                                    fmt::join(parts_at(module, prefix), ", ")));
    }
  }
  return elements;
}

}  // namespace mmtrain
