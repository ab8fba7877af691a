#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <ostream>

#include "mmtrain/core/export.h"
#include "mmtrain/core/spectral_options.h"

/// Spectral features of batches on any device, as modules of a net: the same options give the features of
/// `media/spectral.h`. Differentiable. Constructors throw `ConfigError` for options that have no meaning. Where the
/// rows of a batch were padded to one length, frames near a row's end contain padding: mask by `frame_count` of its
/// length.
namespace mmtrain::nn {

/// Waveforms `[...,samples]` to mel spectrograms `[...,n_mels,frames]`, float. `top_db` counts from the largest value
/// of each waveform.
class MMTRAIN_API MelSpectrogramImpl : public torch::nn::Cloneable<MelSpectrogramImpl> {
 public:
  explicit MelSpectrogramImpl(const MelOptions& options_ = {});
  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  torch::Tensor forward(const torch::Tensor& waveforms);

  MelOptions options;
  torch::Tensor window;   ///< buffer `[n_fft]`
  torch::Tensor filters;  ///< buffer `[n_fft / 2 + 1, n_mels]`
};
TORCH_MODULE(MelSpectrogram);

/// Waveforms `[...,samples]` to cepstral coefficients `[...,n_mfcc,frames]`, float.
class MMTRAIN_API MfccImpl : public torch::nn::Cloneable<MfccImpl> {
 public:
  explicit MfccImpl(const MfccOptions& options_ = {});
  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  torch::Tensor forward(const torch::Tensor& waveforms);

  MfccOptions options;
  MelSpectrogram mel_spectrogram{nullptr};
  torch::Tensor dct;  ///< buffer `[n_mfcc, n_mels]`
};
TORCH_MODULE(Mfcc);

}  // namespace mmtrain::nn
