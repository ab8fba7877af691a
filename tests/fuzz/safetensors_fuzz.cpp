// A safetensors file of any bytes is refused with a DataError, or all of its tensors lie inside it.
#include "fuzz.h"
#include "mmtrain/core/error.h"
#include "mmtrain/io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const fuzz::Input input(data, size);
  const fuzz::MemoryFile memory(input.rest());
  try {
    const mmtrain::SafetensorsFile file(memory.path());
    std::size_t total = 0;
    volatile std::byte last{};  // every byte is touched
    for (const mmtrain::SafetensorsEntry& entry : file.entries()) {
      const auto bytes = file.data(entry);
      fuzz::require(file.find(entry.name) == &entry);
      for (const std::byte byte : bytes) last = byte;
      total += bytes.size();
    }
    fuzz::require(total < size);
    (void)last;
  } catch (const mmtrain::DataError&) {
  }
  return 0;
}
