#pragma once

#include <vector>

#include "mmtrain/optim/optimizer.h"
#include "optim/param_bucket.h"

namespace mmtrain::optim {

// What the optimizer knows of its parameters.
struct Optimizer::Impl {
  std::vector<detail::Bucket> buckets;
  std::vector<at::Tensor> known;  // the parameters that the buckets were made of, in order
  StateDict names;                // of the parameters of named groups
  std::vector<std::string> group_names;
  bool capturable = false;

  // Makes the buckets anew if parameters were added, replaced or moved since.
  void fit(const std::vector<torch::optim::OptimizerParamGroup>& groups);

 private:
  bool fits(const std::vector<torch::optim::OptimizerParamGroup>& groups) const;
};

}  // namespace mmtrain::optim
