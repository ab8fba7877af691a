#include "catch.h"

#include <torch/torch.h>

#include <memory>
#include <random>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/media/spectral.h"
#include "mmtrain/nn/spectral.h"

using namespace mmtrain;
using media::MelSpectrogram;

namespace {

std::vector<float> noise(std::size_t size, unsigned seed = 1) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(size);
  for (float& value : values) value = uniform(generator);
  return values;
}

}  // namespace

TEST_CASE("On a device a batch has the features of its rows", "[spectral][nn]") {
  nn::MelSpectrogram batched(MelOptions{.log = MelLog::decibel, .top_db = 50});
  const MelSpectrogram single(batched->options);
  const std::vector<float> first = noise(5000, 1), second = noise(5000, 2);
  const torch::Tensor waveforms =
      torch::stack({torch::tensor(first), 0.001 * torch::tensor(second)}).view({1, 2, -1}).requires_grad_();
  const torch::Tensor mel = batched->forward(waveforms);
  CHECK(mel.sizes() == torch::IntArrayRef({1, 2, 64, single.frames(5000)}));
  std::vector<float> quiet = second;
  for (float& value : quiet) value *= 0.001F;
  CHECK(torch::allclose(mel[0][0], torch::tensor(single(first)).view({64, -1}), 1e-4, 1e-2));
  CHECK(torch::allclose(mel[0][1], torch::tensor(single(quiet)).view({64, -1}), 1e-4, 1e-2));

  mel.sum().backward();
  CHECK(waveforms.grad().abs().sum().item<float>() > 0);
  CHECK(torch::isfinite(waveforms.grad()).all().item<bool>());
  CHECK(batched->forward(torch::zeros({3, 0})).sizes() == torch::IntArrayRef({3, 64, 0}));
  CHECK_THROWS_AS(batched->forward(torch::tensor(1.0)), DataError);
  CHECK(nn::Mfcc()->forward(torch::zeros({2, 1600})).sizes() == torch::IntArrayRef({2, 13, 11}));
  const auto copy = std::dynamic_pointer_cast<nn::MelSpectrogramImpl>(batched->clone());
  CHECK(torch::equal(copy->forward(waveforms), mel));
}
