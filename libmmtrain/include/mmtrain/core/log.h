#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

#include "mmtrain/core/export.h"

/// Console and file log. Thread-safe. Info goes to stdout, warnings and errors to stderr, each line also to
/// the open log file with a time stamp. Callers pass finished text: no formatting library reaches the API.
namespace mmtrain::log {

enum class Level { debug, info, warning, error };

MMTRAIN_API void debug(std::string_view text);
MMTRAIN_API void info(std::string_view text);
MMTRAIN_API void warning(std::string_view text);
MMTRAIN_API void error(std::string_view text);

/// Says `text` as a warning the first time `key` is seen in this process, and never again.
MMTRAIN_API void warn_once(std::string_view key, std::string_view text);

/// Lines below `level` are dropped from the console (the log file still gets info and above). Default info.
MMTRAIN_API void set_level(Level level);

/// Only rank 0 prints info; other ranks prefix what they print with `[rank N]`.
MMTRAIN_API void set_rank(int rank);

/// Replaces the console; an empty function restores it. Calls are serialised; the function must not log itself.
using Sink = std::function<void(Level, std::string_view)>;
MMTRAIN_API void set_sink(Sink sink);

/// A short text kept at the bottom of a terminal (the progress line). Log lines are written above it; an
/// empty text removes it. Does nothing where `has_status_line()` is false. The text must fit the terminal's width.
MMTRAIN_API void set_status_line(std::string_view text);

/// Whether a status line would be seen: stdout is a terminal that can erase lines, info is printed, this is rank 0 and
/// no sink is set.
MMTRAIN_API bool has_status_line();

/// Appends every line to `path` as long as this object lives. Throws `ConfigError` if it cannot be opened.
class MMTRAIN_API File {
 public:
  explicit File(const std::filesystem::path& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

 private:
  int id_;
};

}  // namespace mmtrain::log
