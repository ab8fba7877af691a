#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// CRC-32C (Castagnoli, RFC 3720 section 12.1) of `bytes`; `previous` continues the sum of what came before.
MMTRAIN_API std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t previous = 0);

}  // namespace mmtrain
