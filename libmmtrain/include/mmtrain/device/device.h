#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"

/// Which devices there are and which of them a run shall use. The first function here that looks for GPUs starts the
/// CUDA driver: CUDA_VISIBLE_DEVICES is fixed from then on, and a process that forks ranks must not have called any.
namespace mmtrain {

/// What is known of a device without using it.
struct DeviceInfo {
  c10::Device device = c10::kCPU;
  std::string name;               ///< `NVIDIA H200`, or the CPU's model
  std::int64_t total_memory = 0;  ///< bytes; of the CPU: what this process may use, see `memory_stats`
  std::int64_t free_memory = 0;   ///< bytes
  int capability_major = 0;       ///< CUDA compute capability; 0 for a CPU
  int capability_minor = 0;
  int units = 0;  ///< multiprocessors of a GPU, logical cores of a CPU this process may use
};

/// GPUs that can be used.
MMTRAIN_API int cuda_device_count();

/// Why no GPU can be used, as the middle of a sentence: a CPU-only LibTorch, no driver, a driver too old, no device, or
/// all hidden by CUDA_VISIBLE_DEVICES. Empty if one can.
MMTRAIN_API std::string cuda_unavailable_reason();

/// Devices named by `spec`, at least one:
///   `auto`                 all GPUs, the CPU if there are none (the only form that falls back);
///   `cpu`;
///   `cuda`                 the first GPU;
///   `cuda:1`, `cuda:0,2`   these GPUs, in this order; `1` and `0,2` are the same.
/// Indices count the devices CUDA_VISIBLE_DEVICES leaves visible. Throws `ConfigError` for any other text and for a GPU
/// named twice, `DeviceError` with the reason if a GPU is not there.
MMTRAIN_API std::vector<c10::Device> parse_devices(const std::string& spec);

/// The GPU with most free memory, the CPU if there is none.
MMTRAIN_API c10::Device best_device();

/// Describes the CPU or a GPU. Takes no device memory where NVIDIA's management library is installed. Throws
/// `DeviceError` if there is no such device.
MMTRAIN_API DeviceInfo describe(c10::Device device);

/// The line that says how a run trains: `Training on: cpu`, `Training on: cuda:0 (NVIDIA H200)`,
/// `Training on: DataParallel on 2 GPUs: [0, 1]`, `Training on: 2 CPU replicas`. `replicas` counts for the CPU only.
MMTRAIN_API std::string training_on(const std::vector<c10::Device>& devices, int replicas = 1);

}  // namespace mmtrain
