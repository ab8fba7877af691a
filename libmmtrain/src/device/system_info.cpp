#include "mmtrain/device/system_info.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "device/cuda_driver.h"
#include "device/device_spec.h"
#include "device/nvml.h"
#include "mmtrain/core/version.h"
#include "mmtrain/device/memory.h"

namespace mmtrain {
namespace {

// 91900 is 9.19.0; before version 9 the steps were 8902 for 8.9.2.
std::string cudnn_version_text(long version) {
  const long step = version >= 90000 ? 10000 : 1000;
  return fmt::format("{}.{}.{}", version / step, version % step / 100, version % 100);
}

std::string compiler_text() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

std::vector<std::pair<std::string, std::string>> steering_variables() {
  constexpr std::array<std::string_view, 7> prefixes = {"TORCH_", "PYTORCH_", "CUDA_", "CUBLAS_",
                                                        "NCCL_",  "OMP_",     "MKL_"};
  std::vector<std::pair<std::string, std::string>> found;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::size_t equals = text.find('=');
    const bool steers =
        std::ranges::any_of(prefixes, [&](std::string_view prefix) { return text.starts_with(prefix); });
    if (steers && equals != std::string_view::npos) found.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  std::ranges::sort(found);
  return found;
}

void add_cuda(SystemInfo& info) {
  info.cuda_unavailable = cuda_unavailable_reason();
  if (!at::Context::hasCUDART()) return;
  info.cuda_build = cuda_version_text(static_cast<int>(at::Context::versionCUDART()));
  if (at::detail::getCUDAHooks().compiledWithCuDNN()) info.cudnn = cudnn_version_text(at::Context::versionCuDNN());
  if (const CudaDriver& driver = CudaDriver::instance(); driver.found()) {
    info.cuda_driver = cuda_version_text(driver.version());
    info.nvidia_driver = Nvml::instance().driver_version();
  }
  for (int index = 0; index < cuda_device_count(); ++index) {
    info.gpus.push_back(describe({c10::kCUDA, static_cast<c10::DeviceIndex>(index)}));
  }
}

std::string memory_text(const DeviceInfo& device) {
  return fmt::format("{} ({} free)", format_bytes(device.total_memory), format_bytes(device.free_memory));
}

std::string libraries_line(const SystemInfo& info) {
  std::string build = info.cuda_build.empty() ? "CPU-only build" : fmt::format("CUDA {} build", info.cuda_build);
  if (!info.cudnn.empty()) build += fmt::format(", cuDNN {}", info.cudnn);
  return fmt::format("mmtrain {}, LibTorch {} ({}), {}", info.mmtrain, info.libtorch, build, info.compiler);
}

std::string driver_line(const SystemInfo& info) {
  return fmt::format("NVIDIA driver{}{} for CUDA {}", info.nvidia_driver.empty() ? "" : " ", info.nvidia_driver,
                     info.cuda_driver);
}

nlohmann::ordered_json device_json(const DeviceInfo& device) {
  nlohmann::ordered_json json = {{"device", device.device.str()},
                                 {"name", device.name},
                                 {"total_memory", device.total_memory},
                                 {"free_memory", device.free_memory}};
  json[device.device.is_cuda() ? "multiprocessors" : "cores"] = device.units;
  if (device.device.is_cuda()) {
    json["capability"] = fmt::format("{}.{}", device.capability_major, device.capability_minor);
  }
  return json;
}

}  // namespace

SystemInfo collect_system_info() {
  SystemInfo info;
  info.mmtrain = version();
  info.libtorch = torch_version();
  info.compiler = compiler_text();
  info.threads = at::get_num_threads();
  info.cpu = describe(c10::kCPU);
  info.environment = steering_variables();
  if (utsname system{}; uname(&system) == 0) {
    info.system = fmt::format("{} {} {}", system.sysname, system.release, system.machine);
    info.host = system.nodename;
  }
  add_cuda(info);
  return info;
}

std::vector<std::string> to_lines(const SystemInfo& info) {
  std::vector<std::string> lines = {libraries_line(info), fmt::format("{} on {}", info.system, info.host),
                                    fmt::format("cpu: {}, {} cores, {}; {} threads an operator", info.cpu.name,
                                                info.cpu.units, memory_text(info.cpu), info.threads)};
  if (!info.cuda_driver.empty()) lines.push_back(driver_line(info));
  for (const DeviceInfo& gpu : info.gpus) {
    lines.push_back(fmt::format("{}: {}, {}, capability {}.{}", gpu.device.str(), gpu.name, memory_text(gpu),
                                gpu.capability_major, gpu.capability_minor));
  }
  if (info.gpus.empty()) lines.push_back(fmt::format("GPU: none, {}", info.cuda_unavailable));
  return lines;
}

std::string to_json(const SystemInfo& info) {
  nlohmann::ordered_json json = {{"mmtrain", info.mmtrain},
                                 {"libtorch", info.libtorch},
                                 {"cuda_build", info.cuda_build},
                                 {"cudnn", info.cudnn},
                                 {"cuda_driver", info.cuda_driver},
                                 {"nvidia_driver", info.nvidia_driver},
                                 {"cuda_unavailable", info.cuda_unavailable},
                                 {"compiler", info.compiler},
                                 {"system", info.system},
                                 {"host", info.host},
                                 {"threads", info.threads}};
  json["devices"] = nlohmann::ordered_json::array({device_json(info.cpu)});
  for (const DeviceInfo& gpu : info.gpus) json["devices"].push_back(device_json(gpu));
  json["environment"] = nlohmann::ordered_json::object();
  for (const auto& [name, value] : info.environment) json["environment"][name] = value;
  // A variable may hold any bytes; JSON must be UTF-8.
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace mmtrain
