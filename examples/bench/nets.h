#pragma once

#include <cstdint>
#include <string>

#include "bench/models.h"
#include "common/cli.h"
#include "common/training.h"

namespace mmtrain::bench {

/// What is trained and how, of the measurements of training steps.
struct StepOptions : programs::TrainingOptions {
  std::string model = "residual", memory_format = "channels_last";
  double width = 1.0, seconds = 10;
  std::int64_t d_model = 0, num_heads = 0, num_layers = 0, d_ff = 0;
  int threads = 2;
  bool dropout = true;

  StepOptions() {
    optimizer = "sgd";
    lr = 1e-3;
    weight_decay = 1e-4;
    batch_size = 0;
  }
};

/// Declares the flags that choose the net.
void declare_net(programs::Cli& cli, StepOptions& options);

/// The nets of the library and those of the Python benchmarks, by one name table.
BenchModel make_net(const StepOptions& options);

}  // namespace mmtrain::bench
