#include "data/cache_builder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <mutex>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include "core/parallel_for.h"
#include "core/posix.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/device/memory.h"

namespace mmtrain::detail {
namespace fs = std::filesystem;
namespace {

// Rows are decoded and marked as done in pieces of about this many bytes: what an interrupted build loses per thread.
constexpr std::uint64_t kPieceBytes = 1 << 20;
// At least so many pieces a thread, where there are rows enough: at the end a thread waits for one piece of another.
constexpr std::int64_t kPiecesPerThread = 16;

// What the pages of a file under construction hold survives a killed process, but not a crash of the machine: the
// marks of done rows may have reached the disk before the rows. They are believed in the same run of the machine only.
std::string session() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  file >> id;
  return id.empty() ? "an unknown session" : id;
}

template <class T>
std::span<const std::byte> as_bytes(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

std::span<const std::byte> as_bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

}  // namespace

// A file written and read at any place by several threads. Throws `Error` with name and cause.
class CacheBuilder::File {
 public:
  File(const fs::path& path, int flags) : path_(path), descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (descriptor_ < 0) fail("open");
  }
  ~File() { ::close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  void write(std::span<const std::byte> bytes, std::uint64_t place) const {
    while (!bytes.empty()) {
      const ssize_t count = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(place));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail("write");
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      place += static_cast<std::uint64_t>(count);
    }
  }

  // Fewer bytes at the end of the file.
  std::string read(std::size_t size, std::uint64_t place) const {
    std::string bytes(size, '\0');
    std::size_t filled = 0;
    while (filled < size) {
      const ssize_t count =
          ::pread(descriptor_, bytes.data() + filled, size - filled, static_cast<off_t>(place + filled));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail("read");
      if (count == 0) break;
      filled += static_cast<std::size_t>(count);
    }
    bytes.resize(filled);
    return bytes;
  }

  // False if the disk has not enough room. File systems that cannot reserve it only set the length.
  bool reserve(std::uint64_t size) const {
    if (::fallocate(descriptor_, 0, 0, static_cast<off_t>(size)) == 0) return true;
    if (errno == ENOSPC) return false;
    if (::ftruncate(descriptor_, static_cast<off_t>(size)) != 0) fail("write");
    return true;
  }

  void flush() const {
    if (::fsync(descriptor_) != 0) fail("flush");
  }

 private:
  [[noreturn]] void fail(const char* action) const {
    throw Error(fmt::format("[DecodeCache] cannot {} '{}': {}", action, path_.string(), errno_text(errno)));
  }

  const fs::path path_;
  const int descriptor_;
};

CacheBuilder::CacheBuilder(const SampleSource& source, const CacheKey& key, fs::path partial)
    : source_(source),
      key_(key),
      partial_(std::move(partial)),
      layout_(unfinished_layout(key, session())),
      status_(rows_of(kStatusField)) {
  for (const TensorSpec& field : key_.spec) fields_.push_back(rows_of(field.name));
}

CacheBuilder::Rows CacheBuilder::rows_of(std::string_view name) const {
  const auto entry = std::find_if(layout_.entries.begin(), layout_.entries.end(),
                                  [&](const SafetensorsEntry& candidate) { return candidate.name == name; });
  const std::uint64_t rows = std::max<std::int64_t>(key_.samples, 1);
  return {layout_.header.size() + entry->begin, (entry->end - entry->begin) / rows};
}

bool CacheBuilder::can_resume() const {
  std::error_code error;
  if (fs::file_size(partial_, error) != layout_.file_size || error) return false;
  return File(partial_, O_RDONLY).read(layout_.header.size(), 0) == layout_.header;
}

void CacheBuilder::demand_space() const {
  std::error_code error;
  const std::uintmax_t available = fs::space(partial_.parent_path(), error).available;
  if (!error && available >= layout_.file_size) return;
  throw Error(
      fmt::format("[DecodeCache] '{}' needs {}, the disk has {} left: make room, name another place, or do "
                  "without a cache",
                  partial_.string(), format_bytes(static_cast<std::int64_t>(layout_.file_size)),
                  format_bytes(static_cast<std::int64_t>(error ? 0 : available))));
}

// The header comes last: whoever finds it knows that the marks are there.
void CacheBuilder::create() const {
  std::error_code ignored;
  fs::remove(partial_, ignored);
  demand_space();
  const File file(partial_, O_RDWR | O_CREAT | O_TRUNC);
  if (!file.reserve(layout_.file_size)) {
    fs::remove(partial_, ignored);
    demand_space();
    throw Error(
        fmt::format("[DecodeCache] '{}' does not fit on the disk (a quota?): make room, name another place, or "
                    "do without a cache",
                    partial_.string()));
  }
  file.write(as_bytes(std::vector(static_cast<std::size_t>(key_.samples), RowStatus::missing)), status_.begin);
  file.write(as_bytes(layout_.header), 0);
}

// Decodes rows [first, last) unless all of them are there and good: of bad ones the reasons must be found again.
BadRows CacheBuilder::decode(const File& file, std::int64_t first, std::int64_t last) const {
  const auto count = static_cast<std::size_t>(last - first);
  if (file.read(count, status_.at(first)) == std::string(count, static_cast<char>(RowStatus::good))) return {};
  thread_local SampleSource::Scratch scratch;
  BadRows bad;
  std::vector<RowStatus> status;
  for (std::int64_t row = first; row < last; ++row) {
    try {
      const auto tensors = source_.read(row, scratch);
      for (std::size_t k = 0; k < fields_.size(); ++k) {
        if (tensors.size() != fields_.size() || tensors[k].size() != fields_[k].bytes) {
          throw ConfigError(
              fmt::format("[DecodeCache] sample {} has not the form that the source's spec promises", row));
        }
        file.write(tensors[k], fields_[k].at(row));
      }
      status.push_back(RowStatus::good);
    } catch (const DataError& error) {
      bad.emplace(row, error.what());
      status.push_back(RowStatus::bad);
    }
  }
  file.write(as_bytes(status), status_.at(first));
  return bad;
}

void CacheBuilder::build(const fs::path& target, int num_workers, const Progress& progress) const {
  const bool resumed = can_resume();
  if (!resumed) create();
  log::info(fmt::format("[DecodeCache] {} '{}': {} samples, {}", resumed ? "going on with" : "building",
                        target.string(), key_.samples, format_bytes(static_cast<std::int64_t>(layout_.file_size))));
  const File file(partial_, O_RDWR);
  std::uint64_t row_bytes = 1;
  for (const Rows& field : fields_) row_bytes += field.bytes;
  const std::int64_t piece = std::max<std::int64_t>(
      1, std::min(static_cast<std::int64_t>(kPieceBytes / row_bytes), key_.samples / (kPiecesPerThread * num_workers)));

  std::atomic<std::int64_t> done{0};
  std::mutex mutex;
  BadRows bad;
  const auto decode_piece = [&](std::int64_t number) {
    const std::int64_t first = number * piece, last = std::min(first + piece, key_.samples);
    BadRows found = decode(file, first, last);
    done += last - first;
    const std::lock_guard lock(mutex);
    bad.merge(found);
  };
  const auto tick = [&] {
    if (progress) progress(done, key_.samples);
  };
  parallel_for(num_workers, (key_.samples + piece - 1) / piece, decode_piece, tick);

  file.write(as_bytes(finished_layout(key_, bad).header), 0);
  file.flush();
  std::error_code error;
  fs::rename(partial_, target, error);
  if (error) throw Error(fmt::format("[DecodeCache] cannot write '{}': {}", target.string(), error.message()));
}

}  // namespace mmtrain::detail
