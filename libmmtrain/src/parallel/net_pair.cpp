#include "parallel/net_pair.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "mmtrain/core/error.h"

namespace mmtrain::parallel::detail {
namespace {

[[noreturn]] void differ(const std::string& name, const std::string& how) {
  throw ConfigError(fmt::format(
      "[replicate] '{}' {}: a factory must build a net with the same names and shapes as the module", name, how));
}

// The part of the other net called like `mine`.
template <class Dict>
auto& counterpart(const std::string& prefix, const std::string& name, const Dict& others) {
  const auto* found = others.find(name);
  if (found == nullptr) differ(prefix + name, "is missing in the replica");
  return *found;
}

template <class Dict>
void check_no_more(const std::string& prefix, const Dict& own, const Dict& others) {
  for (const auto& other : others) {
    if (!own.contains(other.key())) differ(prefix + other.key(), "is in the replica only");
  }
}

using TensorDict = torch::OrderedDict<std::string, torch::Tensor>;

void pair_tensors(const std::string& prefix, const TensorDict& own, const TensorDict& others,
                  std::vector<NetPair::Tensors>& result) {
  for (const auto& tensor : own) {
    const torch::Tensor& other = counterpart(prefix, tensor.key(), others);
    if (tensor.value().sizes() != other.sizes()) {
      differ(prefix + tensor.key(), fmt::format("is [{}] in the module and [{}] in the replica",
                                                fmt::join(tensor.value().sizes(), ","), fmt::join(other.sizes(), ",")));
    }
    result.push_back({prefix + tensor.key(), tensor.value(), other});
  }
  check_no_more(prefix, own, others);
}

}  // namespace

NetPair::NetPair(torch::nn::Module& original, torch::nn::Module& replica) { collect("", original, replica); }

void NetPair::collect(const std::string& prefix, torch::nn::Module& original, torch::nn::Module& replica) {
  modules.push_back({&original, &replica});
  pair_tensors(prefix, original.named_parameters(false), replica.named_parameters(false), parameters);
  pair_tensors(prefix, original.named_buffers(false), replica.named_buffers(false), buffers);
  const auto own = original.named_children(), others = replica.named_children();
  for (const auto& child : own) {
    collect(prefix + child.key() + ".", *child.value(), *counterpart(prefix, child.key(), others));
  }
  check_no_more(prefix, own, others);
}

void NetPair::copy_training_mode() const {
  // Changing a part changes what is below it, which comes later and is put right then.
  for (const Modules& pair : modules) {
    if (pair.replica->is_training() != pair.original->is_training()) pair.replica->train(pair.original->is_training());
  }
}

}  // namespace mmtrain::parallel::detail
