// Any file is taken for the wanted cache only if its index says all that it has to; reasons of bad samples are read
// from any text. The first byte chooses: a whole file, or the text of the reasons in a file of ours.
#include <cstring>
#include <vector>

#include "data/cache_index.h"
#include "fuzz.h"
#include "mmtrain/core/error.h"

namespace {

using namespace mmtrain;

const detail::CacheIndex& wanted() {
  static const detail::CacheIndex index{
      {{"status", SafetensorsType::u8, {4}}, {"image", SafetensorsType::u8, {4, 2, 2, 3}}}, 4, "f"};
  return index;
}

std::vector<std::byte> file_with_reasons(std::span<const std::byte> text) {
  const SafetensorsMetadata metadata{
      {"bad_samples", std::string(reinterpret_cast<const char*>(text.data()), text.size())}};
  const SafetensorsLayout layout = safetensors_layout(wanted().entries, metadata);
  std::vector<std::byte> file(layout.file_size);
  std::memcpy(file.data(), layout.header.data(), layout.header.size());
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  try {
    const bool whole = input.choose(2) == 0;
    const std::vector<std::byte> ours = whole ? std::vector<std::byte>{} : file_with_reasons(input.rest());
    const fuzz::MemoryFile memory(whole ? input.rest() : std::span<const std::byte>(ours));
    const SafetensorsFile file(memory.path());
    const bool taken = detail::mismatch(file, wanted()).empty();
    const detail::BadRows bad = detail::bad_rows(file);
    if (!taken) return 0;
    for (const SafetensorsEntry& entry : wanted().entries) {
      fuzz::require(file.find(entry.name) != nullptr && file.find(entry.name)->shape == entry.shape);
    }
    // What was read can be written again.
    const SafetensorsLayout again = detail::finished_layout(wanted(), bad);
    fuzz::require(!again.header.empty());
  } catch (const DataError&) {
  }
  return 0;
}
