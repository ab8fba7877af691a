#include "bench/measurements.h"

#include <fmt/format.h>
#include <mmtrain/mmtrain.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "bench/nets.h"

namespace mmtrain::bench {
namespace {

struct ScalingOptions : StepOptions {
  int threads_per_replica = 1;
};

}  // namespace

int scaling(int argc, char** argv) {
  ScalingOptions options;
  options.replicas = 2;
  programs::Cli cli("mmtrain_bench scaling", "Samples per second of training steps, all replicas together.");
  declare_net(cli, options);
  cli.add("batch_size", options.batch_size, "rows of each replica's batch, 0: the net's usual number");
  cli.add("replicas", options.replicas, "replicas on the CPU; 1: one device, without ranks");
  cli.add("threads_per_replica", options.threads_per_replica, "threads an operator of a replica may use");
  cli.add("seconds", options.seconds, "length of the measurement in seconds");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (options.replicas < 1) throw ConfigError("--replicas must be positive");

  apply_runtime({.threads = options.threads_per_replica});
  std::shared_ptr<parallel::Strategy> strategy = std::make_shared<parallel::SingleDevice>(torch::kCPU);
  if (options.replicas > 1) {
    strategy =
        std::make_shared<parallel::ReplicaStrategy>(parallel::cpu_replicas(static_cast<std::size_t>(options.replicas)),
                                                    parallel::GroupOptions{}, options.threads_per_replica);
  }
  struct Replica {
    BenchModel net;
    std::unique_ptr<TrainStep> step;
    Batch batch;
  };
  std::vector<Replica> replicas(static_cast<std::size_t>(options.replicas));
  seed_all(0);
  for (Replica& replica : replicas) replica.net = make_net(options);
  if (options.batch_size == 0) options.batch_size = replicas[0].net.batch_size;
  options.weight_decay = 0;
  strategy->run([&](std::size_t i) {
    Replica& replica = replicas[i];
    replica.batch = make_bench_batch(replica.net, options.batch_size, /*seed=*/i);
    const auto optimizer = programs::make_optimizer(replica.net.model->module(), options);
    replica.step =
        std::make_unique<TrainStep>(replica.net.model, optimizer, cross_entropy_loss(),
                                    TrainStepOptions{.channels_last = true, .group = strategy->ranks()[i].group});
    replica.net.model->module().train();
  });
  const auto step = [&] { strategy->run([&](std::size_t i) { replicas[i].step->run(replicas[i].batch); }); };
  for (int k = 0; k < 3; ++k) step();
  std::vector<double> rates;
  const Clock::time_point begin = Clock::now();
  while (rates.size() < 3 || seconds_since(begin) < options.seconds) {
    const Clock::time_point start = Clock::now();
    step();
    rates.push_back(static_cast<double>(options.replicas * options.batch_size) / seconds_since(start));
  }
  print_measurement(fmt::format("scaling/{}/width{}/batch{}/replicas{}/threads{}", options.model, options.width,
                                options.batch_size, options.replicas, options.threads_per_replica),
                    "samples/s", rates);
  return 0;
}

}  // namespace mmtrain::bench
