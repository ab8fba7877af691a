#include "mmtrain/device/memory.h"

#include <ATen/Context.h>
#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>
#include <regex>
#include <string_view>

#include "device/cuda_driver.h"
#include "device/device_memory.h"
#include "device/machine.h"
#include "mmtrain/core/error.h"
#include "mmtrain/device/device.h"

namespace mmtrain {
namespace {

// LibTorch's allocator of GPU memory once it is in use, else null.
c10::DeviceAllocator* cuda_allocator() {
  if (!at::Context::hasCUDART()) return nullptr;
  auto* allocator = at::getDeviceAllocator(c10::kCUDA);
  return allocator->initialized() ? allocator : nullptr;
}

c10::DeviceIndex index_of(c10::Device device) { return device.has_index() ? device.index() : c10::DeviceIndex{0}; }

MemoryStats cpu_stats() {
  const ProcessMemory process = process_memory();
  const HostMemory host = host_memory();
  return {.allocated = process.resident,
          .reserved = process.resident,
          .peak_allocated = process.peak,
          .total = host.total,
          .free = host.free};
}

MemoryStats cuda_stats(c10::DeviceIndex index) {
  MemoryStats stats;
  if (index >= cuda_device_count()) return stats;
  const DeviceMemory memory = cuda_memory(index);
  stats.total = memory.total;
  stats.free = memory.free;
  if (auto* allocator = cuda_allocator()) {
    const auto figures = allocator->getDeviceStats(index);
    constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    stats.allocated = figures.allocated_bytes[kAll].current;
    stats.reserved = figures.reserved_bytes[kAll].current;
    stats.peak_allocated = figures.allocated_bytes[kAll].peak;
  }
  return stats;
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// Bytes the failed allocation asked for, as LibTorch's texts for CUDA and CPU give them; 0 if they do not.
std::int64_t bytes_wanted(const std::string& text) {
  static const std::regex pattern(R"([Tt]ried to allocate ([0-9]+(?:\.[0-9]+)?) (bytes|KiB|MiB|GiB))");
  std::smatch match;
  if (!std::regex_search(text, match, pattern)) return 0;
  const std::string unit = match[2];
  const double scale = unit == "GiB" ? 1 << 30 : unit == "MiB" ? 1 << 20 : unit == "KiB" ? 1 << 10 : 1;
  return static_cast<std::int64_t>(std::stod(match[1]) * scale);
}

std::string figures_line(const std::exception& error, c10::Device device) {
  const MemoryStats stats = memory_stats(device);
  const std::int64_t wanted = bytes_wanted(error.what());
  return fmt::format("Out of memory on {}: {}{} of {} free; this run uses {}, at most {} so far", device.str(),
                     wanted > 0 ? fmt::format("wanted {} more, ", format_bytes(wanted)) : "", format_bytes(stats.free),
                     format_bytes(stats.total), format_bytes(stats.allocated), format_bytes(stats.peak_allocated));
}

}  // namespace

DeviceMemory cuda_memory(int index) {
  const auto properties = CudaDriver::instance().properties(index);
  if (properties) {
    if (const auto memory = Nvml::instance().memory(properties->uuid)) return *memory;
  }
  const auto [free, total] = at::getDeviceAllocator(c10::kCUDA)->getMemoryInfo(static_cast<c10::DeviceIndex>(index));
  return {.free = static_cast<std::int64_t>(free), .total = static_cast<std::int64_t>(total)};
}

MemoryStats memory_stats(c10::Device device) { return device.is_cuda() ? cuda_stats(index_of(device)) : cpu_stats(); }

void empty_cache(c10::Device device) {
  if (!device.is_cuda()) return;
  if (auto* allocator = cuda_allocator()) allocator->emptyCache();
}

void reset_peak(c10::Device device) {
  if (!device.is_cuda()) return reset_process_peak();
  if (auto* allocator = cuda_allocator()) allocator->resetPeakStats(index_of(device));
}

void limit_cuda_memory(double fraction) {
  if (!(fraction > 0 && fraction <= 1)) {
    throw ConfigError(
        fmt::format("[memory] the fraction of a GPU's memory must be above 0 and at most 1, got {}", fraction));
  }
  // Settings replace one another, so those of the environment are repeated.
  std::string settings;
  for (const char* variable : {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}) {
    const char* value = std::getenv(variable);
    if (value != nullptr && *value != '\0' && settings.empty()) settings = std::string(value) + ",";
  }
  c10::CachingAllocator::setAllocatorSettings(fmt::format("{}per_process_memory_fraction:{}", settings, fraction));
}

std::string format_bytes(std::int64_t bytes) {
  constexpr std::array<const char*, 4> units = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.995 would print as 1024.00.
  for (; value >= 1023.995 && unit + 1 < units.size(); ++unit) value /= 1024;
  return fmt::format("{:.2f} {}", value, units[unit]);
}

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) || dynamic_cast<const std::bad_alloc*>(&error)) return true;
  constexpr std::array<std::string_view, 8> texts = {"CUDA out of memory",         "CUDA error: out of memory",
                                                     "cudaErrorMemoryAllocation",  "Cuda failure 'out of memory'",
                                                     "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
                                                     "can't allocate memory",      "std::bad_alloc"};
  return std::ranges::any_of(texts, [&](std::string_view text) { return contains(error.what(), text); });
}

std::string out_of_memory_advice(const std::exception& error, const OutOfMemoryContext& context) {
  const auto has = [&](std::string_view flag) { return std::ranges::find(context.flags, flag) != context.flags.end(); };
  std::string text = figures_line(error, context.device);
  const auto advise = [&](std::string_view line) { text += fmt::format("\n  - {}", line); };

  const bool halve = context.batch_size > 1;
  advise(halve ? fmt::format("halve the batch: --batch_size {}", context.batch_size / 2) : "take smaller samples");
  if (halve && has("--accumulation_steps")) advise("double --accumulation_steps with it, to keep the effective batch");
  if (has("--amp")) advise("--amp auto: activations of half the size where the device supports it");
  if (has("--num_workers")) advise("fewer workers (--num_workers): each holds batches in host memory");
  advise("on a GPU, PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True: less memory lost between blocks");
  return text;
}

}  // namespace mmtrain
