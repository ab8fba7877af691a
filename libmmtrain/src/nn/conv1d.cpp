#include "mmtrain/nn/conv1d.h"

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <sstream>
#include <string>
#include <variant>

namespace mmtrain::nn {
namespace {

// Strided kernels of length 1 stay with the stock layer: oneDNN's backward pass of these reads out of bounds where
// channels lie last. So do types for which ATen has no vectorized kernels.
bool runs_as_map(const torch::nn::detail::ConvNdOptions<1>& options, const torch::Tensor& input) {
  return input.device().is_cpu() && input.dim() == 3 && input.scalar_type() != torch::kDouble &&
         std::holds_alternative<torch::enumtype::kZeros>(options.padding_mode()) &&
         std::holds_alternative<torch::ExpandingArray<1>>(options.padding()) && options.kernel_size()->at(0) > 1;
}

}  // namespace

torch::Tensor Conv1dImpl::forward(const torch::Tensor& input) {
  if (!runs_as_map(options, input)) return torch::nn::Conv1dImpl::forward(input);
  const std::array<std::int64_t, 2> stride{1, options.stride()->at(0)}, dilation{1, options.dilation()->at(0)};
  const std::array<std::int64_t, 2> padding{0, std::get<torch::ExpandingArray<1>>(options.padding())->at(0)};
  return at::conv2d(input.unsqueeze(2).contiguous(at::MemoryFormat::ChannelsLast), weight.unsqueeze(2), bias, stride,
                    at::IntArrayRef(padding), dilation, options.groups())
      .squeeze(2);
}

void Conv1dImpl::pretty_print(std::ostream& stream) const {
  std::ostringstream stock;
  torch::nn::Conv1dImpl::pretty_print(stock);
  stream << "mmtrain" << stock.str().substr(std::string("torch").size());
}

}  // namespace mmtrain::nn
