#include "device/device_spec.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <numeric>
#include <string_view>

#include "device/cuda_driver.h"
#include "mmtrain/core/error.h"

namespace mmtrain {
namespace {

constexpr std::string_view kPrefix = "cuda:";

[[noreturn]] void refuse_form(const std::string& spec) {
  throw ConfigError(fmt::format(
      "[Device] device must be auto, cpu, cuda, cuda:N or a list like cuda:0,2 (also 0,2), got '{}'", spec));
}

int parse_index(std::string_view item, const std::string& spec) {
  while (item.starts_with(' ')) item.remove_prefix(1);
  while (item.ends_with(' ')) item.remove_suffix(1);
  if (item.starts_with(kPrefix)) item.remove_prefix(kPrefix.size());
  int index = 0;
  const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), index);
  if (error != std::errc() || end != item.data() + item.size() || index < 0) refuse_form(spec);
  return index;
}

std::vector<int> parse_indices(const std::string& spec) {
  std::vector<int> indices;
  for (std::string_view rest = spec;;) {
    const std::size_t comma = rest.find(',');
    const int index = parse_index(rest.substr(0, comma), spec);
    if (std::ranges::find(indices, index) != indices.end()) {
      throw ConfigError(fmt::format(
          "[Device] each GPU must be named once, got cuda:{} twice in '{}': one process trains one replica a GPU",
          index, spec));
    }
    indices.push_back(index);
    if (comma == std::string_view::npos) return indices;
    rest.remove_prefix(comma + 1);
  }
}

std::string list_gpus(const std::vector<std::string>& names) {
  std::vector<std::string> items;
  for (std::size_t i = 0; i < names.size(); ++i) items.push_back(fmt::format("cuda:{} ({})", i, names[i]));
  return fmt::format("{}", fmt::join(items, ", "));
}

}  // namespace

CudaSituation cuda_situation(int libtorch_cuda, const CudaDriver& driver) {
  CudaSituation situation{.libtorch_cuda = libtorch_cuda,
                          .driver_found = driver.found(),
                          .driver_version = driver.version(),
                          .driver_devices = driver.device_count(),
                          .driver_no_device = driver.no_device(),
                          .driver_error = driver.error(),
                          .visible_devices = std::nullopt};
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) situation.visible_devices = visible;
  return situation;
}

std::string cuda_version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

std::string explain_no_cuda(const CudaSituation& situation) {
  if (situation.libtorch_cuda == 0) return "this LibTorch is a CPU-only build";
  const std::string built_for = cuda_version_text(situation.libtorch_cuda);
  if (!situation.driver_found) {
    return fmt::format("LibTorch is a CUDA {} build, but this machine has no NVIDIA driver (libcuda.so.1 not found)",
                       built_for);
  }
  if (situation.driver_version / 1000 < situation.libtorch_cuda / 1000) {
    return fmt::format("the NVIDIA driver serves CUDA {}, LibTorch was built for CUDA {}: the driver is too old",
                       cuda_version_text(situation.driver_version), built_for);
  }
  if (situation.driver_devices > 0) return {};
  if (!situation.driver_error.empty() && !situation.driver_no_device) {
    return fmt::format("the NVIDIA driver does not start: {}", situation.driver_error);
  }
  if (situation.visible_devices) {
    return fmt::format("the NVIDIA driver shows no GPU with CUDA_VISIBLE_DEVICES='{}'", *situation.visible_devices);
  }
  return "the NVIDIA driver finds no GPU";
}

std::vector<int> select_devices(const std::string& spec, const std::vector<std::string>& names,
                                const std::string& unavailable) {
  if (spec == "cpu") return {};
  if (spec == "auto") {
    std::vector<int> all(names.size());
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  const std::vector<int> indices = spec == "cuda" ? std::vector<int>{0} : parse_indices(spec);
  if (names.empty()) {
    throw DeviceError(fmt::format("[Device] '{}' was asked for, but {}; use cpu or auto", spec, unavailable));
  }
  for (const int index : indices) {
    if (static_cast<std::size_t>(index) >= names.size()) {
      throw DeviceError(fmt::format("[Device] cuda:{} does not exist; visible: {}", index, list_gpus(names)));
    }
  }
  return indices;
}

}  // namespace mmtrain
