#include "mmtrain/io/crc32c.h"

#include <array>

namespace mmtrain {
namespace {

constexpr std::uint32_t kReversedPolynomial = 0x82F63B78;

constexpr std::array<std::uint32_t, 256> kTable = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) remainder = (remainder >> 1) ^ ((remainder & 1) ? kReversedPolynomial : 0);
    table[byte] = remainder;
  }
  return table;
}();

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t previous) {
  std::uint32_t sum = ~previous;
  for (const std::byte byte : bytes) sum = kTable[(sum ^ static_cast<std::uint32_t>(byte)) & 0xFF] ^ (sum >> 8);
  return ~sum;
}

}  // namespace mmtrain
