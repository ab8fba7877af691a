#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/data/dataset.h"

namespace mmtrain {

/// Decoded but untransformed data: what a decode-once cache can hold. A dataset is a source plus a transform; the
/// source is either the files or a `DecodeCache` of them, and the dataset cannot tell which.
class MMTRAIN_API SampleSource {
 public:
  /// Memory that one thread reuses from sample to sample. What the parts hold between calls is the source's affair.
  struct Scratch {
    std::vector<std::byte> file;
    std::vector<std::uint8_t> decoded;
    std::vector<std::span<const std::byte>> fields;
  };

  virtual ~SampleSource() = default;

  /// Fixed shapes and types of the tensors of one sample, e.g. `image` uint8 `[64,64,3]`.
  virtual std::vector<TensorSpec> spec() const = 0;
  virtual std::int64_t size() const = 0;

  /// The tensors of sample `index` as row-major bytes. The spans point either into memory of the source (no copy) or
  /// into `scratch`; they are valid until the next call with the same scratch. Thread-safe for different scratches.
  /// Throws `DataError` with the reason for a bad sample.
  virtual std::span<const std::span<const std::byte>> read(std::int64_t index, Scratch& scratch) const = 0;

  /// How messages call sample `index`.
  virtual std::string sample_name(std::int64_t index) const = 0;

  /// Text that changes whenever the decoded bytes may change: list of sources with size and time of change, decode
  /// options. A cache built for another text is stale. May take a moment: it may look at every file.
  virtual std::string fingerprint() const = 0;
};

}  // namespace mmtrain
