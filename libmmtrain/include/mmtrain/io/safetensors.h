#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/io/mapped_file.h"

/// The safetensors format (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON
/// header, the tensors' row-major bytes without holes. Without LibTorch; `io/tensor_file.h` speaks in tensors.
namespace mmtrain {

/// Element types, in the library's order. The format's F4 and F6 types, which share bytes, are refused by name.
enum class SafetensorsType : std::uint8_t {
  boolean,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64
};

/// The format's name, e.g. `BF16`.
MMTRAIN_API std::string_view type_name(SafetensorsType type);
/// Bytes of one element.
MMTRAIN_API std::size_t type_size(SafetensorsType type);

/// One tensor of a file.
struct SafetensorsEntry {
  std::string name;
  SafetensorsType type = SafetensorsType::f32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  ///< bytes, counted from the end of the header
};

/// Free text stored in the header.
using SafetensorsMetadata = std::map<std::string, std::string>;

/// A file opened for reading. The constructor checks the whole header, so that nothing read later can be out of
/// bounds; the tensors' bytes are read when they are touched.
class MMTRAIN_API SafetensorsFile {
 public:
  /// Throws `DataError` naming file and reason for everything that the format forbids: a header that is truncated, too
  /// long (100 MB), not JSON or has keys twice, unknown types, shapes that overflow or do not fit their bytes, bytes
  /// that overlap, lack, or belong to no tensor.
  explicit SafetensorsFile(const std::filesystem::path& path,
                           MappedFile::Access access = MappedFile::Access::read_only);

  /// In the order of their bytes.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  const SafetensorsMetadata& metadata() const { return metadata_; }
  /// The tensor called `name`, null if there is none.
  const SafetensorsEntry* find(std::string_view name) const;
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  /// The bytes of one of `entries()`, valid as long as this object.
  std::span<const std::byte> data(const SafetensorsEntry& entry) const;

 private:
  MappedFile file_;
  std::size_t data_begin_ = 0;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string_view, std::size_t> index_;
  SafetensorsMetadata metadata_;
};

/// Where everything lies in a file that is still to be written: first `header`, then the entries' bytes in order.
/// Entry i is at byte `header.size() + entries[i].begin`, aligned to its element size.
struct SafetensorsLayout {
  std::string header;
  std::vector<SafetensorsEntry> entries;
  std::uint64_t file_size = 0;
};

/// Lays out tensors of which name, type and shape are given, widest elements first, then by name, as the Python
/// library does. Throws `DataError` for a name given twice or reserved, negative or overflowing shapes, a header over
/// the format's limit, and text that is not UTF-8.
MMTRAIN_API SafetensorsLayout safetensors_layout(std::vector<SafetensorsEntry> entries,
                                                 const SafetensorsMetadata& metadata = {});

/// A tensor to write: row-major bytes, of which there must be as many as type and shape say.
struct SafetensorsTensor {
  std::string name;
  SafetensorsType type = SafetensorsType::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
};

/// Writes a file through `AtomicFile`, straight from the tensors' memory. Throws as `safetensors_layout` does, and
/// `Error` where the file cannot be written.
MMTRAIN_API void write_safetensors(const std::filesystem::path& path, const std::vector<SafetensorsTensor>& tensors,
                                   const SafetensorsMetadata& metadata = {});

}  // namespace mmtrain
