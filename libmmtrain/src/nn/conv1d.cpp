#include "mmtrain/nn/conv1d.h"

#include <ATen/ATen.h>
#include <torch/nn/functional/conv.h>
#include <torch/nn/functional/padding.h>

#include <array>
#include <sstream>
#include <string>
#include <variant>

namespace mmtrain::nn {
namespace {

namespace F = torch::nn::functional;
using Options = torch::nn::detail::ConvNdOptions<1>;
using Amount = torch::ExpandingArray<1>;

Options converted(const torch::nn::Conv1dOptions& options) {
  Options result(options.in_channels(), options.out_channels(), options.kernel_size());
  result.stride(options.stride()).dilation(options.dilation()).groups(options.groups()).bias(options.bias());
  result.padding_mode(options.padding_mode());
  std::visit([&](const auto& padding) { result.padding(padding); }, options.padding());
  return result;
}

bool pads_with_zeros(const Options& options) {
  return std::holds_alternative<torch::enumtype::kZeros>(options.padding_mode());
}

F::PadFuncOptions::mode_t pad_mode(const Options& options) {
  if (std::holds_alternative<torch::enumtype::kReflect>(options.padding_mode())) return torch::kReflect;
  if (std::holds_alternative<torch::enumtype::kReplicate>(options.padding_mode())) return torch::kReplicate;
  return torch::kCircular;
}

// Strided kernels of length 1 stay with the stock layer: oneDNN's backward pass of these reads out of bounds where
// channels lie last. So do types for which ATen has no vectorized kernels.
bool runs_as_map(const Options& options, const torch::Tensor& input) {
  return input.device().is_cpu() && input.dim() == 3 && input.scalar_type() != torch::kDouble &&
         std::holds_alternative<Amount>(options.padding()) && options.kernel_size()->at(0) > 1;
}

}  // namespace

Conv1dImpl::Conv1dImpl(const torch::nn::Conv1dOptions& options_) : ConvNdImpl(converted(options_)) {}

torch::Tensor Conv1dImpl::forward(const torch::Tensor& input) {
  const bool zeros = pads_with_zeros(options);
  const torch::Tensor padded =
      zeros ? input : F::pad(input, F::PadFuncOptions(_reversed_padding_repeated_twice).mode(pad_mode(options)));
  if (!runs_as_map(options, padded)) {
    return F::detail::conv1d(padded, weight, bias, options.stride(),
                             zeros ? options.padding() : torch::nn::detail::conv_padding_t<1>(Amount(0)),
                             options.dilation(), options.groups());
  }
  const std::int64_t amount = zeros ? std::get<Amount>(options.padding())->at(0) : 0;
  const std::array<std::int64_t, 2> stride{1, options.stride()->at(0)}, dilation{1, options.dilation()->at(0)};
  const std::array<std::int64_t, 2> padding{0, amount};
  return at::conv2d(padded.unsqueeze(2).contiguous(at::MemoryFormat::ChannelsLast), weight.unsqueeze(2), bias, stride,
                    at::IntArrayRef(padding), dilation, options.groups())
      .squeeze(2);
}

void Conv1dImpl::pretty_print(std::ostream& stream) const {
  std::ostringstream stock;
  ConvNdImpl::pretty_print(stock);
  stream << "mmtrain" << stock.str().substr(std::string("torch").size());
}

}  // namespace mmtrain::nn
