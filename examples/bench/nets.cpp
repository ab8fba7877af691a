#include "bench/nets.h"

#include <algorithm>
#include <vector>

#include "common/images.h"
#include "mmtrain/models/registry.h"

namespace mmtrain::bench {
namespace {

std::vector<std::string> net_names() {
  std::vector<std::string> names = model_names();
  names.insert(names.end(), bench_model_names().begin(), bench_model_names().end());
  return names;
}

}  // namespace

void declare_net(programs::Cli& cli, StepOptions& options) {
  cli.add_choice("model", options.model, net_names(), "net");
  cli.add("width", options.width, "factor on the channel counts of the library's nets");
  cli.add("d_model", options.d_model, "features of the nets for sensors and emotion, 0: the reference");
  cli.add("num_heads", options.num_heads, "attention heads of these, 0: the reference");
  cli.add("num_layers", options.num_layers, "encoder layers of these, 0: the reference");
  cli.add("d_ff", options.d_ff, "hidden features of their feed-forward parts, 0: the reference");
}

BenchModel make_net(const StepOptions& options) {
  const auto& names = bench_model_names();
  if (std::find(names.begin(), names.end(), options.model) != names.end()) {
    return make_bench_model(options.model, options.dropout);
  }
  ModelOptions net{.width = options.width, .image_size = programs::kImageSize, .dropout = options.dropout};
  net.d_model = options.d_model;
  net.num_heads = options.num_heads;
  net.num_layers = options.num_layers;
  net.d_ff = options.d_ff;
  return make_library_model(options.model, net);
}

}  // namespace mmtrain::bench
