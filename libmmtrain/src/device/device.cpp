#include "mmtrain/device/device.h"

#include <ATen/Context.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/cuda.h>

#include "device/cuda_driver.h"
#include "device/device_memory.h"
#include "device/device_spec.h"
#include "device/machine.h"
#include "mmtrain/core/error.h"

namespace mmtrain {
namespace {

int libtorch_cuda_version() { return at::Context::hasCUDART() ? static_cast<int>(at::Context::versionCUDART()) : 0; }

// Found by the driver alone. Asking LibTorch instead would warn in several lines about what we say in one.
const std::string& driver_reason() {
  static const std::string reason = [] {
    const int libtorch_cuda = libtorch_cuda_version();
    if (libtorch_cuda == 0) return explain_no_cuda({});
    return explain_no_cuda(cuda_situation(libtorch_cuda, CudaDriver::instance()));
  }();
  return reason;
}

std::vector<std::string> gpu_names() {
  std::vector<std::string> names;
  for (int index = 0; index < cuda_device_count(); ++index) {
    const auto properties = CudaDriver::instance().properties(index);
    names.push_back(properties ? properties->name : "unknown");
  }
  return names;
}

c10::Device cuda(int index) { return {c10::kCUDA, static_cast<c10::DeviceIndex>(index)}; }

DeviceInfo describe_cpu() {
  const HostMemory memory = host_memory();
  return {.name = cpu_name(), .total_memory = memory.total, .free_memory = memory.free, .units = cpu_cores()};
}

DeviceInfo describe_cuda(int index) {
  DeviceInfo info;
  info.device = cuda(index);
  if (const auto properties = CudaDriver::instance().properties(index)) {
    info.name = properties->name;
    info.capability_major = properties->capability_major;
    info.capability_minor = properties->capability_minor;
    info.units = properties->multiprocessors;
  }
  const DeviceMemory memory = cuda_memory(index);
  info.total_memory = memory.total;
  info.free_memory = memory.free;
  return info;
}

}  // namespace

int cuda_device_count() { return driver_reason().empty() ? static_cast<int>(torch::cuda::device_count()) : 0; }

std::string cuda_unavailable_reason() {
  if (cuda_device_count() > 0) return {};
  if (!driver_reason().empty()) return driver_reason();
  return fmt::format("LibTorch cannot use any of the {} GPUs the NVIDIA driver shows",
                     CudaDriver::instance().device_count());
}

std::vector<c10::Device> parse_devices(const std::string& spec) {
  if (spec == "cpu") return {c10::kCPU};
  std::vector<c10::Device> devices;
  for (const int index : select_devices(spec, gpu_names(), cuda_unavailable_reason())) devices.push_back(cuda(index));
  if (devices.empty()) devices.emplace_back(c10::kCPU);
  return devices;
}

c10::Device best_device() {
  c10::Device best = c10::kCPU;
  std::int64_t most = -1;
  for (int index = 0; index < cuda_device_count(); ++index) {
    const std::int64_t free = cuda_memory(index).free;
    if (free <= most) continue;
    most = free;
    best = cuda(index);
  }
  return best;
}

DeviceInfo describe(c10::Device device) {
  if (device.is_cpu()) return describe_cpu();
  const int index = device.has_index() ? device.index() : 0;
  if (!device.is_cuda() || index >= cuda_device_count()) {
    throw DeviceError(
        fmt::format("[Device] {} does not exist: there are the CPU and {} GPUs", device.str(), cuda_device_count()));
  }
  return describe_cuda(index);
}

std::string training_on(const std::vector<c10::Device>& devices, int replicas) {
  if (devices.empty() || devices.front().is_cpu()) {
    return replicas > 1 ? fmt::format("Training on: {} CPU replicas", replicas) : "Training on: cpu";
  }
  if (devices.size() == 1) return fmt::format("Training on: {} ({})", devices[0].str(), describe(devices[0]).name);
  std::vector<int> indices;
  for (const c10::Device& device : devices) indices.push_back(device.index());
  return fmt::format("Training on: DataParallel on {} GPUs: {}", devices.size(), indices);
}

}  // namespace mmtrain
