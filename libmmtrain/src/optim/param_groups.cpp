#include "mmtrain/optim/param_groups.h"

#include <fmt/format.h>

#include <algorithm>

#include "mmtrain/core/error.h"

namespace mmtrain::optim {
namespace {

std::string group_name(const PrefixRule& rule) {
  if (!rule.name.empty()) return rule.name;
  return rule.prefix.ends_with('.') ? rule.prefix.substr(0, rule.prefix.size() - 1) : rule.prefix;
}

}  // namespace

std::vector<ParamGroup> named_groups(const torch::nn::Module& module, const std::vector<PrefixRule>& rules) {
  std::vector<ParamGroup> groups;
  for (const PrefixRule& rule : rules) {
    groups.push_back({group_name(rule), StateDict(), rule.lr, rule.weight_decay});
  }
  groups.push_back({"default", StateDict(), {}, {}});
  for (const auto& item : module.named_parameters()) {
    const auto rule = std::find_if(rules.begin(), rules.end(), [&](const PrefixRule& candidate) {
      return item.key().starts_with(candidate.prefix);
    });
    groups[static_cast<std::size_t>(rule - rules.begin())].parameters.insert(item.key(), item.value());
  }
  for (std::size_t i = 0; i < rules.size(); ++i) {
    if (groups[i].parameters.is_empty()) {
      throw ConfigError(fmt::format(
          "[named_groups] a prefix must name a parameter that no earlier one names, '{}' does not", rules[i].prefix));
    }
  }
  if (groups.back().parameters.is_empty()) groups.pop_back();
  return groups;
}

}  // namespace mmtrain::optim
