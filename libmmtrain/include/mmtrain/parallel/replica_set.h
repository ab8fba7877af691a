#pragma once

#include <c10/core/Device.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "mmtrain/batch/batch.h"
#include "mmtrain/core/export.h"
#include "mmtrain/parallel/scatter_gather.h"

/// What `DataParallel` is made of, apart from the types of a net's inputs and outputs.
namespace mmtrain::parallel::detail {

/// A net and its replicas with their threads.
class MMTRAIN_API ReplicaSet {
 public:
  /// With replica 0, the module itself.
  ReplicaSet(std::shared_ptr<torch::nn::Module> module, std::vector<c10::Device> devices);
  ~ReplicaSet();

  const std::vector<c10::Device>& devices() const;
  void add(std::shared_ptr<torch::nn::Module> replica);

  /// The ranges of rows for the first replicas; `rows` are those of each argument that has any.
  std::vector<RowRange> share_out(const std::vector<std::optional<std::int64_t>>& rows) const;

  /// Brings the replicas up to date, then runs `task` for the replica of each range, on its thread.
  void run(const std::vector<RowRange>& ranges, const std::function<void(std::size_t replica)>& task);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Rows to share out of an argument; none of one that every replica gets whole.
template <class Argument>
std::optional<std::int64_t> rows_of(const Argument&) {
  return std::nullopt;
}
inline std::optional<std::int64_t> rows_of(const torch::Tensor& tensor) {
  if (!tensor.defined() || tensor.dim() == 0) return std::nullopt;
  return tensor.size(0);
}
inline std::optional<std::int64_t> rows_of(const Batch& batch) { return batch.size(); }
inline std::optional<std::int64_t> rows_of(const NamedTensors& tensors) {
  if (tensors.is_empty()) return std::nullopt;
  return rows_of(tensors[0].value());
}

/// An argument that every replica gets as it is.
template <class Argument>
struct Whole {
  const Argument& argument;
  const Argument& operator[](std::size_t) const { return argument; }
};

/// Piece i is for replica i.
template <class Argument>
Whole<Argument> pieces_of(const Argument& argument, const std::vector<c10::Device>&) {
  return {argument};
}
inline std::vector<Batch> pieces_of(const Batch& batch, const std::vector<c10::Device>& devices) {
  return scatter(batch, devices);
}
inline std::vector<NamedTensors> pieces_of(const NamedTensors& tensors, const std::vector<c10::Device>& devices) {
  return tensors.is_empty() ? std::vector<NamedTensors>(devices.size()) : scatter(tensors, devices);
}
inline std::vector<torch::Tensor> pieces_of(const torch::Tensor& tensor, const std::vector<c10::Device>& devices) {
  if (rows_of(tensor)) return scatter(tensor, devices);
  std::vector<torch::Tensor> whole;
  for (const c10::Device& device : devices) whole.push_back(tensor.defined() ? tensor.to(device) : tensor);
  return whole;
}

/// One output of the outputs of the replicas, which `part(i)` are.
template <class Output, class Part>
Output gather_parts(std::size_t count, c10::Device device, Part part) {
  if constexpr (std::is_same_v<Output, torch::Tensor>) {
    std::vector<torch::Tensor> tensors;
    for (std::size_t i = 0; i < count; ++i) tensors.push_back(part(i));
    return gather(tensors, device);
  } else if constexpr (std::is_same_v<Output, NamedTensors>) {
    NamedTensors result;
    for (const auto& item : part(0)) {
      result.insert(item.key(), gather_parts<torch::Tensor>(
                                    count, device, [&](std::size_t i) -> const auto& { return part(i)[item.key()]; }));
    }
    return result;
  } else if constexpr (requires { typename std::tuple_size<Output>::type; }) {
    return [&]<std::size_t... Place>(std::index_sequence<Place...>) {
      return Output{gather_parts<std::tuple_element_t<Place, Output>>(
          count, device, [&](std::size_t i) -> const auto& { return std::get<Place>(part(i)); })...};
    }
    (std::make_index_sequence<std::tuple_size_v<Output>>());
  } else {
    Output result;
    for (std::size_t place = 0; place < part(0).size(); ++place) {
      result.push_back(gather_parts<typename Output::value_type>(
          count, device, [&](std::size_t i) -> const auto& { return part(i).at(place); }));
    }
    return result;
  }
}

template <class Output>
Output gather_all(const std::vector<std::optional<Output>>& outputs, c10::Device device) {
  return gather_parts<Output>(outputs.size(), device, [&](std::size_t i) -> const Output& { return *outputs[i]; });
}

}  // namespace mmtrain::parallel::detail
