#include "common/gpu_check.h"

#include <fmt/format.h>
#include <mmtrain/mmtrain.h>
#include <torch/torch.h>

#include <cmath>
#include <exception>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace programs {
namespace {

using namespace mmtrain;

constexpr std::int64_t kRows = 16, kChannels = 6, kSteps = 500, kBins = 129, kFrames = 5, kClasses = 4;
constexpr double kLoose = 2e-2;  // TF32 and other summation orders allow this difference, relative to the largest value

// What a check found; `skipped` says that there was nothing to check.
struct Finding {
  bool passed = false;
  std::string detail;
  bool skipped = false;
};

Finding skip(std::string reason) { return {true, std::move(reason), true}; }

// The behavior net with little depth: every kind of layer of the programs is in it.
std::shared_ptr<Model> small_net() {
  torch::manual_seed(0);
  return make_model("fusion", {.num_classes = kClasses,
                               .width = 0.25,
                               .dropout = false,
                               .channels = kChannels,
                               .d_model = 64,
                               .num_layers = 2,
                               .d_ff = 128});
}

// Windows that can be told apart: the class is in the mean of a channel.
class Windows final : public SampleDataset {
 public:
  DatasetSpec spec() const override {
    return {{{"series", {kSteps, kChannels}}, {"stft", {kChannels, kBins, kFrames}}}};
  }
  std::int64_t size() const override { return 4 * kRows; }
  Sample get(std::int64_t index) const override {
    at::Generator generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(index));
    const std::int64_t label = index % kClasses;
    Sample sample;
    sample.inputs.insert("series", torch::randn({kSteps, kChannels}, generator) + static_cast<double>(label));
    sample.inputs.insert("stft", torch::randn({kChannels, kBins, kFrames}, generator));
    sample.target = torch::tensor(label, torch::kInt64);
    return sample;
  }
  std::vector<std::int64_t> labels() const override {
    std::vector<std::int64_t> labels;
    for (std::int64_t k = 0; k < size(); ++k) labels.push_back(k % kClasses);
    return labels;
  }
};

Batch one_batch(torch::Device device) {
  DataLoader loader(std::make_shared<Windows>(), std::make_shared<SequentialSampler>(4 * kRows), {.batch_size = kRows});
  return (*loader.epoch(0).begin()).to(device);
}

double difference(const torch::Tensor& a, const torch::Tensor& b) {
  const torch::Tensor reference = b.cpu().to(torch::kDouble);
  return ((a.cpu().to(torch::kDouble) - reference).abs().max() / reference.abs().max().clamp_min(1e-12)).item<double>();
}

// Losses of some steps of training.
std::vector<double> train(torch::Device device, TrainStepOptions options, bool* compiled = nullptr) {
  const std::shared_ptr<Model> net = small_net();
  net->module().to(device);
  const auto optimizer = std::make_shared<optim::AdamW>(optim::named_groups(net->module()), optim::AdamWOptions(1e-3));
  options.clip_norm = 1;
  TrainStep step(net, optimizer, cross_entropy_loss(), std::move(options));
  net->module().train();
  const Batch batch = one_batch(device);
  std::vector<double> losses;
  for (int k = 0; k < 6; ++k) {
    const StepResult result = step.run(batch);
    losses.push_back((result.loss_sum / result.weight).item<double>());
  }
  if (compiled != nullptr) *compiled = step.is_compiled();
  return losses;
}

bool learns(const std::vector<double>& losses) {
  return std::all_of(losses.begin(), losses.end(), [](double loss) { return std::isfinite(loss); }) &&
         losses.back() < losses.front();
}

Finding check_device(torch::Device device) {
  if (device.is_cpu())
    return skip(cuda_unavailable_reason().empty() ? "the CPU was asked for" : cuda_unavailable_reason());
  const DeviceInfo info = describe(device);
  return {info.total_memory > 0,
          fmt::format("{}: {}, capability {}.{}, {} of {} free", device.str(), info.name, info.capability_major,
                      info.capability_minor, format_bytes(info.free_memory), format_bytes(info.total_memory))};
}

Finding check_operations(torch::Device device) {
  torch::manual_seed(1);
  const torch::Tensor a = torch::randn({256, 256}), image = torch::randn({4, 6, 32, 32}),
                      kernel = torch::randn({8, 6, 3, 3});
  const double product = difference(a.to(device).mm(a.to(device)), a.mm(a));
  const double convolved = difference(torch::conv2d(image.to(device), kernel.to(device)), torch::conv2d(image, kernel));
  const std::vector<double> losses = train(device, {});
  return {product < kLoose && convolved < kLoose && learns(losses),
          fmt::format(
              "product and convolution differ from the CPU's by {:.1e} and {:.1e}; loss {:.3f} -> {:.3f} in {} steps",
              product, convolved, losses.front(), losses.back(), losses.size())};
}

Finding check_mixed_precision(torch::Device device) {
  const amp::Decision decision = amp::decide_precision(amp::parse_precision("auto"), device);
  if (!decision.autocast) return skip(decision.reason);
  const std::vector<double> losses = train(device, {.precision = decision});
  return {learns(losses), fmt::format("{}; loss {:.3f} -> {:.3f}", decision.reason, losses.front(), losses.back())};
}

Finding check_compiled(torch::Device device) {
  if (device.is_cpu()) return skip("steps are compiled as CUDA graphs, and this is a CPU");
  bool compiled = false;
  const std::vector<double> recorded = train(device, {.compile = true}, &compiled), plain = train(device, {});
  if (!compiled) return skip("this build has no recorder of CUDA graphs");
  const double apart = std::abs(recorded.back() - plain.back()) / std::abs(plain.front());
  return {learns(recorded) && apart < kLoose, fmt::format("loss {:.4f} after {} replayed steps, {:.4f} as they are",
                                                          recorded.back(), recorded.size(), plain.back())};
}

Finding check_loader(torch::Device device, int workers) {
  const auto data = std::make_shared<Windows>();
  DataLoaderOptions options{.batch_size = kRows, .num_workers = workers, .pin_memory = device.is_cuda()};
  if (device.is_cuda()) options.prefetch_device = device;
  DataLoader loader(data, std::make_shared<RandomSampler>(data->size(), 0), options);
  std::int64_t rows = 0;
  bool in_place = true;
  for (Batch& batch : loader.epoch(0)) {
    rows += batch.size();
    in_place &= batch.input("series").device().type() == device.type();
  }
  return {rows == data->size() && in_place,
          fmt::format("{} windows by {} workers{}", rows, workers,
                      device.is_cuda() ? ", pinned, copied ahead on a side stream" : "")};
}

Finding check_several(torch::Device device) {
  std::vector<torch::Device> devices;
  for (int k = 0; device.is_cuda() && k < cuda_device_count(); ++k) devices.emplace_back(torch::kCUDA, k);
  if (device.is_cuda() && devices.size() < 2) return skip("this machine has one GPU");
  if (device.is_cpu()) devices = parallel::cpu_replicas(2);
  torch::manual_seed(0);
  models::Baseline net(ModelOptions{.width = 0.25});
  net->to(devices[0]);
  net->eval();
  const torch::Tensor images = torch::randn({kRows + 1, 3, 64, 64}).to(devices[0]);
  const torch::Tensor alone = net->forward(images);
  parallel::DataParallel<models::Baseline> replicas(net, devices);
  const double apart = difference(replicas.forward(images).detach(), alone.detach());
  return {apart < kLoose, fmt::format("{}: logits differ from one device's by {:.1e}",
                                      training_on(devices, static_cast<int>(devices.size())), apart)};
}

Finding check_memory(torch::Device device) {
  if (device.is_cpu()) {
    const MemoryStats stats = memory_stats(device);
    return {stats.allocated > 0, fmt::format("{} in use, {} of {} free", format_bytes(stats.allocated),
                                             format_bytes(stats.free), format_bytes(stats.total))};
  }
  const std::int64_t before = memory_stats(device).allocated;
  {
    const torch::Tensor block = torch::zeros({64 << 20}, torch::TensorOptions(torch::kByte).device(device));
    if (memory_stats(device).allocated < before + (64 << 20))
      return {false, "64 MiB were allocated and are not counted"};
  }
  empty_cache(device);
  const MemoryStats after = memory_stats(device);
  return {after.allocated <= before,
          fmt::format("{} allocated, {} reserved after the cache was released, {} at most",
                      format_bytes(after.allocated), format_bytes(after.reserved), format_bytes(after.peak_allocated))};
}

}  // namespace

int check_gpu(const GpuCheckOptions& options) {
  for (const std::string& line : to_lines(collect_system_info())) log::info(line);
  const torch::Device device = options.device == "auto" ? best_device() : parse_devices(options.device)[0];
  const std::pair<const char*, std::function<Finding()>> checks[] = {
      {"device", [&] { return check_device(device); }},
      {"basic operations", [&] { return check_operations(device); }},
      {"mixed precision", [&] { return check_mixed_precision(device); }},
      {"compiled step", [&] { return check_compiled(device); }},
      {"loader", [&] { return check_loader(device, options.num_workers); }},
      {"several devices", [&] { return check_several(device); }},
      {"memory", [&] { return check_memory(device); }},
  };
  int failed = 0, skipped = 0, all = 0;
  for (const auto& [name, check] : checks) {
    Finding finding;
    try {
      finding = check();
    } catch (const std::exception& error) {
      finding = {false, error.what()};
    }
    log::info(fmt::format("{} {}: {}",
                          finding.skipped  ? "SKIP"
                          : finding.passed ? "PASS"
                                           : "FAIL",
                          name, finding.detail));
    failed += !finding.passed;
    skipped += finding.skipped;
    ++all;
  }
  log::info(fmt::format("{} passed, {} failed, {} skipped", all - failed - skipped, failed, skipped));
  return failed == 0 ? 0 : 1;
}

}  // namespace programs
