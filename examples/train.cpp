// Trains the multimodal emotion recognizer on MELD or IEMOCAP, with the defaults of a single machine.
#include "common/emotion.h"
#include "common/program.h"

int main(int argc, char** argv) {
  return programs::run_program([&](mmtrain::OutOfMemoryContext& memory) {
    return programs::train_emotion(argc, argv,
                                   {.name = "train",
                                    .description = "Trains the multimodal emotion recognizer.",
                                    .output_dir = "./checkpoints",
                                    .log_dir = "./logs",
                                    .batch_size = 16,
                                    .num_workers = 8,
                                    .use_multi_gpu = false},
                                   memory);
  });
}
