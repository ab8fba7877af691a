#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "mmtrain/optim/optimizer.h"

namespace mmtrain::optim::detail {

// A parameter and what the optimizer keeps for it.
struct Slot {
  at::Tensor param;
  std::map<std::string, at::Tensor> state;  // empty until the first gradient
  at::Tensor step;                          // view of Bucket::steps
};

// The parameters of one group that share device and dtype.
struct Bucket {
  Bucket(std::size_t its_group, const at::Tensor& param)
      : group(its_group), device(param.device()), dtype(param.scalar_type()) {}

  std::size_t group;
  at::Device device;
  at::ScalarType dtype;
  std::vector<Slot> slots;
  at::Tensor steps;  // float32 [slots]: in one tensor, one operator counts them all
  at::Tensor lr;     // see set_capturable

  ParamBatch batch;  // of the slots that had a gradient in the latest step

  bool holds(const at::Tensor& param) const { return param.device() == device && param.scalar_type() == dtype; }

  // Brings the lists up to date with the parameters' gradients and with the names of the state; returns whether there
  // is a gradient at all. `batch.grads` is filled, the caller empties it.
  bool gather(std::vector<std::string> wanted);
  // Whether every parameter of the lists fills its memory without gaps.
  bool dense() const;
  // Adds the step that begins to the counts of the lists' parameters, unless `found_inf` is defined and 1.
  void count_step(const at::Tensor& found_inf);
  // The lists hold tensors that are no longer the slots': make them anew when they are needed.
  void forget_lists() { active_.clear(); }

 private:
  bool lists_fit(const std::vector<std::size_t>& with_gradient, const std::vector<std::string>& wanted) const;
  void make_lists(std::vector<std::size_t> with_gradient, std::vector<std::string> wanted);

  // What the lists were made for.
  std::vector<std::size_t> active_;
  std::vector<std::string> names_;
  at::Tensor increment_;  // float32 [slots]: 1 for the active
};

// `values` in the memory layout, device and dtype of `param`.
at::Tensor laid_out_like(const at::Tensor& param, const at::Tensor& values);

// The buckets for these groups; what `old` ones knew of a parameter is moved over. Throws `ConfigError` for parameters
// that are there twice or no real floating point numbers, before `old` is touched.
std::vector<Bucket> make_buckets(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                                 std::vector<Bucket>& old);

}  // namespace mmtrain::optim::detail
