#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/data/dataset.h"
#include "mmtrain/data/sample_source.h"
#include "mmtrain/media/image_transform.h"

/// Clips of people who speak, as frames and log-mel spectrogram.
namespace mmtrain::datasets {

/// Which part of the picture is looked at.
enum class ClipSide { whole, left, right };

/// One clip: a file, or a span of one.
struct ClipFile {
  std::filesystem::path video;
  std::filesystem::path audio = {};  ///< empty: the sound of the video file
  double start = 0, duration = -1;   ///< seconds of the video file; -1: to its end
  ClipSide side = ClipSide::whole;
  std::string name = {};     ///< how messages call it; empty: by its file
  std::string problem = {};  ///< why it cannot be used, where that is known beforehand
};

/// How clips are decoded. Sound becomes mono, and its power in `mel_bins` bands (hop 10 ms) decibels.
struct ClipOptions {
  int frames = 1;        ///< pictures of a clip, placed uniformly
  int image_size = 224;  ///< height and width in pixels; the picture is stretched to it
  int mel_bins = 64;
  int mel_frames = 500;     ///< 10 ms each; longer sound is cut, shorter filled up with silence
  double max_seconds = 10;  ///< what comes later in a clip is not looked at
};

/// Decoded clips of a list: `frames` uint8 `[F,S,S,3]`, `mel` float16 `[mel_bins,mel_frames]` in decibels, and
/// `mel_length` int32, the spectrogram's frames that are sound, or why there are none (see clips.cpp). Thread-safe.
class MMTRAIN_API ClipFiles final : public SampleSource {
 public:
  /// Throws `ConfigError` for options out of range.
  ClipFiles(std::vector<ClipFile> clips, const ClipOptions& options);
  ~ClipFiles() override;

  std::vector<TensorSpec> spec() const override;
  std::int64_t size() const override;
  std::span<const std::span<const std::byte>> read(std::int64_t index, Scratch& scratch) const override;
  std::string sample_name(std::int64_t index) const override;
  /// Names, sizes and times of change of all files, and the options.
  std::string fingerprint() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Random changes of the spectrogram, after Park et al., "SpecAugment", Interspeech 2019.
struct MelAugment {
  int time_shift = 0;      ///< frames to either side, at most
  double gain = 0;         ///< standard deviation of a change of loudness, decibels
  int time_mask = 0;       ///< frames that are silenced, at most
  int frequency_mask = 0;  ///< bands that are silenced, at most
};

struct ClipDatasetOptions {
  media::ImageTransform image = media::ImageTransform({media::Normalize{}});  ///< the same for all frames of a clip
  MelAugment mel = {};
  /// Which inputs there are. A clip without sound cannot be used if sound is one of them.
  bool visual = true, audio = true;
};

/// Labelled clips of a source, files or their cache. Inputs: `image` float `[3,S,S]` for one frame or `[F,3,S,S]`, and
/// `mel` float `[mel_bins,mel_frames]`, (dB + 20) / 20. Target: the class.
class MMTRAIN_API ClipDataset final : public Dataset {
 public:
  /// `source` has the fields of `ClipFiles`. Throws `ConfigError` if these do not fit together.
  ClipDataset(std::shared_ptr<const SampleSource> source, std::vector<std::int64_t> labels,
              std::vector<std::string> class_names, ClipDatasetOptions options = {});

  DatasetSpec spec() const override;
  std::int64_t size() const override;
  void write(std::int64_t index, SampleSlot& slot) const override;
  std::string sample_name(std::int64_t index) const override;
  std::vector<std::string> class_names() const override { return class_names_; }
  std::vector<std::int64_t> labels() const override { return labels_; }

  const SampleSource& source() const { return *source_; }

 private:
  void write_mel(std::span<const std::byte> decibels, RandomStream& random, std::span<float> out) const;

  std::shared_ptr<const SampleSource> source_;
  std::vector<std::int64_t> labels_;
  std::vector<std::string> class_names_;
  ClipDatasetOptions options_;
  std::vector<TensorSpec> fields_;
};

/// Where decoded clips are kept: as in `TinyImageNetOptions`.
struct ClipCacheOptions {
  std::string cache = "off";  ///< "off", "auto", or a folder
  int num_workers = 0;        ///< threads that build the cache; 0: all the machine has
};

/// The clips or their cache. `name` tells the split in the cache's file name, `data_dir` is where "auto" puts it.
MMTRAIN_API std::shared_ptr<const SampleSource> cached_clips(std::vector<ClipFile> clips, const ClipOptions& options,
                                                             const ClipCacheOptions& cache, const std::string& name,
                                                             const std::filesystem::path& data_dir);

}  // namespace mmtrain::datasets
