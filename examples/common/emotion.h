#pragma once

#include <mmtrain/datasets/clips.h>
#include <mmtrain/device/memory.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/cli.h"
#include "common/training.h"

/// Training of the multimodal emotion recognizer on MELD or IEMOCAP: the programs `train` and `train_multi_gpu`, which
/// differ in their defaults.
namespace programs {

struct EmotionProgram {
  std::string name, description;
  std::string output_dir, log_dir;  ///< default places of runs and of their events
  std::int64_t batch_size = 24;     ///< default rows per rank
  int num_workers = 12;             ///< default threads that load, of all ranks of a process together
  bool use_multi_gpu = true;        ///< default
};

/// What the clips become before the net sees them, and the net itself: enough to use a checkpoint.
struct EmotionModelOptions {
  std::string fusion_type = "attention", modality = "both";
  std::int64_t d_model = 256, n_heads = 8;
  double dropout = 0.3, width = 1;
  int frames = 1, image_size = 224, mel_frames = 500;
  double max_seconds = 10;

  void declare(Cli& cli);
  /// From the configuration of a run.
  static EmotionModelOptions from(const mmtrain::Config& config);
  mmtrain::datasets::ClipOptions clips() const;
  bool visual() const { return modality != "audio"; }
  bool audio() const { return modality != "visual"; }
};

/// What the net is given of a clip; `augmented` as in training, with shifts and crops that go with the clip's sizes.
mmtrain::datasets::ClipDatasetOptions clip_transform(const EmotionModelOptions& options, bool augmented);

/// The net, freshly initialized.
std::shared_ptr<mmtrain::Model> make_emotion_model(const EmotionModelOptions& options, std::int64_t classes);

/// The program. Returns the exit code.
int train_emotion(int argc, char** argv, const EmotionProgram& program, mmtrain::OutOfMemoryContext& memory);

}  // namespace programs
