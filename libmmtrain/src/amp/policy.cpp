#include "mmtrain/amp/policy.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "mmtrain/core/error.h"

namespace mmtrain::amp {
namespace {

constexpr int kBf16Capability = 8;        // Ampere: the first with bfloat16 units
constexpr int kTensorCoreCapability = 7;  // Volta: the first with float16 units that pay
constexpr double kClearGain = 1.1;        // below it, noise and the casts of autocast eat the gain

// A product and a convolution of the sizes of small nets; the results are thrown away.
double seconds_of_work(at::ScalarType dtype) {
  const at::TensorOptions options = at::TensorOptions().dtype(dtype);
  const at::Tensor matrix = at::ones({192, 192}, options);
  const at::Tensor image = at::ones({4, 16, 24, 24}, options), kernel = at::ones({32, 16, 3, 3}, options);
  const auto start = std::chrono::steady_clock::now();
  at::mm(matrix, matrix);
  at::conv2d(image, kernel, /*bias=*/{}, /*stride=*/1, /*padding=*/1);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double measure_cpu_speedup() {
  const at::NoGradGuard no_grad;
  constexpr int kRounds = 5;
  double full = seconds_of_work(at::kFloat), half = seconds_of_work(at::kBFloat16);  // the first calls set kernels up
  for (int round = 0; round < kRounds; ++round) {
    full = std::min(full, seconds_of_work(at::kFloat));
    half = std::min(half, seconds_of_work(at::kBFloat16));
    if (half > 4 * full) break;  // emulated: no need to wait for more of it
  }
  return full / half;
}

Decision full_precision(std::string reason) { return {{}, "float32: " + std::move(reason)}; }
Decision bfloat16(std::string reason) { return {{true, at::kBFloat16, false}, "bfloat16: " + std::move(reason)}; }
Decision float16(std::string reason) {
  return {{true, at::kHalf, true}, "float16 with loss scaling: " + std::move(reason)};
}

std::string capability_of(const DeviceInfo& device) {
  return fmt::format("{} has compute capability {}.{}", device.name, device.capability_major, device.capability_minor);
}

Decision decide_for_cpu(const std::function<double()>& cpu_speedup) {
  const double speedup = cpu_speedup();
  if (speedup >= kClearGain) return bfloat16(fmt::format("a probe found it {:.1f} times as fast on this CPU", speedup));
  if (speedup >= 1) return full_precision("bfloat16 gains nothing on this CPU");
  return full_precision(fmt::format("a probe found bfloat16 {:.1f} times slower on this CPU", 1 / speedup));
}

Decision decide_by_itself(const DeviceInfo& device, const std::function<double()>& cpu_speedup) {
  if (device.device.is_cpu()) return decide_for_cpu(cpu_speedup);
  if (device.capability_major >= kBf16Capability) return bfloat16(capability_of(device));
  if (device.capability_major >= kTensorCoreCapability) return float16(capability_of(device) + ", without bfloat16");
  return full_precision(capability_of(device) + ", without fast half precision");
}

// Why a demand may disappoint.
std::string price_of(Precision demand, const DeviceInfo& device) {
  if (device.device.is_cpu()) return "as asked; few CPUs are faster in half precision";
  const bool emulated = demand == Precision::bf16 && device.capability_major < kBf16Capability;
  return emulated ? "as asked, but " + capability_of(device) + " and emulates it" : "as asked";
}

}  // namespace

Precision parse_precision(std::string_view text) {
  if (text == "auto") return Precision::automatic;
  if (text == "off") return Precision::off;
  if (text == "fp16") return Precision::fp16;
  if (text == "bf16") return Precision::bf16;
  throw ConfigError(fmt::format("[amp] the precision must be auto, off, fp16 or bf16, got '{}'", text));
}

double cpu_bf16_speedup() {
  static const double speedup = measure_cpu_speedup();
  return speedup;
}

Decision decide_precision(Precision wish, c10::Device device, const std::function<double()>& cpu_speedup) {
  return decide_precision(wish, describe(device), cpu_speedup);
}

Decision decide_precision(Precision wish, const DeviceInfo& device, const std::function<double()>& cpu_speedup) {
  switch (wish) {
    case Precision::off:
      return full_precision("as asked");
    case Precision::fp16:
      return float16(price_of(wish, device));
    case Precision::bf16:
      return bfloat16(price_of(wish, device));
    case Precision::automatic:
      break;
  }
  return decide_by_itself(device, cpu_speedup);
}

}  // namespace mmtrain::amp
