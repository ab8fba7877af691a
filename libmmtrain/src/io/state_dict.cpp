#include "mmtrain/io/state_dict.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "mmtrain/core/error.h"

namespace mmtrain {
namespace {

// Python's order: a module's parameters, then its buffers, then its children. A child registered under two names is
// listed under both.
void collect(const torch::nn::Module& module, const std::string& prefix, StateDict& result) {
  for (const auto& item : module.named_parameters(/*recurse=*/false)) result.insert(prefix + item.key(), item.value());
  for (const auto& item : module.named_buffers(/*recurse=*/false)) result.insert(prefix + item.key(), item.value());
  for (const auto& child : module.named_children()) collect(*child.value(), prefix + child.key() + ".", result);
}

std::string shape_text(const torch::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes(), ",")); }

std::string first_names(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 8;
  const std::size_t shown = std::min(names.size(), kShown);
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

struct Copy {
  torch::Tensor target, source;
};

// Pairs the two sides and fills the report; changes nothing.
std::vector<Copy> match(const StateDict& own, const StateDict& dict, const LoadOptions& options, LoadReport& report) {
  std::vector<Copy> copies;
  torch::OrderedDict<std::string, std::string> origin;  // module's name -> dict's name
  for (const auto& item : dict) {
    const std::string name = options.rename ? options.rename(item.key()) : item.key();
    if (name.empty()) continue;
    if (const std::string* other = origin.find(name)) {
      throw DataError(
          fmt::format("[load_state_dict] '{}' and '{}' are both renamed to '{}'", *other, item.key(), name));
    }
    origin.insert(name, item.key());
    const torch::Tensor* target = own.find(name);
    if (target == nullptr) {
      report.unexpected.push_back(item.key());
    } else if (target->sizes() != item.value().sizes()) {
      report.misshaped.push_back(
          fmt::format("{}: module {}, file {}", name, shape_text(*target), shape_text(item.value())));
    } else {
      report.loaded.push_back(name);
      copies.push_back({*target, item.value()});
    }
  }
  for (const auto& item : own) {
    if (!origin.contains(item.key())) report.missing.push_back(item.key());
  }
  return copies;
}

}  // namespace

StateDict state_dict(const torch::nn::Module& module) {
  StateDict result;
  collect(module, "", result);
  return result;
}

std::string LoadReport::summary() const {
  std::string text = fmt::format("{} loaded", loaded.size());
  const auto add = [&](const char* kind, const std::vector<std::string>& names) {
    if (!names.empty()) text += fmt::format("\n{} {}: {}", names.size(), kind, first_names(names));
  };
  add("missing in the file", missing);
  add("unknown to the module", unexpected);
  add("of another shape", misshaped);
  return text;
}

LoadReport load_state_dict(torch::nn::Module& module, const StateDict& dict, const LoadOptions& options) {
  LoadReport report;
  const std::vector<Copy> copies = match(state_dict(module), dict, options, report);
  const bool refused = options.strict ? !report.complete() : !options.partial && !report.misshaped.empty();
  if (refused) {
    throw DataError(
        fmt::format("[load_state_dict] weights do not fit the module, nothing was loaded: {}", report.summary()));
  }
  const torch::NoGradGuard no_grad;
  for (const auto& [target, source] : copies) torch::Tensor(target).copy_(source);
  return report;
}

}  // namespace mmtrain
