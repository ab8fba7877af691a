#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mmtrain/batch/model.h"
#include "mmtrain/models/options.h"

/// The nets that the speed of a training step is measured with. Shapes, layers and places of dropout are those of the
/// Python nets they are compared with (docs/benchmarks.md).
namespace mmtrain::bench {

/// One input of a net: its name and the shape of one row.
struct InputShape {
  std::string name;
  std::vector<std::int64_t> shape;
};

struct BenchModel {
  std::shared_ptr<Model> model;
  std::vector<InputShape> inputs;
  std::int64_t num_classes;
  std::int64_t batch_size;  ///< the usual one
};

/// `transformer128`: 4 pre-norm GELU encoder layers, 128 features, on `[B,128,9]`. `conv1d`: three 1-d convolutions on
/// `[B,9,128]`. `resnet18_tiny`: ResNet-18 with a 3x3 stem on `[B,3,64,64]`. `emotion8`: ResNet-18 on 8 frames
/// `[B,8,3,112,112]`, a convolutional net on log-mel `[B,1,64,300]`, attention both ways. Throws `ConfigError` listing
/// the names for any other. `dropout` false turns it off everywhere.
BenchModel make_bench_model(const std::string& name, bool dropout = true);

/// A net of the library's name table, on what it is for: images `[B,3,S,S]`; windows of 500 rows of sensors, `series`
/// `[B,500,6]` and `stft` `[B,6,129,5]`; clips of one frame `[B,3,224,224]` and a mel spectrogram `[B,64,500]`. It
/// tells as many classes apart as its family usually does. Throws as `make_model` does.
BenchModel make_library_model(const std::string& name, ModelOptions options);

/// The names of `make_bench_model`.
const std::vector<std::string>& bench_model_names();

/// A batch of `rows` rows of normal random numbers and random classes.
Batch make_bench_batch(const BenchModel& model, std::int64_t rows, std::uint64_t seed);

}  // namespace mmtrain::bench
