// C++ side of tests/python/emotion_losses.py: decodes a training split in MELD's layout and trains on it for a few
// steps. Leaves the decoded clips (a cache), what the net is given of them, the first weights, the order of the batches
// and the losses behind.
//
//     emotion_losses DATA OUT STEPS FRAMES IMAGE_SIZE MEL_FRAMES D_MODEL WIDTH FUSION BATCH DOUBLE

#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "mmtrain/data/data_loader.h"
#include "mmtrain/datasets/generate_emotion.h"
#include "mmtrain/datasets/meld.h"
#include "mmtrain/io/tensor_file.h"
#include "mmtrain/models/emotion.h"
#include "mmtrain/optim/adam.h"
#include "mmtrain/train/train_step.h"

namespace {

using namespace mmtrain;
namespace fs = std::filesystem;

constexpr double kLrVisual = 3e-4, kLrAudio = 3e-4, kLrFusion = 3e-3, kDecay = 1e-4, kClip = 1;

struct Arguments {
  fs::path data, out;
  std::int64_t steps;
  int frames, image_size, mel_frames;
  std::int64_t d_model;
  double width;
  std::string fusion;
  std::int64_t batch;
  bool in_double;
};

Batch as_double(const Batch& batch) {
  Batch result = batch;
  NamedTensors inputs;
  for (const auto& input : batch.inputs) inputs.insert(input.key(), input.value().to(torch::kDouble));
  result.inputs = inputs;
  return result;
}

// What the net is given of every clip, in order.
void add_inputs(StateDict& output, const std::shared_ptr<const Dataset>& data) {
  DataLoader loader(data, std::make_shared<SequentialSampler>(data->size()), {.batch_size = 16});
  std::vector<torch::Tensor> images, mels;
  for (const Batch& batch : loader.epoch(0)) {
    images.push_back(batch.input("image").clone());
    mels.push_back(batch.input("mel").clone());
  }
  output.insert("image", torch::cat(images));
  output.insert("mel", torch::cat(mels));
}

void run(const Arguments& to_do) {
  if (!fs::exists(to_do.data)) {
    datasets::generate_emotion(to_do.data, {.seed = 1, .train = 42, .dev = 7, .test = 7, .train_speakers = 4});
  }
  const auto data = datasets::meld(
      to_do.data, "train", {}, {.frames = to_do.frames, .image_size = to_do.image_size, .mel_frames = to_do.mel_frames},
      {.cache = (to_do.out / "cache").string()});
  torch::manual_seed(0);
  models::EmotionRecognizer net(models::EmotionOptions{.d_model = to_do.d_model,
                                                       .fusion = models::parse_fusion(to_do.fusion),
                                                       .dropout = 0,
                                                       .inner_dropout = 0,
                                                       .width = to_do.width});
  save_safetensors(to_do.out / "weights.safetensors", state_dict(*net));
  if (to_do.in_double) net->to(torch::kDouble);
  const auto optimizer =
      std::make_shared<optim::Adam>(optim::named_groups(*net, {{.prefix = "visual_encoder.", .lr = kLrVisual},
                                                               {.prefix = "audio_encoder.", .lr = kLrAudio},
                                                               {.prefix = "", .lr = kLrFusion}}),
                                    optim::AdamOptions(kLrFusion).weight_decay(kDecay));
  TrainStep step(models::as_model(net), optimizer, cross_entropy_loss(), {.clip_norm = kClip});
  DataLoader loader(data, std::make_shared<RandomSampler>(data->size(), 3),
                    {.batch_size = to_do.batch, .num_workers = 1, .drop_last = true});
  net->train();
  StateDict output;
  add_inputs(output, data);
  std::vector<torch::Tensor> losses, ids, targets;
  for (std::int64_t epoch = 0; static_cast<std::int64_t>(losses.size()) < to_do.steps; ++epoch) {
    for (const Batch& batch : loader.epoch(epoch)) {
      if (static_cast<std::int64_t>(losses.size()) == to_do.steps) break;
      const StepResult result = step.run(to_do.in_double ? as_double(batch) : batch);
      losses.push_back((result.loss_sum / result.weight).to(torch::kDouble));
      ids.push_back(batch.ids.clone());
      targets.push_back(batch.target.clone());
    }
  }
  output.insert("losses", torch::stack(losses));
  output.insert("ids", torch::stack(ids));
  output.insert("targets", torch::stack(targets));
  save_safetensors(to_do.out / "result.safetensors", output);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 12) {
    std::fprintf(stderr, "see tests/python/emotion_losses.py\n");
    return 2;
  }
  try {
    torch::set_num_threads(1);
    run({argv[1], argv[2], std::atoll(argv[3]), std::atoi(argv[4]), std::atoi(argv[5]), std::atoi(argv[6]),
         std::atoll(argv[7]), std::atof(argv[8]), argv[9], std::atoll(argv[10]), std::atoi(argv[11]) != 0});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "emotion_losses: %s\n", error.what());
    return 1;
  }
}
