#include "mmtrain/io/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "core/json.h"
#include "mmtrain/core/error.h"
#include "mmtrain/io/atomic_file.h"

namespace mmtrain {
namespace {

static_assert(std::endian::native == std::endian::little, "the format's bytes are little-endian");

using Json = nlohmann::json;

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kHeaderAlignment = 8;
constexpr std::uint64_t kMaxHeader = 100'000'000;
constexpr auto kLargest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
constexpr const char* kMetadataKey = "__metadata__";

struct TypeInfo {
  std::string_view name;
  std::size_t size;
};

// Indexed by SafetensorsType.
constexpr std::array<TypeInfo, 19> kTypes{{{"BOOL", 1},
                                           {"U8", 1},
                                           {"I8", 1},
                                           {"F8_E5M2", 1},
                                           {"F8_E4M3", 1},
                                           {"F8_E8M0", 1},
                                           {"F8_E4M3FNUZ", 1},
                                           {"F8_E5M2FNUZ", 1},
                                           {"I16", 2},
                                           {"U16", 2},
                                           {"F16", 2},
                                           {"BF16", 2},
                                           {"I32", 4},
                                           {"U32", 4},
                                           {"F32", 4},
                                           {"C64", 8},
                                           {"F64", 8},
                                           {"I64", 8},
                                           {"U64", 8}}};

// A reason without the file, which the entry points add.
struct Malformed {
  std::string reason;
};

template <class... Args>
[[noreturn]] void reject(fmt::format_string<Args...> format, Args&&... args) {
  throw Malformed{detail::readable(fmt::format(format, std::forward<Args>(args)...))};
}

SafetensorsType parse_type(const std::string& tensor, const std::string& text) {
  const auto found =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeInfo& type) { return type.name == text; });
  if (found != kTypes.end()) return static_cast<SafetensorsType>(found - kTypes.begin());
  if (text.starts_with("F4") || text.starts_with("F6")) {
    reject("tensor '{}' has type {}: elements that share a byte are not supported", tensor, text);
  }
  reject("tensor '{}' has the unknown type '{}'", tensor, text);
}

// Bytes of a dense tensor; nothing if a size is negative or the bytes or the strides (which ignore sizes of zero) do
// not fit.
std::optional<std::uint64_t> byte_size(SafetensorsType type, const std::vector<std::int64_t>& shape) {
  std::uint64_t bytes = type_size(type);
  bool empty = false;
  for (const std::int64_t size : shape) {
    if (size < 0) return std::nullopt;
    empty |= size == 0;
    const auto factor = static_cast<std::uint64_t>(std::max<std::int64_t>(size, 1));
    if (bytes > kLargest / factor) return std::nullopt;
    bytes *= factor;
  }
  return empty ? 0 : bytes;
}

const Json& field(const Json& tensor, const std::string& name, const char* key) {
  const auto found = tensor.find(key);
  if (found == tensor.end()) reject("tensor '{}' has no '{}'", name, key);
  return *found;
}

std::uint64_t whole_number(const Json& value, const std::string& name, const char* key) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kLargest) {
    reject("tensor '{}': '{}' must hold whole numbers from 0 to 2^63-1, got {}", name, key, value.dump());
  }
  return value.get<std::uint64_t>();
}

SafetensorsEntry parse_entry(const std::string& name, const Json& tensor) {
  if (!tensor.is_object()) reject("tensor '{}' must be a JSON object", name);
  SafetensorsEntry entry;
  entry.name = name;
  const Json& type = field(tensor, name, "dtype");
  if (!type.is_string()) reject("tensor '{}': 'dtype' must be a string", name);
  entry.type = parse_type(name, type.get_ref<const std::string&>());
  const Json& shape = field(tensor, name, "shape");
  if (!shape.is_array()) reject("tensor '{}': 'shape' must be a list", name);
  for (const Json& size : shape) entry.shape.push_back(static_cast<std::int64_t>(whole_number(size, name, "shape")));
  const Json& offsets = field(tensor, name, "data_offsets");
  if (!offsets.is_array() || offsets.size() != 2) reject("tensor '{}': 'data_offsets' must be a list of two", name);
  entry.begin = whole_number(offsets[0], name, "data_offsets");
  entry.end = whole_number(offsets[1], name, "data_offsets");
  if (tensor.size() != 3) reject("tensor '{}' has fields other than dtype, shape, data_offsets", name);
  return entry;
}

SafetensorsMetadata parse_metadata(const Json& metadata) {
  SafetensorsMetadata result;
  if (metadata.is_null()) return result;
  if (!metadata.is_object()) reject("'{}' must be a JSON object", kMetadataKey);
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) reject("'{}': the value of '{}' must be a string", kMetadataKey, key);
    result.emplace(key, value.get_ref<const std::string&>());
  }
  return result;
}

void check_entry(const SafetensorsEntry& entry, std::uint64_t expected_begin, std::uint64_t data_size) {
  if (entry.end < entry.begin)
    reject("tensor '{}' ends at byte {}, before it begins at {}", entry.name, entry.end, entry.begin);
  const auto bytes = byte_size(entry.type, entry.shape);
  if (!bytes) reject("tensor '{}': shape [{}] overflows", entry.name, fmt::join(entry.shape, ","));
  if (*bytes != entry.end - entry.begin) {
    reject("tensor '{}': shape [{}] of {} needs {} bytes, the offsets give {}", entry.name, fmt::join(entry.shape, ","),
           type_name(entry.type), *bytes, entry.end - entry.begin);
  }
  if (entry.begin < expected_begin)
    reject("tensor '{}' overlaps the one before it at byte {}", entry.name, entry.begin);
  if (entry.begin > expected_begin) {
    reject("bytes {} to {} belong to no tensor", expected_begin, entry.begin);
  }
  if (entry.end > data_size) {
    reject("truncated: tensor '{}' ends at byte {} of the data, the file has {}", entry.name, entry.end, data_size);
  }
}

std::string_view read_header(std::string_view file) {
  if (file.size() < kLengthBytes) reject("truncated: {} bytes are too few for a header", file.size());
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kMaxHeader)
    reject("header of {} bytes is over the limit of {}; not a safetensors file?", length, kMaxHeader);
  if (length > file.size() - kLengthBytes) {
    reject("truncated: the header has {} bytes, the file {}", length, file.size() - kLengthBytes);
  }
  const std::string_view header = file.substr(kLengthBytes, length);
  if (!header.starts_with('{')) reject("the header is not a JSON object");
  return header;
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string format_header(const std::vector<SafetensorsEntry>& entries, const SafetensorsMetadata& metadata) {
  std::string json = "{";
  if (!metadata.empty()) json += fmt::format("\"{}\":{},", kMetadataKey, Json(metadata).dump());
  for (const SafetensorsEntry& entry : entries) {
    json += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}},)", Json(entry.name).dump(),
                        type_name(entry.type), fmt::join(entry.shape, ","), entry.begin, entry.end);
  }
  if (json.back() == ',') json.pop_back();
  json += '}';
  json.resize((json.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  return json;
}

}  // namespace

std::string_view type_name(SafetensorsType type) { return kTypes.at(static_cast<std::size_t>(type)).name; }

std::size_t type_size(SafetensorsType type) { return kTypes.at(static_cast<std::size_t>(type)).size; }

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path, MappedFile::Access access) : file_(path, access) {
  try {
    const std::string_view header = read_header(as_text(file_.bytes()));
    data_begin_ = kLengthBytes + header.size();
    const Json json = detail::parse_json<Json>(header);
    entries_.reserve(json.size());
    for (const auto& [key, value] : json.items()) {
      if (key == kMetadataKey) {
        metadata_ = parse_metadata(value);
      } else {
        entries_.push_back(parse_entry(key, value));
      }
    }
    std::sort(entries_.begin(), entries_.end(),
              [](const auto& a, const auto& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
    const std::uint64_t data_size = file_.bytes().size() - data_begin_;
    std::uint64_t position = 0;
    for (const SafetensorsEntry& entry : entries_) {
      check_entry(entry, position, data_size);
      position = entry.end;
    }
    if (position != data_size) reject("the last {} bytes belong to no tensor", data_size - position);
  } catch (const detail::JsonError& error) {
    throw DataError(fmt::format("[safetensors] {}", error.in(path.string() + ": header")));
  } catch (const Malformed& malformed) {
    throw DataError(fmt::format("[safetensors] {}: {}", path.string(), malformed.reason));
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

std::span<const std::byte> SafetensorsFile::data(const SafetensorsEntry& entry) const {
  return file_.bytes().subspan(data_begin_ + entry.begin, entry.end - entry.begin);
}

SafetensorsLayout safetensors_layout(std::vector<SafetensorsEntry> entries, const SafetensorsMetadata& metadata) {
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return std::tie(b.type, a.name) < std::tie(a.type, b.name); });
  try {
    std::set<std::string_view> names{kMetadataKey};
    std::uint64_t position = 0;
    for (SafetensorsEntry& entry : entries) {
      if (!names.insert(entry.name).second) reject("tensor name '{}' is given twice or reserved", entry.name);
      const auto bytes = byte_size(entry.type, entry.shape);
      if (!bytes || *bytes > kLargest - position) {
        reject("tensor '{}': shape [{}] is negative or overflows", entry.name, fmt::join(entry.shape, ","));
      }
      entry.begin = position;
      entry.end = position += *bytes;
    }
    const std::string json = format_header(entries, metadata);
    if (json.size() > kMaxHeader) reject("the header would have {} bytes, the limit is {}", json.size(), kMaxHeader);
    SafetensorsLayout layout;
    const std::uint64_t length = json.size();
    layout.header.resize(kLengthBytes);
    std::memcpy(layout.header.data(), &length, kLengthBytes);
    layout.header += json;
    layout.entries = std::move(entries);
    layout.file_size = layout.header.size() + position;
    return layout;
  } catch (const Json::exception& error) {
    throw DataError(
        fmt::format("[safetensors] a name or metadata cannot be written: {}", detail::json_reason(error.what())));
  } catch (const Malformed& malformed) {
    throw DataError(fmt::format("[safetensors] {}", malformed.reason));
  }
}

void write_safetensors(const std::filesystem::path& path, const std::vector<SafetensorsTensor>& tensors,
                       const SafetensorsMetadata& metadata) {
  std::vector<SafetensorsEntry> entries;
  std::map<std::string_view, std::span<const std::byte>> data;
  for (const SafetensorsTensor& tensor : tensors) {
    entries.push_back({tensor.name, tensor.type, tensor.shape});
    data.emplace(tensor.name, tensor.data);
  }
  const SafetensorsLayout layout = safetensors_layout(std::move(entries), metadata);
  for (const SafetensorsEntry& entry : layout.entries) {
    const std::size_t given = data.at(entry.name).size(), wanted = entry.end - entry.begin;
    if (given != wanted) {
      throw DataError(fmt::format("[safetensors] tensor '{}' needs {} bytes, got {}", entry.name, wanted, given));
    }
  }
  AtomicFile file(path);
  file.write(layout.header);
  for (const SafetensorsEntry& entry : layout.entries) file.write(data.at(entry.name));
  file.commit();
}

}  // namespace mmtrain
