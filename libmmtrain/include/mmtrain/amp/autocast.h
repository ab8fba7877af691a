#pragma once

#include <c10/core/DeviceType.h>
#include <c10/core/ScalarType.h>

#include <optional>

#include "mmtrain/core/export.h"

namespace mmtrain::amp {

/// Runs the operations of a scope in mixed precision, as `torch.autocast` does: matrix products and convolutions in
/// `dtype`, what needs range or precision in float32. Wrap the forward pass and the loss, not the backward pass, which
/// uses the types of the forward by itself.
///
/// The state belongs to the calling thread: a rank's thread opens its own scope. Scopes nest; one with `enabled`
/// false inside another makes an island of full precision. Whatever was set before is restored at the end, also when
/// an exception ends the scope. Destroy it on the thread that made it.
class MMTRAIN_API Autocast {
 public:
  /// `device`: the kind of device whose operations are concerned. `dtype`: float16 or bfloat16; without a value what
  /// the thread has set for the device, in the beginning float16 on CUDA and bfloat16 on CPU. `cache`: each weight is
  /// converted once a scope instead of once a use. Throws `ConfigError` for any other dtype and for a device that
  /// LibTorch cannot autocast.
  explicit Autocast(c10::DeviceType device, std::optional<c10::ScalarType> dtype = std::nullopt, bool enabled = true,
                    bool cache = true);
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  c10::DeviceType device_;
  c10::ScalarType dtype_before_;
  bool enabled_before_, cache_before_;
};

}  // namespace mmtrain::amp
