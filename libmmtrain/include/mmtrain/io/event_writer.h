#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// Writes a TensorBoard event file: TFRecord frames with masked CRC-32C around `tensorflow.Event` protocol buffers
/// (tensorflow/core/util/event.proto, summary.proto), encoded by hand. Thread-safe. Steps count from 0.
class MMTRAIN_API EventWriter {
 public:
  /// Creates `directory` where needed and in it `events.out.tfevents.<time>.<host>.<pid>.<n>`. What is added reaches
  /// the file after `flush_every`, at `flush` and at destruction. Throws `Error` if the file cannot be made.
  explicit EventWriter(const std::filesystem::path& directory,
                       std::chrono::milliseconds flush_every = std::chrono::seconds(10));
  /// Flushes; a failure becomes a warning in the log.
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  /// A point of the curve `tag` (slashes group curves).
  void add_scalar(std::string_view tag, double value, std::int64_t step);
  /// Markdown for the Text tab.
  void add_text(std::string_view tag, std::string_view text, std::int64_t step);
  /// Hands everything added to the system. Throws `Error` if it refuses (full disk): what was pending is dropped, the
  /// file stays readable, and the writer may be used on.
  void flush();

  const std::filesystem::path& path() const { return path_; }

 private:
  void add_event(std::string_view payload);
  void flush_locked();

  std::mutex mutex_;
  std::filesystem::path path_;
  std::chrono::milliseconds flush_every_;
  std::chrono::steady_clock::time_point last_flush_;
  std::string pending_;
  std::uint64_t written_ = 0;
  int descriptor_ = -1;
};

}  // namespace mmtrain
