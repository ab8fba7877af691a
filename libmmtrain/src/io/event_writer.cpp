#include "mmtrain/io/event_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <span>
#include <type_traits>
#include <utility>

#include "core/posix.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/io/crc32c.h"

namespace mmtrain {
namespace {

// Protocol buffer wire format (https://protobuf.dev/programming-guides/encoding): tag = field number and wire type.
enum class Wire : std::uint32_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

template <class Unsigned>
void append_little_endian(std::string& out, Unsigned value) {
  static_assert(std::is_unsigned_v<Unsigned>);
  for (std::size_t byte = 0; byte < sizeof value; ++byte) out += static_cast<char>((value >> (8 * byte)) & 0xFF);
}

void append_tag(std::string& out, std::uint32_t field, Wire wire) {
  append_varint(out, (field << 3) | static_cast<std::uint32_t>(wire));
}

void append_bytes(std::string& out, std::uint32_t field, std::string_view bytes) {
  append_tag(out, field, Wire::bytes);
  append_varint(out, bytes.size());
  out += bytes;
}

void append_int(std::string& out, std::uint32_t field, std::int64_t value) {
  append_tag(out, field, Wire::varint);
  append_varint(out, static_cast<std::uint64_t>(value));
}

void append_double(std::string& out, std::uint32_t field, double value) {
  append_tag(out, field, Wire::fixed64);
  append_little_endian(out, std::bit_cast<std::uint64_t>(value));
}

void append_float(std::string& out, std::uint32_t field, float value) {
  append_tag(out, field, Wire::fixed32);
  append_little_endian(out, std::bit_cast<std::uint32_t>(value));
}

std::string start_event() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::string event;
  append_double(event, /*wall_time*/ 1, std::chrono::duration<double>(now).count());
  return event;
}

std::string version_event() {
  std::string event = start_event();
  append_bytes(event, /*file_version*/ 3, "brain.Event:2");
  return event;
}

std::string summary_event(std::int64_t step, std::string_view value) {
  std::string summary;
  append_bytes(summary, /*value*/ 1, value);
  std::string event = start_event();
  append_int(event, /*step*/ 2, step);
  append_bytes(event, /*summary*/ 5, summary);
  return event;
}

std::string text_value(std::string_view tag, std::string_view text) {
  constexpr std::int64_t kStringType = 7;
  std::string plugin, metadata, dimension, shape, tensor, value;
  append_bytes(plugin, /*plugin_name*/ 1, "text");
  append_bytes(metadata, /*plugin_data*/ 1, plugin);
  append_int(dimension, /*size*/ 1, 1);
  append_bytes(shape, /*dim*/ 2, dimension);
  append_int(tensor, /*dtype*/ 1, kStringType);
  append_bytes(tensor, /*tensor_shape*/ 2, shape);
  append_bytes(tensor, /*string_val*/ 8, text);
  append_bytes(value, /*tag*/ 1, tag);
  append_bytes(value, /*tensor*/ 8, tensor);
  append_bytes(value, /*metadata*/ 9, metadata);
  return value;
}

// TFRecord's own twist on the checksum, so that sums of data that hold sums stay good.
std::uint32_t masked_crc(std::string_view text) {
  const std::uint32_t sum = crc32c(std::as_bytes(std::span(text)));
  return std::rotr(sum, 15) + 0xA282EAD8;
}

void append_record(std::string& out, std::string_view payload) {
  std::string length;
  append_little_endian(length, std::uint64_t{payload.size()});
  out += length;
  append_little_endian(out, masked_crc(length));
  out += payload;
  append_little_endian(out, masked_crc(payload));
}

std::string file_name() {
  static std::atomic<unsigned> counter{0};
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  const auto seconds = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  return fmt::format("events.out.tfevents.{:010}.{}.{}.{}", seconds, host, ::getpid(), counter++);
}

}  // namespace

EventWriter::EventWriter(const std::filesystem::path& directory, std::chrono::milliseconds flush_every)
    : path_(directory / file_name()), flush_every_(flush_every), last_flush_(std::chrono::steady_clock::now()) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) {
    throw Error(fmt::format("[EventWriter] cannot create '{}': {}", path_.string(), detail::errno_text(errno)));
  }
  append_record(pending_, version_event());
}

EventWriter::~EventWriter() {
  try {
    flush_locked();
  } catch (const Error& error) {
    log::warning(error.what());
  }
  ::close(descriptor_);
}

void EventWriter::add_scalar(std::string_view tag, double value, std::int64_t step) {
  std::string encoded;
  append_bytes(encoded, /*tag*/ 1, tag);
  append_float(encoded, /*simple_value*/ 2, static_cast<float>(value));
  add_event(summary_event(step, encoded));
}

void EventWriter::add_text(std::string_view tag, std::string_view text, std::int64_t step) {
  add_event(summary_event(step, text_value(tag, text)));
}

void EventWriter::flush() {
  const std::lock_guard lock(mutex_);
  flush_locked();
}

void EventWriter::add_event(std::string_view payload) {
  constexpr std::size_t kLargestPending = 1 << 20;
  const std::lock_guard lock(mutex_);
  append_record(pending_, payload);
  const bool due = std::chrono::steady_clock::now() - last_flush_ >= flush_every_;
  if (due || pending_.size() >= kLargestPending) flush_locked();
}

void EventWriter::flush_locked() {
  last_flush_ = std::chrono::steady_clock::now();
  const std::string records = std::exchange(pending_, {});
  if (!detail::write_all(descriptor_, records)) {
    const int failure = errno;
    // A torn record would hide all that may follow once there is room again.
    const bool restored = ::ftruncate(descriptor_, static_cast<off_t>(written_)) == 0;
    throw Error(fmt::format("[EventWriter] cannot write '{}': {}{}", path_.string(), detail::errno_text(failure),
                            restored ? "" : "; the file is damaged"));
  }
  written_ += records.size();
}

}  // namespace mmtrain
