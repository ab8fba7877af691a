#pragma once

#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "mmtrain/batch/batch.h"
#include "mmtrain/core/export.h"

/// Augmentation that mixes the images of a batch with one another: mixup (Zhang et al., "mixup: beyond empirical risk
/// minimization", ICLR 2018) and cutmix (Yun et al., "CutMix: regularization strategy to train strong classifiers with
/// localizable features", ICCV 2019), with the arithmetic of torchvision's `transforms.v2`. Row i is mixed with row
/// i - 1, the first with the last; the targets become probabilities that soft-target losses take.
namespace mmtrain {

/// `either`: mixup or cutmix, each for half of the batches.
enum class MixKind { mixup, cutmix, either };

struct MixOptions {
  MixKind kind = MixKind::mixup;
  double alpha = 1;        ///< the share of the own row is drawn from Beta(alpha, alpha)
  double probability = 1;  ///< of a batch to be mixed at all
  std::int64_t num_classes = 0;
  std::string input = "image";  ///< which input of the batch is mixed
};

/// Pixels [top, bottom) x [left, right).
struct MixBox {
  std::int64_t top = 0, left = 0, bottom = 0, right = 0;
};

/// How one batch is mixed.
struct MixParameters {
  MixKind kind = MixKind::mixup;  ///< mixup or cutmix
  double share = 1;               ///< of the own row in image and target; for cutmix what the box leaves of it
  MixBox box;                     ///< which part comes from the other row; cutmix only
};

/// Draws how batch `batch_index` of `epoch` is mixed: a pure function of its arguments, whoever asks. None where the
/// batch is left alone. Throws `ConfigError` for options out of range.
MMTRAIN_API std::optional<MixParameters> draw_mix(const MixOptions& options, std::int64_t height, std::int64_t width,
                                                  std::uint64_t seed, std::int64_t epoch, std::int64_t batch_index);

/// The box of a cutmix with middle (`row`, `column`) that takes about 1 - `share` of the image, and `share` as the
/// clipped box leaves it.
MMTRAIN_API MixParameters cutmix_parameters(double share, std::int64_t row, std::int64_t column, std::int64_t height,
                                            std::int64_t width);

/// Mixed copies of `images` `[B,C,H,W]`: floating point for mixup, anything for cutmix.
MMTRAIN_API torch::Tensor mix_images(const torch::Tensor& images, const MixParameters& parameters);

/// Mixed targets, float `[B,num_classes]`, of class indices `[B]` or of probabilities `[B,num_classes]`.
MMTRAIN_API torch::Tensor mix_targets(const torch::Tensor& target, const MixParameters& parameters,
                                      std::int64_t num_classes);

/// `batch` with one input and the target mixed as `draw_mix` says. The target is `[B,num_classes]` in any case, so that
/// metrics and losses see one kind of it. Weights and ids stay those of the rows. Works on any device.
MMTRAIN_API Batch mix(const Batch& batch, const MixOptions& options, std::uint64_t seed, std::int64_t epoch,
                      std::int64_t batch_index);

}  // namespace mmtrain
