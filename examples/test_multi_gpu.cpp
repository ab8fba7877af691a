// Checks what this machine offers for training: devices, one training step on each, and one on all of them together.
#include <fmt/format.h>
#include <mmtrain/mmtrain.h>
#include <torch/torch.h>

#include <optional>
#include <string>
#include <vector>

#include "common/cli.h"
#include "common/program.h"

namespace {

using namespace mmtrain;

constexpr std::int64_t kRows = 8;

struct Outcome {
  torch::Tensor logits;
  std::vector<torch::Tensor> gradients;
};

// Forward and backward of the baseline net with fixed weights and images, in evaluation mode so that dropout does not
// make devices differ.
Outcome forward_backward(torch::Device device, double width) {
  torch::manual_seed(0);
  const auto model = make_model("baseline", {.width = width});
  const torch::Tensor images = torch::randn({kRows, 3, 64, 64}), labels = torch::randint(200, {kRows}, torch::kInt64);
  model->module().to(device);
  model->module().eval();
  NamedTensors inputs;
  inputs.insert("image", images.to(device));
  const torch::Tensor logits = model->forward(inputs);
  const LossValue loss = nn::cross_entropy(logits, labels.to(device));
  (loss.sum / loss.weight).backward();
  Outcome outcome{logits.detach().cpu(), {}};
  for (const torch::Tensor& parameter : model->module().parameters())
    outcome.gradients.push_back(parameter.grad().cpu());
  return outcome;
}

double relative_difference(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max().clamp_min(1e-12)).item<double>();
}

bool check(const std::string& what, bool passed, const std::string& detail) {
  log::info(fmt::format("{} {}: {}", passed ? "PASS" : "FAIL", what, detail));
  return passed;
}

// Compares a device with the CPU. TF32 and other summation orders allow a small difference.
bool check_device(torch::Device device, const Outcome& reference, double width) {
  const Outcome outcome = forward_backward(device, width);
  double gradients = 0;
  for (std::size_t k = 0; k < outcome.gradients.size(); ++k) {
    gradients = std::max(gradients, relative_difference(outcome.gradients[k], reference.gradients[k]));
  }
  const double logits = relative_difference(outcome.logits, reference.logits);
  return check(fmt::format("forward and backward on {}", device.str()), logits < 1e-2 && gradients < 5e-2,
               fmt::format("largest relative difference to the first CPU pass: logits {:.1e}, gradients {:.1e}", logits,
                           gradients));
}

// One step of the net spread over `devices` against the same step on the first of them alone.
bool check_replicas(const std::vector<torch::Device>& devices, double width) {
  log::info(training_on(devices, static_cast<int>(devices.size())));
  torch::manual_seed(0);
  models::Baseline net(ModelOptions{.width = width});
  net->to(devices[0]);
  net->eval();
  const torch::Tensor images = torch::randn({kRows + 1, 3, 64, 64}).to(devices[0]);
  const torch::Tensor labels = torch::randint(200, {kRows + 1}, torch::kInt64).to(devices[0]);
  const auto step = [&](const torch::Tensor& logits) {
    const LossValue loss = nn::cross_entropy(logits, labels);
    (loss.sum / loss.weight).backward();
    Outcome outcome{logits.detach().cpu(), {}};
    for (torch::Tensor& parameter : net->parameters()) {
      outcome.gradients.push_back(parameter.grad().cpu().clone());
      parameter.mutable_grad().reset();
    }
    return outcome;
  };
  const Outcome alone = step(net->forward(images));
  parallel::DataParallel<models::Baseline> replicas(net, devices);
  const Outcome together = step(replicas.forward(images));
  double gradients = 0;
  for (std::size_t k = 0; k < alone.gradients.size(); ++k) {
    gradients = std::max(gradients, relative_difference(together.gradients[k], alone.gradients[k]));
  }
  const double logits = relative_difference(together.logits, alone.logits);
  return check(fmt::format("{} replicas against one device", devices.size()), logits < 1e-2 && gradients < 5e-2,
               fmt::format("largest relative difference: logits {:.1e}, gradients {:.1e}", logits, gradients));
}

int run(int argc, char** argv) {
  std::string device = "auto";
  double width = 0.5;
  int replicas = 2;
  programs::Cli cli("test_multi_gpu", "Lists the devices and checks a training step of the baseline net on each.");
  cli.add("device", device, "auto, cpu, cuda or cuda:0,1");
  cli.add("replicas", replicas, "replicas on the CPU to check where there are not several GPUs");
  cli.add("width", width, "factor on the net's channel counts");
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;

  if (replicas < 1) throw ConfigError(fmt::format("--replicas must be positive, got {}", replicas));
  const std::vector<torch::Device> devices = parse_devices(device);
  for (const std::string& line : to_lines(collect_system_info())) log::info(line);
  for (const torch::Device& each : devices) {
    const DeviceInfo info = describe(each);
    log::info(fmt::format("{}: {} ({:.2f} GB)", each.str(), info.name, static_cast<double>(info.total_memory) / 1e9));
  }
  const auto model = make_model("baseline");
  log::info(fmt::format("Model parameters: {:.2f}M", static_cast<double>(count_parameters(model->module())) / 1e6));

  bool passed = true;
  const Outcome reference = forward_backward(torch::kCPU, width);
  for (const torch::Device& each : devices) passed &= check_device(each, reference, width);
  passed &=
      check_replicas(devices.size() > 1 ? devices : parallel::cpu_replicas(static_cast<std::size_t>(replicas)), width);
  log::info(passed ? "All checks passed" : "Some checks FAILED");
  return passed ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return programs::run_program([&](mmtrain::OutOfMemoryContext&) { return run(argc, argv); });
}
