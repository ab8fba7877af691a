// How optimizers are saved and loaded.
#include "mmtrain/optim/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/serialize/archive.h>
#include <torch/types.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "mmtrain/core/error.h"
#include "optim/optimizer_impl.h"

namespace mmtrain::optim {

using at::Tensor;
using detail::Bucket;
using detail::Slot;

namespace {

using Names = std::unordered_map<const void*, std::string>;

const std::string& name_of(const Tensor& param, const Names& names) {
  const auto name = names.find(param.unsafeGetTensorImpl());
  if (name == names.end()) {
    throw ConfigError(fmt::format(
        "[optim] a parameter of shape [{}] has no name; pass the named_parameters() of the module that owns it",
        fmt::join(param.sizes(), ",")));
  }
  return name->second;
}

// Takes entries out of a state that is loaded; what nobody took is unexpected.
class StateReader {
 public:
  explicit StateReader(const StateDict& state) : state_(state) {}

  const Tensor* take(const std::string& key) {
    const Tensor* value = state_.find(key);
    if (value != nullptr) taken_.insert(key);
    return value;
  }

  void require_all_taken() const {
    for (const auto& item : state_) {
      if (taken_.contains(item.key())) continue;
      throw DataError(
          fmt::format("[optim] {} of {} entries of the saved state belong to no parameter of this optimizer, such as "
                      "'{}': it is of another model, optimizer or setting",
                      state_.size() - taken_.size(), state_.size(), item.key()));
    }
  }

 private:
  const StateDict& state_;
  std::unordered_set<std::string> taken_;
};

// What was saved for one parameter; empty if nothing was.
struct SavedSlot {
  std::map<std::string, Tensor> state;
  Tensor step;
};

SavedSlot read_slot(StateReader& reader, const std::string& name, const Tensor& param,
                    const std::vector<std::string>& fields, bool counts_steps) {
  SavedSlot saved;
  std::vector<std::string> missing;
  const auto take = [&](const std::string& field) {
    const Tensor* value = reader.take(name + "/" + field);
    if (value == nullptr) missing.push_back(field);
    return value;
  };
  for (const std::string& field : fields) {
    const Tensor* value = take(field);
    if (value == nullptr) continue;
    if (value->sizes() != param.sizes()) {
      throw DataError(fmt::format("[optim] {}/{} has shape [{}], the parameter has [{}]", name, field,
                                  fmt::join(value->sizes(), ","), fmt::join(param.sizes(), ",")));
    }
    saved.state.emplace(field, *value);
  }
  if (counts_steps) {
    if (const Tensor* value = take("step")) {
      if (value->numel() != 1) throw DataError(fmt::format("[optim] {}/step must be one number", name));
      saved.step = *value;
    }
  }
  const bool nothing = saved.state.empty() && !saved.step.defined();
  if (!nothing && !missing.empty()) throw DataError(fmt::format("[optim] {}/{} is missing", name, missing.front()));
  return saved;
}

Names names_by_tensor(const StateDict& parameters) {
  Names names;
  for (const auto& item : parameters) names.emplace(item.value().unsafeGetTensorImpl(), item.key());
  return names;
}

// Names for parameters that have none: group and place in it.
StateDict positions(const std::vector<torch::optim::OptimizerParamGroup>& groups) {
  StateDict result;
  for (std::size_t group = 0; group < groups.size(); ++group) {
    const auto& params = groups[group].params();
    for (std::size_t i = 0; i < params.size(); ++i) result.insert(fmt::format("{}/{}", group, i), params[i]);
  }
  return result;
}

}  // namespace

StateDict Optimizer::state_dict() const { return state_dict(impl_->names); }

StateDict Optimizer::state_dict(const StateDict& parameters) const {
  const Names names = names_by_tensor(parameters);
  StateDict result;
  for (const Bucket& bucket : impl_->buckets) {
    const std::vector<std::string> fields = state_names(param_groups()[bucket.group].options());
    const Tensor steps = bucket.steps.cpu();
    for (std::size_t i = 0; i < bucket.slots.size(); ++i) {
      const Slot& slot = bucket.slots[i];
      const std::string& name = name_of(slot.param, names);
      if (steps.const_data_ptr<float>()[i] == 0) continue;
      for (const std::string& field : fields) {
        const auto values = slot.state.find(field);
        if (values != slot.state.end()) result.insert(name + "/" + field, values->second);
      }
      if (counts_steps()) result.insert(name + "/step", slot.step);
    }
  }
  return result;
}

void Optimizer::load_state_dict(const StateDict& state) { load_state_dict(state, impl_->names); }

void Optimizer::load_state_dict(const StateDict& state, const StateDict& parameters) {
  const at::NoGradGuard no_grad;
  impl_->fit(param_groups());
  const Names names = names_by_tensor(parameters);
  StateReader reader(state);
  std::vector<std::vector<SavedSlot>> saved;
  for (const Bucket& bucket : impl_->buckets) {
    const std::vector<std::string> fields = state_names(param_groups()[bucket.group].options());
    saved.emplace_back();
    for (const Slot& slot : bucket.slots) {
      saved.back().push_back(read_slot(reader, name_of(slot.param, names), slot.param, fields, counts_steps()));
    }
  }
  reader.require_all_taken();

  for (std::size_t b = 0; b < saved.size(); ++b) {
    Bucket& bucket = impl_->buckets[b];
    bucket.forget_lists();
    for (std::size_t i = 0; i < bucket.slots.size(); ++i) {
      Slot& slot = bucket.slots[i];
      SavedSlot& from = saved[b][i];
      slot.state.clear();
      for (auto& [field, values] : from.state) slot.state[field] = detail::laid_out_like(slot.param, values);
      if (from.step.defined()) {
        slot.step.copy_(from.step.reshape({}));
      } else {
        // Not counted by Python: state means that there was a first step, no more matters.
        slot.step.fill_(from.state.empty() ? 0 : 1);
      }
    }
  }
}

void Optimizer::save(torch::serialize::OutputArchive& archive) const {
  for (std::size_t group = 0; group < param_groups().size(); ++group) {
    torch::serialize::OutputArchive options(archive.compilation_unit());
    param_groups()[group].options().serialize(options);
    archive.write(fmt::format("options/{}", group), options);
  }
  for (const auto& item : state_dict(positions(param_groups()))) archive.write("state/" + item.key(), item.value());
}

void Optimizer::load(torch::serialize::InputArchive& archive) {
  constexpr std::string_view kState = "state/";
  const std::vector<std::string> keys = archive.keys();
  const auto groups = static_cast<std::size_t>(
      std::count_if(keys.begin(), keys.end(), [](const std::string& key) { return key.starts_with("options/"); }));
  if (groups != param_groups().size()) {
    throw DataError(
        fmt::format("[optim] the file has {} parameter groups, the optimizer {}", groups, param_groups().size()));
  }
  StateDict state;
  for (const std::string& key : keys) {
    if (!key.starts_with(kState)) continue;
    Tensor value;
    archive.read(key, value);
    state.insert(key.substr(kState.size()), value);
  }
  for (std::size_t group = 0; group < groups; ++group) {
    torch::serialize::InputArchive options;
    archive.read(fmt::format("options/{}", group), options);
    param_groups()[group].options().serialize(options);
  }
  load_state_dict(state, positions(param_groups()));
}

}  // namespace mmtrain::optim
