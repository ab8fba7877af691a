#include "mmtrain/media/spectral.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "media/fft.h"
#include "media/spectral_kernels.h"
#include "mmtrain/core/error.h"

namespace mmtrain::media {
namespace detail {
namespace {

/// Memory of one thread, kept from call to call.
struct Scratch {
  AlignedArray<float> frame;     ///< one windowed frame
  AlignedArray<float> rows;      ///< transforms of `kFrames` frames
  AlignedArray<float> block;     ///< the same, value by value
  AlignedArray<float> spectrum;  ///< what is known of each bin
  AlignedArray<float> bands;     ///< what is made of the bins
  std::vector<float> mel;        ///< a whole spectrogram

  static Scratch& of_thread() {
    thread_local Scratch scratch;
    return scratch;
  }
};

float* sized(AlignedArray<float>& array, std::size_t size) {
  if (array.size() < size) array = AlignedArray<float>(size);
  return array.data();
}

void require_size(const char* who, std::size_t actual, std::size_t rows, std::int64_t frames) {
  if (actual != rows * static_cast<std::size_t>(frames)) {
    throw DataError(
        fmt::format("[{}] the result is {} x {} numbers, the memory for it has {}", who, rows, frames, actual));
  }
}

void copy_rows(const float* block, std::size_t rows, std::int64_t first, std::int64_t count, std::int64_t frames,
               float* out) {
  for (std::size_t row = 0; row < rows; ++row) {
    std::copy_n(block + row * kFrames, count, out + static_cast<std::int64_t>(row) * frames + first);
  }
}

std::vector<SparseRow> sparse_rows(const std::vector<float>& matrix, std::size_t columns) {
  std::vector<SparseRow> rows;
  for (std::size_t at = 0; at < matrix.size(); at += columns) {
    const float *begin = matrix.data() + at, *end = begin + columns;
    const auto is_used = [](float weight) { return weight != 0; };
    const float* first = std::find_if(begin, end, is_used);
    const float* last = end;
    while (last > first && !is_used(last[-1])) --last;
    rows.push_back({static_cast<std::size_t>(first - begin), static_cast<std::size_t>(last - first), first});
    if (first == end) rows.back() = {0, 0, begin};
  }
  return rows;
}

}  // namespace

/// Spectra in blocks of frames. A frame of even size is transformed as half as many complex numbers, which costs half
/// as much and, in FFTW, much less than its transforms of real numbers.
class SpectrumPlan {
 public:
  explicit SpectrumPlan(const StftOptions& options)
      : options_(options),
        size_(static_cast<std::size_t>(options.n_fft)),
        points_(size_ % 2 == 0 ? size_ / 2 : size_),
        pitch_((2 * points_ + kAlignedFloats - 1) / kAlignedFloats * kAlignedFloats),
        fft_(static_cast<int>(points_)) {
    const double scale = packed() ? 0.5 : 1;
    for (const double value : window_values(options)) window_.push_back(static_cast<float>(scale * value));
    for (std::size_t k = 0; packed() && 2 * k <= points_; ++k) {
      const double angle = -2 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(size_);
      twiddles_.push_back(static_cast<float>(std::cos(angle)));
      twiddles_.push_back(static_cast<float>(std::sin(angle)));
    }
  }

  const StftOptions& options() const { return options_; }
  std::size_t bins() const { return size_ / 2 + 1; }
  std::int64_t frames(std::int64_t samples) const { return frame_count(options_, samples); }

  /// Calls `consume(block, first frame, count of frames)` for all frames in turn; the block is the spectrum `[bins, 2,
  /// kFrames]`, or its energy `[bins, kFrames]`.
  template <class Consume>
  void spectra(std::span<const float> samples, Consume&& consume) const {
    for_each_block(samples,
                   [&](const SpectralKernels& kernels, const float* block, std::int64_t first, std::int64_t n) {
                     if (!packed()) return consume(block, first, n);
                     float* spectrum = sized(Scratch::of_thread().spectrum, bins() * 2 * kFrames);
                     kernels.split_spectrum(block, points_, twiddles_.data(), spectrum);
                     consume(spectrum, first, n);
                   });
  }
  template <class Consume>
  void energies(std::span<const float> samples, Consume&& consume) const {
    for_each_block(samples,
                   [&](const SpectralKernels& kernels, const float* block, std::int64_t first, std::int64_t n) {
                     float* energy = sized(Scratch::of_thread().spectrum, bins() * kFrames);
                     if (packed()) {
                       kernels.split_power(block, points_, twiddles_.data(), energy);
                     } else {
                       kernels.power(block, bins(), energy);
                     }
                     consume(energy, first, n);
                   });
  }

 private:
  static constexpr std::size_t kAlignedFloats = kFftAlignment / sizeof(float);

  bool packed() const { return points_ != size_; }

  template <class Consume>
  void for_each_block(std::span<const float> samples, Consume&& consume) const {
    const SpectralKernels& kernels = spectral_kernels();
    Scratch& scratch = Scratch::of_thread();
    float* frame = sized(scratch.frame, 2 * size_);
    float* rows = sized(scratch.rows, kFrames * pitch_);
    float* block = sized(scratch.block, kFrames * pitch_);
    const std::int64_t total = frames(static_cast<std::int64_t>(samples.size()));
    for (std::int64_t first = 0; first < total; first += kFrames) {
      const std::int64_t count = std::min<std::int64_t>(kFrames, total - first);
      for (std::int64_t i = 0; i < count; ++i) {
        load_frame(kernels, samples, first + i, frame);
        fft_(frame, rows + static_cast<std::size_t>(i) * pitch_);
      }
      kernels.interleave(rows, pitch_, (2 * points_ + 3) / 4 * 4, block);
      consume(kernels, block, first, count);
    }
  }

  /// The windowed samples of a frame, as the transform takes them.
  void load_frame(const SpectralKernels& kernels, std::span<const float> samples, std::int64_t index,
                  float* frame) const {
    const auto size = static_cast<std::int64_t>(size_), total = static_cast<std::int64_t>(samples.size());
    const std::int64_t start = index * options_.hop - (options_.center ? size / 2 : 0);
    if (start >= 0 && start + size <= total) {
      kernels.multiply(samples.data() + start, window_.data(), size_, frame);
    } else {
      for (std::int64_t i = 0; i < size; ++i) {
        const std::int64_t source = padded_index(options_.pad, start + i, total);
        frame[i] = source < 0 ? 0 : samples[static_cast<std::size_t>(source)];
      }
      kernels.multiply(frame, window_.data(), size_, frame);
    }
    if (packed()) return;
    for (std::size_t i = size_; i-- > 0;) {
      frame[2 * i] = frame[i];
      frame[2 * i + 1] = 0;
    }
  }

  StftOptions options_;
  std::size_t size_, points_, pitch_;
  Fft<float> fft_;
  std::vector<float> window_, twiddles_;
};

struct MelPlan {
  explicit MelPlan(const MelOptions& given) : options(given), spectrum(options.stft()) {
    for (const double weight : mel_filter_bank(options)) filters.push_back(static_cast<float>(weight));
    rows = sparse_rows(filters, spectrum.bins());
  }

  void compute(std::span<const float> samples, float* out) const {
    const SpectralKernels& kernels = spectral_kernels();
    const std::int64_t frames = spectrum.frames(static_cast<std::int64_t>(samples.size()));
    const std::size_t block_size = rows.size() * kFrames;
    spectrum.energies(samples, [&](float* energy, std::int64_t first, std::int64_t count) {
      if (options.power == 1) {
        for (std::size_t i = 0; i < spectrum.bins() * kFrames; ++i) energy[i] = std::sqrt(energy[i]);
      }
      float* bands = sized(Scratch::of_thread().bands, block_size);
      kernels.apply_rows(rows.data(), rows.size(), energy, bands);
      if (options.log != MelLog::none) {
        kernels.logarithm(bands, block_size, static_cast<float>(options.floor), options.log == MelLog::natural,
                          options.log == MelLog::natural ? 1.0F : decibels());
      }
      copy_rows(bands, rows.size(), first, count, frames, out);
    });
    if (options.top_db > 0) limit_range({out, rows.size() * static_cast<std::size_t>(frames)});
  }

  /// Of one e-fold.
  float decibels() const { return static_cast<float>((options.power == 1 ? 20 : 10) / std::numbers::ln10); }

  void limit_range(std::span<float> values) const {
    if (values.empty()) return;
    const float least = *std::max_element(values.begin(), values.end()) - static_cast<float>(options.top_db);
    for (float& value : values) value = value < least ? least : value;
  }

  MelOptions options;
  SpectrumPlan spectrum;
  std::vector<float> filters;
  std::vector<SparseRow> rows;
};

struct MfccPlan {
  explicit MfccPlan(const MfccOptions& given) : options(given), mel(given.mel) {
    for (const double weight : dct_matrix(options)) matrix.push_back(static_cast<float>(weight));
  }

  void compute(std::span<const float> samples, std::span<float> out) const {
    const SpectralKernels& kernels = spectral_kernels();
    const std::size_t bands = mel.rows.size(), frames = out.size() / static_cast<std::size_t>(options.n_mfcc);
    std::vector<float>& spectrogram = Scratch::of_thread().mel;
    spectrogram.resize(bands * frames);
    mel.compute(samples, spectrogram.data());
    std::fill(out.begin(), out.end(), 0.0F);
    for (std::size_t i = 0; i < matrix.size(); ++i) {
      kernels.accumulate(spectrogram.data() + i % bands * frames, matrix[i], frames, out.data() + i / bands * frames);
    }
  }

  MfccOptions options;
  MelPlan mel;
  std::vector<float> matrix;
};

}  // namespace detail

namespace {

template <class Options>
const Options& validated(const Options& options) {
  validate(options);
  return options;
}

std::int64_t count(std::span<const float> samples) { return static_cast<std::int64_t>(samples.size()); }

}  // namespace

Stft::Stft(const StftOptions& options) : plan_(std::make_shared<const detail::SpectrumPlan>(validated(options))) {}

int Stft::bins() const { return static_cast<int>(plan_->bins()); }

std::int64_t Stft::frames(std::int64_t samples) const { return plan_->frames(samples); }

void Stft::operator()(std::span<const float> samples, std::span<std::complex<float>> out) const {
  const std::int64_t frames = plan_->frames(count(samples));
  detail::require_size("Stft", out.size(), plan_->bins(), frames);
  plan_->spectra(samples, [&](const float* block, std::int64_t first, std::int64_t n) {
    for (std::size_t bin = 0; bin < plan_->bins(); ++bin, block += 2 * detail::kFrames) {
      std::complex<float>* row = out.data() + static_cast<std::int64_t>(bin) * frames + first;
      for (std::int64_t i = 0; i < n; ++i) row[i] = {block[i], block[i + std::int64_t{detail::kFrames}]};
    }
  });
}

std::vector<std::complex<float>> Stft::operator()(std::span<const float> samples) const {
  std::vector<std::complex<float>> out(plan_->bins() * static_cast<std::size_t>(plan_->frames(count(samples))));
  (*this)(samples, out);
  return out;
}

void Stft::power(std::span<const float> samples, std::span<float> out) const {
  const std::int64_t frames = plan_->frames(count(samples));
  detail::require_size("Stft", out.size(), plan_->bins(), frames);
  plan_->energies(samples, [&](const float* block, std::int64_t first, std::int64_t n) {
    detail::copy_rows(block, plan_->bins(), first, n, frames, out.data());
  });
}

std::vector<float> Stft::power(std::span<const float> samples) const {
  std::vector<float> out(plan_->bins() * static_cast<std::size_t>(plan_->frames(count(samples))));
  power(samples, out);
  return out;
}

MelSpectrogram::MelSpectrogram(const MelOptions& options)
    : plan_(std::make_shared<const detail::MelPlan>(validated(options))) {}

const MelOptions& MelSpectrogram::options() const { return plan_->options; }

std::int64_t MelSpectrogram::frames(std::int64_t samples) const { return plan_->spectrum.frames(samples); }

void MelSpectrogram::operator()(std::span<const float> samples, std::span<float> out) const {
  detail::require_size("MelSpectrogram", out.size(), plan_->rows.size(), frames(count(samples)));
  plan_->compute(samples, out.data());
}

std::vector<float> MelSpectrogram::operator()(std::span<const float> samples) const {
  std::vector<float> out(plan_->rows.size() * static_cast<std::size_t>(frames(count(samples))));
  plan_->compute(samples, out.data());
  return out;
}

Mfcc::Mfcc(const MfccOptions& options) : plan_(std::make_shared<const detail::MfccPlan>(validated(options))) {}

const MfccOptions& Mfcc::options() const { return plan_->options; }

std::int64_t Mfcc::frames(std::int64_t samples) const { return plan_->mel.spectrum.frames(samples); }

void Mfcc::operator()(std::span<const float> samples, std::span<float> out) const {
  detail::require_size("Mfcc", out.size(), static_cast<std::size_t>(plan_->options.n_mfcc), frames(count(samples)));
  plan_->compute(samples, out);
}

std::vector<float> Mfcc::operator()(std::span<const float> samples) const {
  std::vector<float> out(static_cast<std::size_t>(plan_->options.n_mfcc) *
                         static_cast<std::size_t>(frames(count(samples))));
  plan_->compute(samples, out);
  return out;
}

}  // namespace mmtrain::media
