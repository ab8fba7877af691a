#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mmtrain/batch/model.h"
#include "mmtrain/core/export.h"
#include "mmtrain/models/options.h"

namespace mmtrain {

/// Nets that read the same inputs of a batch.
enum class ModelFamily {
  image,     ///< `image` `[B,3,S,S]`: classification of images
  behavior,  ///< `stft` `[B,channels,bins,frames]`, `series` `[B,T,channels]`, or both: sensor recordings
  emotion    ///< `image` `[B,3,H,W]` or `[B,F,3,H,W]`, and `mel` `[B,n_mels,T]`: clips with sound
};

/// Names that `make_model` knows, family by family: the five nets of the TinyImageNet study in the order of its table
/// (`baseline`, `residual`, `deeper_wider`, `se_attention`, `best`) and `linear`, which shows what a task is worth
/// without a net; `cnn` (reads `stft`), `transformer`, `fusion` (reads both), `dual`; `emotion`.
MMTRAIN_API std::vector<std::string> model_names();
MMTRAIN_API std::vector<std::string> model_names(ModelFamily family);

/// A freshly initialized net (drawn from LibTorch's default generator) that reads the inputs of its family from a batch
/// and answers logits `[B,num_classes]`. An unknown name throws `ConfigError` with the nearest known one; so do options
/// out of range.
MMTRAIN_API std::shared_ptr<Model> make_model(std::string_view name, const ModelOptions& options = {});

/// Number of trainable elements of `module`, submodules included; a parameter that is shared counts once.
MMTRAIN_API std::int64_t count_parameters(const torch::nn::Module& module);

}  // namespace mmtrain
