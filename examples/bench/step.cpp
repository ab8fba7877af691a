#include "bench/measurements.h"

#include <fmt/format.h>
#include <mmtrain/mmtrain.h>

#include <optional>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "bench/nets.h"

namespace mmtrain::bench {
namespace {

// Times of the parts of one step, in seconds.
struct StepTimes {
  double forward, backward, optimizer;
};

StepTimes time_parts(Model& model, torch::optim::Optimizer& optimizer, const amp::MixedPrecision& precision,
                     const Loss& loss, const Batch& batch) {
  const Clock::time_point start = Clock::now();
  torch::Tensor mean;
  {
    const amp::Autocast autocast(torch::kCPU, precision.autocast ? precision.dtype : torch::kBFloat16,
                                 precision.autocast);
    const LossValue value = loss(model.forward(batch.inputs), batch);
    mean = value.sum / value.weight;
  }
  const double forward = seconds_since(start);
  mean.backward();
  const double backward = seconds_since(start) - forward;
  optimizer.step();
  optimizer.zero_grad();
  return {forward, backward, seconds_since(start) - forward - backward};
}

}  // namespace

int step(int argc, char** argv) {
  StepOptions options;
  programs::Cli cli("mmtrain_bench step", "Samples per second of a whole training step on random data in memory.");
  declare_net(cli, options);
  cli.add("batch_size", options.batch_size, "rows of a batch, 0: the net's usual number");
  cli.add("threads", options.threads, "threads an operator may use");
  cli.add_choice("optimizer", options.optimizer, {"sgd", "adam", "adamw"}, "optimizer");
  cli.add_choice("amp", options.amp, {"off", "fp16", "bf16"}, "mixed precision");
  cli.add("dropout", options.dropout, "dropout at its places");
  cli.add_choice("memory_format", options.memory_format, {"channels_last", "contiguous"}, "memory format of the net");
  cli.add("seconds", options.seconds, "length of the measurement in seconds");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;

  apply_runtime({.threads = options.threads});
  seed_all(0);
  const BenchModel net = make_net(options);
  Model& model = *net.model;
  const auto optimizer = programs::make_optimizer(model.module(), options);
  const bool channels_last = options.memory_format == "channels_last";
  const amp::MixedPrecision precision = amp::decide_precision(amp::parse_precision(options.amp), torch::kCPU);
  TrainStep train_step(net.model, optimizer, cross_entropy_loss(),
                       {.channels_last = channels_last, .precision = precision});
  model.module().train();
  if (options.batch_size == 0) options.batch_size = net.batch_size;
  Batch batch = make_bench_batch(net, options.batch_size, /*seed=*/0);
  for (auto& input : batch.inputs) {
    torch::Tensor& tensor = input.value();
    if (channels_last && tensor.dim() == 4) tensor = tensor.contiguous(torch::MemoryFormat::ChannelsLast);
  }

  for (int k = 0; k < 2; ++k) train_step.run(batch);
  std::vector<double> rates, forward, backward, update;
  const Clock::time_point begin = Clock::now();
  while (rates.size() < 3 || seconds_since(begin) < options.seconds) {
    const Clock::time_point start = Clock::now();
    train_step.run(batch);
    rates.push_back(static_cast<double>(options.batch_size) / seconds_since(start));
    const StepTimes times = time_parts(model, *optimizer, precision, cross_entropy_loss(), batch);
    forward.push_back(1e3 * times.forward);
    backward.push_back(1e3 * times.backward);
    update.push_back(1e3 * times.optimizer);
  }
  const std::string name =
      fmt::format("step/{}/width{}/batch{}/{}/{}/amp_{}/threads{}", options.model, options.width, options.batch_size,
                  options.optimizer, options.memory_format, options.amp, options.threads);
  print_measurement(name, "samples/s", rates);
  print_measurement(name + "/forward", "ms", forward);
  print_measurement(name + "/backward", "ms", backward);
  print_measurement(name + "/optimizer", "ms", update);
  const MemoryStats memory = memory_stats(torch::kCPU);
  print_measurement(name + "/peak_memory", "MiB", {static_cast<double>(memory.peak_allocated) / (1 << 20)});
  return 0;
}

}  // namespace mmtrain::bench
