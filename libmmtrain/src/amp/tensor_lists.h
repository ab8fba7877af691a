#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <vector>

namespace mmtrain::detail {

// Tensors in the lists that foreach kernels want: one list for each device and dtype, in the order of first appearance.
inline std::vector<std::vector<at::Tensor>> by_device_and_dtype(const std::vector<at::Tensor>& tensors) {
  std::vector<std::vector<at::Tensor>> lists;
  for (const at::Tensor& tensor : tensors) {
    const auto list = std::find_if(lists.begin(), lists.end(), [&](const std::vector<at::Tensor>& other) {
      return other.front().device() == tensor.device() && other.front().scalar_type() == tensor.scalar_type();
    });
    if (list == lists.end()) {
      lists.push_back({tensor});
    } else {
      list->push_back(tensor);
    }
  }
  return lists;
}

}  // namespace mmtrain::detail
