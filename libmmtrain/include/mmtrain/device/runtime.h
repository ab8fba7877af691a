#pragma once

#include <cstdint>
#include <string>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// Switches of LibTorch and of the C library that hold for the whole process.
struct RuntimeOptions {
  /// Threads one operator may use; 0 leaves LibTorch's choice.
  int threads = 0;
  /// TF32 in cuDNN's convolutions and recurrent nets: about three digits of the mantissa less, much faster on GPUs of
  /// capability 8 and above. Changes nothing on a CPU.
  bool tf32 = true;
  /// Precision of float32 matrix products, `highest`, `high` or `medium` as in `torch.set_float32_matmul_precision`;
  /// `auto` is `high` (TF32) on GPUs where `tf32` is on, and `highest` otherwise.
  std::string matmul_precision = "auto";
  /// cuDNN times its algorithms for each new shape and keeps the fastest.
  bool cudnn_benchmark = true;
  /// Same bits from the same inputs: deterministic algorithms only, no benchmark. An operator without a deterministic
  /// implementation then throws and names itself.
  bool deterministic = false;
  /// Memory that tensors on the CPU give back stays with the process. The C library would return large blocks to the
  /// system, which hands them out zeroed and page by page: up to a sixth of a training step. The process then holds
  /// what its peak needed until it ends; once set it cannot be unset. Only where the C library is glibc.
  bool keep_freed_memory = true;
};

/// Sets every switch of `options`, whatever was set before. Call it before the first CUDA work: `deterministic` sets
/// CUBLAS_WORKSPACE_CONFIG unless it is set. Throws `ConfigError` for values out of range.
MMTRAIN_API void apply_runtime(const RuntimeOptions& options);

/// Seeds LibTorch's generators, those of the CPU and of every GPU.
MMTRAIN_API void seed_all(std::uint64_t seed);

}  // namespace mmtrain
