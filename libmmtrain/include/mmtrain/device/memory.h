#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// Memory of a device, in bytes.
///
/// CUDA: what LibTorch's caching allocator holds for this process; `total` and `free` are the GPU's. All but these two
/// are 0 until something was allocated.
/// CPU: `allocated` and `reserved` are the resident memory of the process, `peak_allocated` its highest value; `total`
/// and `free` are the machine's, or those of the control group (container) the process is confined to if less.
struct MemoryStats {
  std::int64_t allocated = 0;
  std::int64_t reserved = 0;
  std::int64_t peak_allocated = 0;
  std::int64_t total = 0;
  std::int64_t free = 0;
};

MMTRAIN_API MemoryStats memory_stats(c10::Device device);

/// Gives cached blocks nobody uses back to the GPU. Does nothing for a CPU.
MMTRAIN_API void empty_cache(c10::Device device);

/// Starts a new measurement of `peak_allocated`, for a CPU where the kernel permits it.
MMTRAIN_API void reset_peak(c10::Device device);

/// Lets this process take no more than `fraction` of each GPU's memory, in (0, 1]; more is then out of memory. Call it
/// before the first allocation on a GPU. Throws `ConfigError` for another value.
MMTRAIN_API void limit_cuda_memory(double fraction);

/// `512 B`, `1.50 GiB`.
MMTRAIN_API std::string format_bytes(std::int64_t bytes);

/// Whether `error` means that memory ran out: C++'s, LibTorch's on CPU and CUDA, or that of cuBLAS, cuDNN or NCCL.
MMTRAIN_API bool is_out_of_memory(const std::exception& error);

/// What the advice after running out of memory may speak of.
struct OutOfMemoryContext {
  c10::Device device = c10::kCPU;
  std::int64_t batch_size = 0;     ///< rows of each rank; 0 if not known
  std::vector<std::string> flags;  ///< flags of the program, e.g. `--accumulation_steps`; others are not advised
};

/// Several lines: what was wanted, what there is and was used, and what to change, best first.
MMTRAIN_API std::string out_of_memory_advice(const std::exception& error, const OutOfMemoryContext& context);

}  // namespace mmtrain
