#pragma once

#include <string>
#include <utility>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/device/device.h"

namespace mmtrain {

/// What a run ran on, for its log and its `env.json`. Texts are empty where there is nothing to say.
struct SystemInfo {
  std::string mmtrain;           ///< version of this library
  std::string libtorch;          ///< version of LibTorch
  std::string cuda_build;        ///< CUDA LibTorch was built for, `13.0`; empty for a CPU-only build
  std::string cudnn;             ///< cuDNN LibTorch was built for, `9.19.0`
  std::string cuda_driver;       ///< CUDA the driver serves
  std::string nvidia_driver;     ///< version of the driver, `580.65.06`
  std::string cuda_unavailable;  ///< why no GPU can be used
  std::string compiler;          ///< that built this library
  std::string system;            ///< kernel and machine
  std::string host;              ///< name of the machine
  int threads = 0;               ///< threads one operator may use
  DeviceInfo cpu;
  std::vector<DeviceInfo> gpus;
  /// Variables that steer the libraries (TORCH_*, PYTORCH_*, CUDA_*, CUBLAS_*, NCCL_*, OMP_*, MKL_*), by name.
  std::vector<std::pair<std::string, std::string>> environment;
};

MMTRAIN_API SystemInfo collect_system_info();

/// Lines for the start of a log, without the environment.
MMTRAIN_API std::vector<std::string> to_lines(const SystemInfo& info);

/// All of it as indented JSON, memory in bytes.
MMTRAIN_API std::string to_json(const SystemInfo& info);

}  // namespace mmtrain
