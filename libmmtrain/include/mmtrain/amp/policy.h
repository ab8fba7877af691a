#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <functional>
#include <string>
#include <string_view>

#include "mmtrain/core/export.h"
#include "mmtrain/device/device.h"

namespace mmtrain::amp {

/// What the user asks for: `--amp auto|off|fp16|bf16`.
enum class Precision { automatic, off, fp16, bf16 };

/// Reads `auto`, `off`, `fp16` or `bf16`. Throws `ConfigError` for any other text.
MMTRAIN_API Precision parse_precision(std::string_view text);

/// How a run computes, ready for `Autocast` and `GradScaler`.
struct MixedPrecision {
  bool autocast = false;                           ///< whether a mixed precision is used at all
  c10::ScalarType dtype = c10::ScalarType::Float;  ///< the type of `Autocast`; Float if it is not used
  bool scaler = false;                             ///< whether a `GradScaler` is needed
};

/// A choice of it, explained.
struct Decision : MixedPrecision {
  std::string reason = {};  ///< one line for the log
};

/// How much faster bfloat16 is than float32 in products and convolutions on this CPU, training's main work. Measured
/// once a process, in a few tens of milliseconds; many CPUs only emulate bfloat16 and are slower by far.
MMTRAIN_API double cpu_bf16_speedup();

/// `automatic`: CUDA devices of capability 8 and above take bfloat16, which needs no scaler; those of 7.x take float16
/// with a scaler; older ones have no fast half precision and stay with float32. A CPU takes bfloat16 only if
/// `cpu_speedup()` says that it gains clearly. Demands are obeyed on every device, and the reason says where they
/// cost speed. Throws `DeviceError` if there is no such device.
MMTRAIN_API Decision decide_precision(Precision wish, c10::Device device,
                                      const std::function<double()>& cpu_speedup = cpu_bf16_speedup);
/// The same for a device that is only described.
MMTRAIN_API Decision decide_precision(Precision wish, const DeviceInfo& device,
                                      const std::function<double()>& cpu_speedup = cpu_bf16_speedup);

}  // namespace mmtrain::amp
