#include "mmtrain/amp/autocast.h"

#include <ATen/autocast_mode.h>
#include <fmt/format.h>

#include "mmtrain/core/error.h"

namespace mmtrain::amp {
namespace {

c10::DeviceType checked(c10::DeviceType device) {
  if (!at::autocast::is_autocast_available(device)) {
    throw ConfigError(
        fmt::format("[Autocast] the device must be one that LibTorch can autocast, such as cuda or cpu, got {}",
                    c10::DeviceTypeName(device, /*lower_case=*/true)));
  }
  return device;
}

}  // namespace

Autocast::Autocast(c10::DeviceType device, std::optional<c10::ScalarType> dtype, bool enabled, bool cache)
    : device_(checked(device)),
      dtype_before_(at::autocast::get_autocast_dtype(device)),
      enabled_before_(at::autocast::is_autocast_enabled(device)),
      cache_before_(at::autocast::is_autocast_cache_enabled()) {
  const c10::ScalarType wanted = dtype.value_or(dtype_before_);
  if (enabled && wanted != c10::ScalarType::Half && wanted != c10::ScalarType::BFloat16) {
    throw ConfigError(fmt::format("[Autocast] dtype must be Half or BFloat16, got {}", c10::toString(wanted)));
  }
  at::autocast::set_autocast_enabled(device_, enabled);
  at::autocast::set_autocast_dtype(device_, wanted);
  at::autocast::increment_nesting();
  at::autocast::set_autocast_cache_enabled(cache);
}

Autocast::~Autocast() {
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device_, enabled_before_);
  at::autocast::set_autocast_dtype(device_, dtype_before_);
  at::autocast::set_autocast_cache_enabled(cache_before_);
}

}  // namespace mmtrain::amp
