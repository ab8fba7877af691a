#pragma once

#include <string_view>

#include "mmtrain/core/export.h"

/// Which vector instructions the library's own kernels use. The best level of the machine is chosen at run time, so
/// one build runs everywhere; all levels give equal results, bit for bit.
namespace mmtrain {

/// Levels in rising order. `avx512` means the F, BW, DQ and VL parts.
enum class SimdLevel { scalar, avx2, avx512 };

/// The level in use: the best that this machine has, or the one that the environment variable
/// `MMTRAIN_SIMD=scalar|avx2|avx512` asks for. Throws `ConfigError` if the variable names no level, or one that this
/// machine lacks.
MMTRAIN_API SimdLevel simd_level();

/// The highest level that this machine can run.
MMTRAIN_API SimdLevel best_simd_level();

/// Switches the level of the whole process; for tests and measurements, while no other thread uses a kernel. Throws
/// `ConfigError` for a level that this machine lacks.
MMTRAIN_API void set_simd_level(SimdLevel level);

/// `scalar`, `avx2` or `avx512`.
MMTRAIN_API std::string_view simd_level_name(SimdLevel level);

}  // namespace mmtrain
