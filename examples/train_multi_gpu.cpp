// Trains the multimodal emotion recognizer on MELD or IEMOCAP, on all GPUs of the machine.
#include "common/emotion.h"
#include "common/program.h"

int main(int argc, char** argv) {
  return programs::run_program([&](mmtrain::OutOfMemoryContext& memory) {
    return programs::train_emotion(argc, argv,
                                   {.name = "train_multi_gpu",
                                    .description = "Trains the multimodal emotion recognizer on several devices.",
                                    .output_dir = "./checkpoints_multi_gpu",
                                    .log_dir = "./logs_multi_gpu"},
                                   memory);
  });
}
