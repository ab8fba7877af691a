#include "mmtrain/nn/spectral.h"

#include <ATen/ATen.h>

#include <vector>

#include "mmtrain/core/error.h"

namespace mmtrain::nn {
namespace {

template <class Options>
const Options& validated(const Options& options) {
  validate(options);
  return options;
}

torch::Tensor float_tensor(const std::vector<double>& values) { return torch::tensor(values, torch::kFloat); }

/// Rows `[B,samples]` with `margin` samples more at both ends.
torch::Tensor padded(const torch::Tensor& rows, PadMode mode, std::int64_t margin) {
  const std::int64_t samples = rows.size(1);
  if (mode == PadMode::constant) return at::constant_pad_nd(rows, {margin, margin});
  if (mode == PadMode::replicate) return at::replication_pad1d(rows, {margin, margin});
  if (samples > margin) return at::reflection_pad1d(rows, {margin, margin});
  // What LibTorch refuses: the mirror image is shorter than the margin.
  std::vector<std::int64_t> sources;
  for (std::int64_t i = -margin; i < samples + margin; ++i) sources.push_back(padded_index(mode, i, samples));
  return rows.index_select(1, torch::tensor(sources, torch::TensorOptions(torch::kLong).device(rows.device())));
}

/// `[B,samples]` to `[B,frames,n_fft]`.
torch::Tensor frames_of(const torch::Tensor& rows, const StftOptions& options) {
  if (frame_count(options, rows.size(1)) == 0) return rows.new_zeros({rows.size(0), 0, options.n_fft});
  const torch::Tensor all = options.center ? padded(rows, options.pad, options.n_fft / 2) : rows;
  return all.unfold(-1, options.n_fft, options.hop);
}

torch::Tensor compressed(const torch::Tensor& bands, const MelOptions& options) {
  if (options.log == MelLog::none) return bands;
  if (options.log == MelLog::natural) return at::log(bands + options.floor);
  const torch::Tensor decibels = at::log10(bands.clamp_min(options.floor)) * (options.power == 1 ? 20 : 10);
  if (options.top_db == 0 || decibels.numel() == 0) return decibels;
  return at::maximum(decibels, decibels.amax({-2, -1}, /*keepdim=*/true) - options.top_db);
}

/// `[...,samples]` to `[B,samples]`, and its result back.
template <class Work>
torch::Tensor by_rows(const char* who, const torch::Tensor& waveforms, Work&& work) {
  if (waveforms.dim() == 0)
    throw DataError(std::string("[") + who + "] waveforms are [...,samples], got a single number");
  const std::int64_t samples = waveforms.size(-1);
  const auto outer = waveforms.sizes().slice(0, static_cast<std::size_t>(waveforms.dim() - 1));
  const torch::Tensor result = work(waveforms.reshape({c10::multiply_integers(outer), samples}));
  std::vector<std::int64_t> sizes = outer.vec();
  sizes.insert(sizes.end(), {result.size(-2), result.size(-1)});
  return result.reshape(sizes);
}

}  // namespace

MelSpectrogramImpl::MelSpectrogramImpl(const MelOptions& options_) : options(validated(options_)) {
  MelSpectrogramImpl::reset();
}

void MelSpectrogramImpl::reset() {
  window = register_buffer("window", float_tensor(window_values(options.stft())));
  filters =
      register_buffer("filters", float_tensor(mel_filter_bank(options)).view({options.n_mels, -1}).t().contiguous());
}

void MelSpectrogramImpl::pretty_print(std::ostream& stream) const {
  stream << "mmtrain::nn::MelSpectrogram(n_fft=" << options.n_fft << ", hop=" << options.hop
         << ", n_mels=" << options.n_mels << ")";
}

torch::Tensor MelSpectrogramImpl::forward(const torch::Tensor& waveforms) {
  return by_rows("MelSpectrogram", waveforms, [&](const torch::Tensor& rows) {
    const torch::Tensor frames = frames_of(rows.to(window.scalar_type()), options.stft());
    if (frames.numel() == 0) return frames.new_zeros({frames.size(0), options.n_mels, frames.size(1)});
    const torch::Tensor spectrum = at::fft_rfft(frames * window);
    const torch::Tensor energy = options.power == 1 ? spectrum.abs() : at::view_as_real(spectrum).square().sum(-1);
    return compressed(at::matmul(energy, filters).transpose(-1, -2), options);
  });
}

MfccImpl::MfccImpl(const MfccOptions& options_) : options(validated(options_)) { MfccImpl::reset(); }

void MfccImpl::reset() {
  mel_spectrogram = register_module("mel_spectrogram", MelSpectrogram(options.mel));
  dct = register_buffer("dct", float_tensor(dct_matrix(options)).view({options.n_mfcc, options.mel.n_mels}));
}

void MfccImpl::pretty_print(std::ostream& stream) const {
  stream << "mmtrain::nn::Mfcc(n_mfcc=" << options.n_mfcc << ", n_mels=" << options.mel.n_mels << ")";
}

torch::Tensor MfccImpl::forward(const torch::Tensor& waveforms) {
  return at::matmul(dct, mel_spectrogram->forward(waveforms));
}

}  // namespace mmtrain::nn
