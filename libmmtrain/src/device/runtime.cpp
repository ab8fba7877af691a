#include "mmtrain/device/runtime.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>

#include "mmtrain/core/error.h"
#include "mmtrain/device/device.h"

namespace mmtrain {
namespace {

void check(const RuntimeOptions& options) {
  if (options.threads < 0) {
    throw ConfigError(fmt::format("[Runtime] threads must be 0 (LibTorch's choice) or more, got {}", options.threads));
  }
  constexpr std::array<std::string_view, 4> known = {"auto", "highest", "high", "medium"};
  if (std::ranges::find(known, options.matmul_precision) == known.end()) {
    throw ConfigError(fmt::format("[Runtime] matmul_precision must be auto, highest, high or medium, got '{}'",
                                  options.matmul_precision));
  }
}

std::string matmul_precision(const RuntimeOptions& options) {
  if (options.matmul_precision != "auto") return options.matmul_precision;
  return options.tf32 && cuda_device_count() > 0 ? "high" : "highest";
}

// No block of its own from the system for sizes below 1 GiB, and none back.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, -1);
#endif
}

}  // namespace

void apply_runtime(const RuntimeOptions& options) {
  check(options);
  if (options.keep_freed_memory) keep_freed_memory();
  // cuBLAS is only deterministic with workspaces of fixed size, and reads this when it is first used.
  if (options.deterministic) setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
  at::Context& context = at::globalContext();
  if (options.threads > 0) at::set_num_threads(options.threads);
  context.setFloat32MatmulPrecision(matmul_precision(options));
  context.setAllowTF32CuDNN(options.tf32);
  context.setBenchmarkCuDNN(options.cudnn_benchmark && !options.deterministic);
  context.setDeterministicCuDNN(options.deterministic);
  context.setDeterministicMkldnn(options.deterministic);
  context.setDeterministicAlgorithms(options.deterministic, /*warn_only=*/false);
}

void seed_all(std::uint64_t seed) { at::manual_seed(seed); }

}  // namespace mmtrain
