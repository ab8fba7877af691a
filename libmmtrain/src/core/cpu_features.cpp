#include "mmtrain/core/cpu_features.h"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cstdlib>

#include "mmtrain/core/error.h"

namespace mmtrain {
namespace {

constexpr std::array kLevels = {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512};

void require_available(SimdLevel level, std::string_view who) {
  if (level > best_simd_level()) {
    throw ConfigError(fmt::format("[{}] {} is not available on this machine, which has at most {}", who,
                                  simd_level_name(level), simd_level_name(best_simd_level())));
  }
}

SimdLevel initial_level() {
  const char* wanted = std::getenv("MMTRAIN_SIMD");
  if (wanted == nullptr || *wanted == '\0') return best_simd_level();
  for (const SimdLevel level : kLevels) {
    if (simd_level_name(level) == wanted) {
      require_available(level, "MMTRAIN_SIMD");
      return level;
    }
  }
  throw ConfigError(fmt::format("[MMTRAIN_SIMD] must be scalar, avx2 or avx512, got '{}'", wanted));
}

std::atomic<SimdLevel>& current_level() {
  static std::atomic<SimdLevel> level{initial_level()};
  return level;
}

}  // namespace

SimdLevel best_simd_level() {
#if defined(__x86_64__)
  // The builtins also ask whether the operating system saves the wide registers.
  static const SimdLevel best = [] {
    if (!__builtin_cpu_supports("avx2")) return SimdLevel::scalar;
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return wide ? SimdLevel::avx512 : SimdLevel::avx2;
  }();
  return best;
#else
  return SimdLevel::scalar;
#endif
}

SimdLevel simd_level() { return current_level().load(std::memory_order_relaxed); }

void set_simd_level(SimdLevel level) {
  require_available(level, "set_simd_level");
  current_level().store(level, std::memory_order_relaxed);
}

std::string_view simd_level_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::scalar:
      return "scalar";
    case SimdLevel::avx2:
      return "avx2";
    case SimdLevel::avx512:
      return "avx512";
  }
  return "unknown";
}

}  // namespace mmtrain
