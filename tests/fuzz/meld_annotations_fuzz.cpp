// Any text gives utterances of known emotions and possible numbers, and names the lines that it leaves out.
#include <cmath>

#include "fuzz.h"
#include "mmtrain/core/error.h"
#include "mmtrain/datasets/meld_annotations.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mmtrain::datasets;
  const fuzz::Input input(data, size);
  try {
    const MeldAnnotations notes = parse_meld_annotations(input.rest(), "input");
    for (const MeldUtterance& one : notes.utterances) {
      fuzz::require(one.dialogue >= 0 && one.utterance >= 0);
      fuzz::require(one.emotion >= 0 && one.emotion < static_cast<int>(meld_emotions().size()));
      fuzz::require(one.start >= 0 && std::isfinite(one.start) && one.end >= 0 && std::isfinite(one.end));
    }
    std::int64_t line = 0;
    for (const auto& row : notes.left_out) {
      fuzz::require(row.line >= line && !row.reason.empty());
      line = row.line;
    }
  } catch (const mmtrain::DataError&) {
  }
  return 0;
}
