#include "mmtrain/datasets/clips.h"

#include <c10/util/Half.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>

#include "datasets/cached_source.h"
#include "mmtrain/core/error.h"
#include "mmtrain/media/image_ops.h"
#include "mmtrain/media/spectral.h"
#include "mmtrain/media/video.h"

namespace mmtrain::datasets {
namespace fs = std::filesystem;
namespace {

constexpr int kSampleRate = 16'000, kHop = 160, kWindow = 512;
constexpr double kLowest = 50, kHighest = 8'000;  // Hz
constexpr float kSilence = -80;                   // dB; nothing is below
constexpr double kFloor = 1e-8;                   // the same as energy
// Sound whose highest peak is this low is no speech: what is left of silence by lossy coding.
constexpr float kSilentPeak = 1e-4F;

// What `mel_length` says where the spectrogram holds no sound.
constexpr std::int32_t kNoTrack = 0, kSilentTrack = -1, kTooShort = -2;

const char* why_no_sound(std::int32_t length) {
  if (length == kSilentTrack) return "its sound is silent from begin to end";
  if (length == kTooShort) return "its sound is shorter than one frame of the spectrogram (32 ms)";
  return "it has no sound";
}

// Networks like values around 0.
float scaled(float decibels) { return (decibels + 20) / 20; }

void demand(bool holds, const char* option, const char* rule, double value) {
  if (!holds) throw ConfigError(fmt::format("[ClipFiles] {} must {}, got {}", option, rule, value));
}

void check(const ClipOptions& options) {
  demand(options.frames >= 1, "frames", "be positive", options.frames);
  demand(options.image_size >= 8, "image_size", "be at least 8", options.image_size);
  demand(options.mel_bins >= 1, "mel_bins", "be positive", options.mel_bins);
  demand(options.mel_frames >= 4, "mel_frames", "be at least 4", options.mel_frames);
  demand(options.max_seconds > 0, "max_seconds", "be positive", options.max_seconds);
}

media::MelSpectrogram spectrogram(const ClipOptions& options) {
  return media::MelSpectrogram({.sample_rate = kSampleRate,
                                .n_fft = kWindow,
                                .hop = kHop,
                                .n_mels = options.mel_bins,
                                .f_min = kLowest,
                                .f_max = kHighest,
                                .log = MelLog::decibel,
                                .floor = kFloor});
}

std::size_t times(std::initializer_list<int> factors) {
  std::size_t product = 1;
  for (const int factor : factors) product *= static_cast<std::size_t>(factor);
  return product;
}

media::Image half(const media::Image& image, ClipSide side) {
  const int width = std::max(image.width / 2, 1);
  return media::crop(image.view(), {0, side == ClipSide::left ? 0 : image.width - width, image.height, width});
}

// What is wrong, without the name of the file: whoever reports a sample names it.
std::string reason_of(const DataError& error, const ClipFile& clip) {
  const std::string text = error.what();
  for (const fs::path& file : {clip.video, clip.audio}) {
    const std::string name = file.string() + ": ";
    const std::size_t place = text.find(name);
    if (!file.empty() && place != text.npos) return text.substr(place + name.size());
  }
  return text;
}

std::string file_state(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return "missing";
  return fmt::format("{} {}.{}", info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
}

}  // namespace

struct ClipFiles::Impl {
  Impl(std::vector<ClipFile> list, const ClipOptions& given)
      : clips(std::move(list)), options(given), mel(spectrogram(given)) {}

  double seconds_of(const ClipFile& clip) const {
    return clip.duration < 0 ? options.max_seconds : std::min(clip.duration, options.max_seconds);
  }
  media::Clip decode(const ClipFile& clip) const;
  void write_frames(const media::Video& video, ClipSide side, std::span<std::uint8_t> out) const;
  std::int32_t write_mel(std::span<const float> samples, std::span<c10::Half> out) const;

  const std::vector<ClipFile> clips;
  const ClipOptions options;
  const media::MelSpectrogram mel;
};

media::Clip ClipFiles::Impl::decode(const ClipFile& clip) const {
  const double seconds = seconds_of(clip);
  media::VideoOptions video{.frames = options.frames, .start = clip.start, .duration = seconds};
  if (clip.side == ClipSide::whole) video.height = video.width = options.image_size;
  // No more sound than the spectrogram holds.
  const double heard = std::min(seconds, options.mel_frames * static_cast<double>(kHop) / kSampleRate);
  const media::AudioOptions audio{.sample_rate = kSampleRate, .mono = true, .start = clip.start, .duration = heard};
  if (clip.audio.empty()) return media::read_clip(clip.video, video, audio);
  media::AudioOptions own = audio;
  own.start = 0;
  return {media::read_video(clip.video, video), media::read_audio(clip.audio, own)};
}

void ClipFiles::Impl::write_frames(const media::Video& video, ClipSide side, std::span<std::uint8_t> out) const {
  const int size = options.image_size;
  const std::size_t bytes = times({size, size, 3});
  for (std::size_t k = 0; k < video.frames.size(); ++k) {
    media::Image part;
    const media::Image* image = &video.frames[k];
    if (side != ClipSide::whole) image = &(part = half(*image, side));
    if (image->height != size || image->width != size) image = &(part = media::resize(image->view(), size, size));
    std::memcpy(out.data() + k * bytes, image->pixels.data(), bytes);
  }
}

std::int32_t ClipFiles::Impl::write_mel(std::span<const float> samples, std::span<c10::Half> out) const {
  std::fill(out.begin(), out.end(), c10::Half(kSilence));
  if (samples.empty()) return kNoTrack;
  if (samples.size() < static_cast<std::size_t>(kWindow)) return kTooShort;
  const auto loud = [](float sample) { return std::abs(sample) > kSilentPeak; };
  if (std::none_of(samples.begin(), samples.end(), loud)) return kSilentTrack;
  thread_local std::vector<float> decibels;
  const auto bins = static_cast<std::size_t>(options.mel_bins), wanted = static_cast<std::size_t>(options.mel_frames);
  const auto frames = static_cast<std::size_t>(mel.frames(static_cast<std::int64_t>(samples.size())));
  decibels.resize(bins * frames);
  mel(samples, decibels);
  const std::size_t kept = std::min(frames, wanted);
  for (std::size_t bin = 0; bin < bins; ++bin) {
    for (std::size_t frame = 0; frame < kept; ++frame) {
      out[bin * wanted + frame] = c10::Half(decibels[bin * frames + frame]);
    }
  }
  return static_cast<std::int32_t>(kept);
}

ClipFiles::ClipFiles(std::vector<ClipFile> clips, const ClipOptions& options) {
  check(options);
  impl_ = std::make_unique<Impl>(std::move(clips), options);
}

ClipFiles::~ClipFiles() = default;

std::vector<TensorSpec> ClipFiles::spec() const {
  const ClipOptions& options = impl_->options;
  return {{"frames", {options.frames, options.image_size, options.image_size, 3}, torch::kUInt8},
          {"mel", {options.mel_bins, options.mel_frames}, torch::kFloat16},
          {"mel_length", {}, torch::kInt32}};
}

std::int64_t ClipFiles::size() const { return static_cast<std::int64_t>(impl_->clips.size()); }

std::span<const std::span<const std::byte>> ClipFiles::read(std::int64_t index, Scratch& scratch) const {
  const ClipFile& clip = impl_->clips.at(static_cast<std::size_t>(index));
  if (!clip.problem.empty()) throw DataError(clip.problem);
  const ClipOptions& options = impl_->options;
  const media::Clip decoded = [&] {
    try {
      return impl_->decode(clip);
    } catch (const DataError& error) {
      throw DataError(reason_of(error, clip));
    }
  }();
  const std::size_t frame_bytes = times({options.frames, options.image_size, options.image_size, 3});
  const std::size_t mel_values = times({options.mel_bins, options.mel_frames});
  // The spectrogram comes first, where it is aligned.
  const std::size_t mel_bytes = mel_values * sizeof(c10::Half);
  scratch.decoded.resize(sizeof(std::int32_t) + mel_bytes + frame_bytes);
  std::uint8_t* const begin = scratch.decoded.data();
  auto* const mel = reinterpret_cast<c10::Half*>(begin + sizeof(std::int32_t));
  const std::int32_t length = impl_->write_mel(decoded.audio.samples, {mel, mel_values});
  std::memcpy(begin, &length, sizeof(length));
  std::uint8_t* const frames = begin + sizeof(std::int32_t) + mel_bytes;
  impl_->write_frames(decoded.video, clip.side, {frames, frame_bytes});
  const std::span<const std::byte> all = std::as_bytes(std::span(scratch.decoded));
  scratch.fields.assign({all.last(frame_bytes), all.subspan(sizeof(length), mel_bytes), all.first(sizeof(length))});
  return scratch.fields;
}

std::string ClipFiles::sample_name(std::int64_t index) const {
  const ClipFile& clip = impl_->clips.at(static_cast<std::size_t>(index));
  return clip.name.empty() ? clip.video.string() : clip.name;
}

std::string ClipFiles::fingerprint() const {
  const ClipOptions& options = impl_->options;
  std::string text = fmt::format("clips 1 {} {} {} {} {}\n", options.frames, options.image_size, options.mel_bins,
                                 options.mel_frames, options.max_seconds);
  for (const ClipFile& clip : impl_->clips) {
    text += fmt::format("{} {} {} {} {} {}\n", fs::absolute(clip.video).lexically_normal().string(),
                        file_state(clip.video), clip.start, clip.duration, static_cast<int>(clip.side), clip.problem);
    if (!clip.audio.empty()) text += fmt::format("+ {} {}\n", clip.audio.string(), file_state(clip.audio));
  }
  return text;
}

ClipDataset::ClipDataset(std::shared_ptr<const SampleSource> source, std::vector<std::int64_t> labels,
                         std::vector<std::string> class_names, ClipDatasetOptions options)
    : source_(std::move(source)),
      labels_(std::move(labels)),
      class_names_(std::move(class_names)),
      options_(std::move(options)),
      fields_(source_->spec()) {
  if (fields_.size() != 3 || fields_[0].shape.size() != 4 || fields_[1].shape.size() != 2) {
    throw ConfigError("[ClipDataset] the source must have the fields of ClipFiles: frames, mel, mel_length");
  }
  if (static_cast<std::int64_t>(labels_.size()) != source_->size()) {
    throw ConfigError(
        fmt::format("[ClipDataset] {} clips need as many labels, got {}", source_->size(), labels_.size()));
  }
  if (!options_.visual && !options_.audio) throw ConfigError("[ClipDataset] neither visual nor audio: nothing is left");
}

DatasetSpec ClipDataset::spec() const {
  DatasetSpec spec;
  if (options_.visual) {
    const std::vector<std::int64_t>& shape = fields_[0].shape;
    const auto [height, width] = options_.image.output_size(static_cast<int>(shape[1]), static_cast<int>(shape[2]));
    TensorSpec image{"image", {3, height, width}};
    if (shape[0] > 1) image.shape.insert(image.shape.begin(), shape[0]);
    spec.inputs.push_back(std::move(image));
  }
  if (options_.audio) spec.inputs.push_back({"mel", fields_[1].shape});
  return spec;
}

std::int64_t ClipDataset::size() const { return source_->size(); }

void ClipDataset::write(std::int64_t index, SampleSlot& slot) const {
  thread_local SampleSource::Scratch source_scratch;
  thread_local media::ImageTransform::Scratch transform_scratch;
  const std::span<const std::span<const std::byte>> fields = source_->read(index, source_scratch);
  std::int32_t mel_length = 0;
  std::memcpy(&mel_length, fields[2].data(), sizeof(mel_length));
  if (options_.audio) {
    if (mel_length <= 0) throw DataError(why_no_sound(mel_length));
    write_mel(fields[1], slot.random(), slot.input<float>(options_.visual ? 1 : 0));
  }
  if (options_.visual) {
    const std::vector<std::int64_t>& shape = fields_[0].shape;
    const auto frames = static_cast<std::size_t>(shape[0]);
    const std::size_t bytes = fields[0].size() / frames, values = slot.input<float>(0).size() / frames;
    for (std::size_t k = 0; k < frames; ++k) {
      RandomStream same = slot.random();  // all frames are cut and turned alike
      const media::ImageView frame{reinterpret_cast<const std::uint8_t*>(fields[0].data()) + k * bytes,
                                   static_cast<int>(shape[1]), static_cast<int>(shape[2])};
      options_.image.apply(frame, same, slot.input<float>(0).subspan(k * values, values), transform_scratch);
    }
  }
  slot.target<std::int64_t>()[0] = labels_[static_cast<std::size_t>(index)];
}

void ClipDataset::write_mel(std::span<const std::byte> decibels, RandomStream& random, std::span<float> out) const {
  const MelAugment& augment = options_.mel;
  const int bins = static_cast<int>(fields_[1].shape[0]), frames = static_cast<int>(fields_[1].shape[1]);
  const int shift = augment.time_shift > 0
                        ? static_cast<int>(random.uniform_int(2 * augment.time_shift + 1)) - augment.time_shift
                        : 0;
  const float gain = augment.gain > 0 ? static_cast<float>(augment.gain * random.normal()) : 0.0F;
  const auto band = [&](int widest, int all) {
    if (widest <= 0) return std::pair(0, 0);
    const int width = static_cast<int>(random.uniform_int(std::min(widest, all) + 1));
    const int begin = static_cast<int>(random.uniform_int(all - width + 1));
    return std::pair(begin, begin + width);
  };
  const auto [no_frame, yes_frame] = band(augment.time_mask, frames);
  const auto [no_bin, yes_bin] = band(augment.frequency_mask, bins);
  const float silence = scaled(kSilence);
  for (int bin = 0; bin < bins; ++bin) {
    float* const row = out.data() + static_cast<std::ptrdiff_t>(bin) * frames;
    const std::byte* const from = decibels.data() + static_cast<std::ptrdiff_t>(bin) * frames * 2;
    for (int frame = 0; frame < frames; ++frame) {
      const int origin = frame - shift;
      const bool masked = (frame >= no_frame && frame < yes_frame) || (bin >= no_bin && bin < yes_bin);
      if (masked || origin < 0 || origin >= frames) {
        row[frame] = silence;
        continue;
      }
      c10::Half value;
      std::memcpy(&value, from + 2 * static_cast<std::ptrdiff_t>(origin), sizeof(value));
      const float loudness = value;
      row[frame] = loudness <= kSilence ? silence : std::max(scaled(loudness + gain), silence);
    }
  }
}

std::string ClipDataset::sample_name(std::int64_t index) const { return source_->sample_name(index); }

std::shared_ptr<const SampleSource> cached_clips(std::vector<ClipFile> clips, const ClipOptions& options,
                                                 const ClipCacheOptions& cache, const std::string& name,
                                                 const fs::path& data_dir) {
  const auto files = std::make_shared<ClipFiles>(std::move(clips), options);
  return detail::cached_source(
      files, {.cache = cache.cache,
              .split = name,
              .shape = fmt::format("{}x{}-{}", options.frames, options.image_size, options.mel_frames),
              .things = "clips",
              .data_dir = data_dir,
              .num_workers = cache.num_workers});
}

}  // namespace mmtrain::datasets
