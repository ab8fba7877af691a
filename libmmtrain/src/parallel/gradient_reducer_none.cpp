#include "mmtrain/parallel/gradient_reducer.h"

#include <torch/version.h>

#include <string>
#include <utility>

#include "mmtrain/core/error.h"

// For a LibTorch whose c10d::Reducer is another one than that of 2.11: one device trains, several ranks do not.
namespace mmtrain::parallel {

struct GradientReducer::Impl {};

GradientReducer::GradientReducer(torch::nn::Module&, ProcessGroup group, const ReducerOptions&)
    : group_(std::move(group)) {
  if (group_.world_size() == 1) return;
  const std::string error = "[GradientReducer] LibTorch " TORCH_VERSION
                            " has another c10d::Reducer than the 2.11 that mmtrain was made for: several ranks cannot "
                            "train together; build with LibTorch 2.11";
  group_.abort(error);
  throw DistributedError(error);
}

GradientReducer::~GradientReducer() = default;
void GradientReducer::synchronize_buffers() {}
void GradientReducer::prepare(const torch::Tensor&) {}
void GradientReducer::check() {}
void GradientReducer::reduce_now() {}

}  // namespace mmtrain::parallel
