#include "mmtrain/core/log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "core/posix.h"
#include "mmtrain/core/error.h"

namespace mmtrain::log {
namespace {

// https://no-color.org: an empty value does not count.
bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

bool is_dumb_terminal() {
  const char* term = std::getenv("TERM");
  return term != nullptr && std::string_view(term) == "dumb";
}

// One per process and never destroyed: threads may log while static objects go down.
struct State {
  std::mutex mutex;
  Level level = Level::info;
  int rank = 0;
  Sink sink;
  std::string status;
  std::map<int, int> files;  // id -> descriptor
  int next_file = 0;
  bool file_failed = false;
  std::set<std::string, std::less<>> warned;
  const bool can_erase = ::isatty(STDOUT_FILENO) == 1 && !is_dumb_terminal();
  const bool can_color = ::isatty(STDERR_FILENO) == 1 && !is_dumb_terminal() && !is_set("NO_COLOR");
};

State& state() {
  static State* const instance = new State;
  return *instance;
}

constexpr std::string_view kEraseLine = "\r\x1b[K";

std::string_view name_of(Level level) {
  switch (level) {
    case Level::debug:
      return "DEBUG";
    case Level::info:
      return "INFO";
    case Level::warning:
      return "WARNING";
    case Level::error:
      return "ERROR";
  }
  return "";
}

void put(std::FILE* stream, std::string_view text) { std::fwrite(text.data(), 1, text.size(), stream); }

std::string time_stamp() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::time_t seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(now).count() % 1000;
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  char text[32];
  const std::size_t length = std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return fmt::format("{}.{:03}", std::string_view(text, length), milliseconds);
}

void write_files(State& log, Level level, std::string_view text) {
  if (log.files.empty() || level == Level::debug) return;
  const std::string head = fmt::format("{} {:<7} ", time_stamp(), name_of(level));
  std::string lines;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines += fmt::format("{}{}\n", head, text.substr(begin, end - begin));
    begin = end + 1;
  }
  for (const auto& [id, descriptor] : log.files) {
    // A full disk must not end a training run, nor fill the console with one complaint a line.
    if (!detail::write_all(descriptor, lines) && !std::exchange(log.file_failed, true)) {
      put(stderr, fmt::format("[log] cannot write to the log file: {}\n", detail::errno_text(errno)));
    }
  }
}

void write_console(State& log, Level level, std::string_view text) {
  if (level < log.level || (log.rank != 0 && level <= Level::info)) return;
  const std::string line = log.rank == 0 ? std::string(text) : fmt::format("[rank {}] {}", log.rank, text);
  if (log.sink) {
    log.sink(level, line);
    return;
  }
  const bool to_stderr = level >= Level::warning;
  if (!log.status.empty()) {
    put(stdout, kEraseLine);
    if (to_stderr) std::fflush(stdout);
  }
  std::FILE* const stream = to_stderr ? stderr : stdout;
  if (to_stderr && log.can_color) {
    put(stream, fmt::format("{}{}\x1b[0m\n", level == Level::error ? "\x1b[31m" : "\x1b[33m", line));
  } else {
    put(stream, line + '\n');
  }
  std::fflush(stream);
  if (!log.status.empty()) {
    put(stdout, log.status);
    std::fflush(stdout);
  }
}

bool shows_status(const State& log) { return log.can_erase && !log.sink && log.rank == 0 && log.level <= Level::info; }

void show_status(State& log, std::string_view text) {
  if (text == log.status) return;
  log.status = text;
  put(stdout, kEraseLine);
  put(stdout, log.status);
  std::fflush(stdout);
}

void write_line(State& log, Level level, std::string_view text) {
  write_files(log, level, text);
  write_console(log, level, text);
}

void write(Level level, std::string_view text) {
  State& log = state();
  const std::lock_guard lock(log.mutex);
  write_line(log, level, text);
}

}  // namespace

void debug(std::string_view text) { write(Level::debug, text); }
void info(std::string_view text) { write(Level::info, text); }
void warning(std::string_view text) { write(Level::warning, text); }
void error(std::string_view text) { write(Level::error, text); }

void warn_once(std::string_view key, std::string_view text) {
  State& log = state();
  const std::lock_guard lock(log.mutex);
  if (log.warned.emplace(key).second) write_line(log, Level::warning, text);
}

void set_level(Level level) {
  const std::lock_guard lock(state().mutex);
  state().level = level;
}

void set_rank(int rank) {
  const std::lock_guard lock(state().mutex);
  state().rank = rank;
}

void set_sink(Sink sink) {
  State& log = state();
  const std::lock_guard lock(log.mutex);
  show_status(log, "");
  log.sink = std::move(sink);
}

void set_status_line(std::string_view text) {
  State& log = state();
  const std::lock_guard lock(log.mutex);
  if (text.empty() || shows_status(log)) show_status(log, text);
}

bool has_status_line() {
  State& log = state();
  const std::lock_guard lock(log.mutex);
  return shows_status(log);
}

File::File(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor < 0) {
    throw ConfigError(fmt::format("[log] cannot open log file '{}': {}", path.string(), detail::errno_text(errno)));
  }
  State& log = state();
  const std::lock_guard lock(log.mutex);
  id_ = log.next_file++;
  log.files.emplace(id_, descriptor);
}

File::~File() {
  State& log = state();
  const std::lock_guard lock(log.mutex);
  const auto found = log.files.find(id_);
  ::close(found->second);
  log.files.erase(found);
}

}  // namespace mmtrain::log
