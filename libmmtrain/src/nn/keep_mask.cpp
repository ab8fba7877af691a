#include "nn/keep_mask.h"

#include <array>

namespace mmtrain::nn::detail {
namespace {

constexpr std::int64_t kLow = 0xFFFFFFFF;

// High word of the product of two 32-bit numbers. The product wraps into the sign, the bits are right all the same.
torch::Tensor high_product(const torch::Tensor& a, std::int64_t b) { return (a * b).__rshift__(32) & kLow; }
torch::Tensor low_product(const torch::Tensor& a, std::int64_t b) { return (a * b) & kLow; }

torch::Tensor sample_numbers(const RandomDraw& draw, torch::TensorOptions options) {
  if (draw.samples.empty()) return torch::arange(draw.first_sample, draw.first_sample + draw.count, options);
  return torch::tensor(draw.samples, torch::kLong).to(options.device());
}

}  // namespace

template <class Key>
PhiloxWords philox(PhiloxWords counter, std::array<Key, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const torch::Tensor first = counter[0], second = counter[2];
    counter = {high_product(second, 0xCD9E8D57) ^ counter[1] ^ key[0], low_product(second, 0xCD9E8D57),
               high_product(first, 0xD2511F53) ^ counter[3] ^ key[1], low_product(first, 0xD2511F53)};
    key = {(key[0] + std::int64_t{0x9E3779B9}) & kLow, (key[1] + std::int64_t{0xBB67AE85}) & kLow};
  }
  return counter;
}
template PhiloxWords philox(PhiloxWords counter, std::array<std::int64_t, 2> key);
template PhiloxWords philox(PhiloxWords counter, std::array<torch::Tensor, 2> key);

torch::Tensor keep_mask(const RandomDraw& draw, const torch::Tensor& like) {
  const auto options = torch::TensorOptions(torch::kLong).device(like.device());
  const std::int64_t elements = like.numel() / draw.count;
  const std::int64_t groups = (elements + static_cast<std::int64_t>(kMaskGroup) - 1) / kMaskGroup;
  const torch::Tensor blocks = torch::arange(8 * groups, options).unsqueeze(0);
  const torch::Tensor samples = sample_numbers(draw, options).unsqueeze(1);
  const PhiloxWords counter{blocks, torch::zeros_like(blocks), samples & kLow, samples.__rshift__(32) & kLow};
  const PhiloxWords words = draw.key_on_device[0].defined()
                                ? philox(counter, draw.key_on_device)
                                : philox(counter, std::array<std::int64_t, 2>{draw.key[0], draw.key[1]});

  // kernels.h has the order: half of the group, rotation, lane, word within the half.
  const auto halves = [&](std::size_t word) {
    return torch::stack({words[word], words[word + 1]}, -1).view({draw.count, groups, 16});
  };
  const torch::Tensor plain = torch::stack({halves(0), halves(2)}, 2);
  const torch::Tensor rotated = (plain.__lshift__(16) & kLow) | plain.__rshift__(16);
  const torch::Tensor numbers = torch::stack({plain, rotated}, 3).view({draw.count, -1});
  const torch::Tensor kept = numbers.ge(static_cast<std::int64_t>(draw.threshold)).narrow(1, 0, elements).contiguous();
  return kept.as_strided(like.sizes(), like.strides());
}

}  // namespace mmtrain::nn::detail
