#include "io/zip.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstring>
#include <set>
#include <string_view>

namespace mmtrain::detail {
namespace {

static_assert(std::endian::native == std::endian::little, "the format's numbers are little-endian");

constexpr std::uint32_t kLocalHeader = 0x04034b50, kDirectoryHeader = 0x02014b50, kEnd = 0x06054b50;
constexpr std::uint32_t kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr std::size_t kLocalHeaderSize = 30, kDirectoryHeaderSize = 46, kEndSize = 22, kEnd64Size = 56;
constexpr std::size_t kEnd64LocatorSize = 20, kMaxComment = 65535;
constexpr std::uint32_t kIn64 = 0xffffffff;  // the number stands in the zip64 part

template <class... Args>
[[noreturn]] void reject(fmt::format_string<Args...> format, Args&&... args) {
  throw ZipError(fmt::format(format, std::forward<Args>(args)...));
}

// Bytes whose ranges are checked at each access.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::uint64_t size() const { return bytes_.size(); }

  std::span<const std::byte> range(std::uint64_t begin, std::uint64_t count) const {
    if (begin > size() || count > size() - begin) {
      reject("truncated: bytes {} to {} are named, the file has {}", begin, begin + count, size());
    }
    return bytes_.subspan(begin, count);
  }

  template <std::unsigned_integral T>
  T number(std::uint64_t position) const {
    T value;
    std::memcpy(&value, range(position, sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string text(std::uint64_t begin, std::uint64_t count) const {
    const auto bytes = range(begin, count);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> bytes_;
};

struct Directory {
  std::uint64_t entries, size, begin;
};

// The end record lies before a comment whose length it tells.
std::uint64_t find_end(const Reader& file) {
  if (file.size() < kEndSize) reject("truncated: {} bytes are too few for an archive", file.size());
  const std::uint64_t last = file.size() - kEndSize, first = last - std::min<std::uint64_t>(last, kMaxComment);
  for (std::uint64_t position = last + 1; position-- > first;) {
    if (file.number<std::uint32_t>(position) == kEnd && file.number<std::uint16_t>(position + 20) == last - position) {
      return position;
    }
  }
  reject("truncated: the archive has no end record");
}

Directory find_directory(const Reader& file) {
  const std::uint64_t end = find_end(file);
  if (end >= kEnd64LocatorSize && file.number<std::uint32_t>(end - kEnd64LocatorSize) == kEnd64Locator) {
    const auto end64 = file.number<std::uint64_t>(end - kEnd64LocatorSize + 8);
    file.range(end64, kEnd64Size);
    if (file.number<std::uint32_t>(end64) != kEnd64) reject("the zip64 end record is not where it should be");
    return {file.number<std::uint64_t>(end64 + 32), file.number<std::uint64_t>(end64 + 40),
            file.number<std::uint64_t>(end64 + 48)};
  }
  return {file.number<std::uint16_t>(end + 10), file.number<std::uint32_t>(end + 12),
          file.number<std::uint32_t>(end + 16)};
}

struct Place {
  std::uint64_t packed, unpacked, header;
};

// Takes the numbers that do not fit 32 bits from the zip64 part of the extra fields.
void complete(Place& place, const Reader& file, std::uint64_t begin, std::uint64_t size) {
  constexpr std::uint16_t kZip64 = 1;
  for (std::uint64_t position = begin; position + 4 <= begin + size;) {
    const auto kind = file.number<std::uint16_t>(position);
    const std::uint64_t next = position + 4 + file.number<std::uint16_t>(position + 2);
    if (kind == kZip64) {
      std::uint64_t field = position + 4;
      for (std::uint64_t* value : {&place.unpacked, &place.packed, &place.header}) {
        if (*value != kIn64) continue;
        if (field + 8 > next) reject("a zip64 field is too short");
        *value = file.number<std::uint64_t>(field);
        field += 8;
      }
      return;
    }
    position = next;
  }
}

}  // namespace

std::vector<ZipEntry> read_zip(std::span<const std::byte> archive) {
  const Reader file(archive);
  const Directory directory = find_directory(file);
  file.range(directory.begin, directory.size);
  if (directory.entries > directory.size / kDirectoryHeaderSize) {
    reject("{} files cannot stand in a directory of {} bytes", directory.entries, directory.size);
  }
  std::vector<ZipEntry> entries;
  entries.reserve(directory.entries);
  std::set<std::string_view> names;
  std::uint64_t position = directory.begin;
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    if (file.number<std::uint32_t>(position) != kDirectoryHeader) reject("entry {} of the directory is damaged", i);
    const auto flags = file.number<std::uint16_t>(position + 8), method = file.number<std::uint16_t>(position + 10);
    Place place{file.number<std::uint32_t>(position + 20), file.number<std::uint32_t>(position + 24),
                file.number<std::uint32_t>(position + 42)};
    const std::uint64_t name_size = file.number<std::uint16_t>(position + 28);
    const std::uint64_t extra_size = file.number<std::uint16_t>(position + 30);
    const std::uint64_t comment_size = file.number<std::uint16_t>(position + 32);
    const std::uint64_t name_begin = position + kDirectoryHeaderSize;
    ZipEntry entry{file.text(name_begin, name_size), {}};
    complete(place, file, name_begin + name_size, extra_size);
    if ((flags & 1) != 0) reject("'{}' is encrypted", entry.name);
    if (method != 0 || place.packed != place.unpacked) {
      reject("'{}' is compressed, which torch.save never does: write it anew by torch.save", entry.name);
    }
    if (file.number<std::uint32_t>(place.header) != kLocalHeader) reject("'{}' has no local header", entry.name);
    file.range(place.header, kLocalHeaderSize);
    const std::uint64_t begin = place.header + kLocalHeaderSize + file.number<std::uint16_t>(place.header + 26) +
                                file.number<std::uint16_t>(place.header + 28);
    entry.data = file.range(begin, place.packed);
    position = name_begin + name_size + extra_size + comment_size;
    entries.push_back(std::move(entry));
    if (!names.insert(entries.back().name).second) reject("there are two files '{}'", entries.back().name);
  }
  return entries;
}

}  // namespace mmtrain::detail
