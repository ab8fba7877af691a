#include "mmtrain/core/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "mmtrain/core/log.h"

namespace mmtrain {
namespace {

constexpr int kLongestBar = 30;
constexpr int kShortestBar = 5;

bool starts_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

// Characters of UTF-8 text, each taken for one column.
int columns(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), starts_character));
}

std::string_view cut(std::string_view text, int width) {
  std::size_t end = 0;
  for (int shown = 0; end < text.size(); ++end) {
    if (starts_character(text[end]) && shown++ == width) break;
  }
  return text.substr(0, end);
}

std::string bar(double fraction, int inner) {
  const int filled = static_cast<int>(fraction * inner);
  std::string text(static_cast<std::size_t>(inner), ' ');
  std::fill_n(text.begin(), filled, '=');
  if (filled < inner) text[static_cast<std::size_t>(filled)] = '>';
  return "[" + text + "] ";
}

}  // namespace

int terminal_width() {
  if (const char* variable = std::getenv("COLUMNS")) {
    int width = 0;
    const auto [end, error] = std::from_chars(variable, variable + std::strlen(variable), width);
    if (error == std::errc() && *end == '\0' && width > 0) return width;
  }
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

std::string format_duration(std::chrono::seconds duration) {
  const auto seconds = std::max<std::int64_t>(duration.count(), 0);
  const auto hours = seconds / 3600, minutes = seconds / 60 % 60, rest = seconds % 60;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, rest) : fmt::format("{}:{:02}", minutes, rest);
}

std::string progress_text(std::string_view label, std::int64_t done, std::int64_t total, std::string_view fields,
                          std::string_view eta, int width) {
  const double fraction =
      total > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0) : 1.0;
  const std::string head = label.empty() ? std::string() : fmt::format("{} ", label);
  std::string rest = fmt::format("{:3}% {}/{}", static_cast<int>(100 * fraction), done, total);
  if (!fields.empty()) rest += fmt::format(" {}", fields);
  if (!eta.empty()) rest += fmt::format("{}ETA {}", fields.empty() ? " " : ", ", eta);
  if (width == 0) return head + rest;
  constexpr int kFrame = 3;  // brackets and the space behind them
  const int inner = std::min(width - columns(head) - columns(rest) - kFrame, kLongestBar);
  return std::string(cut(head + (inner >= kShortestBar ? bar(fraction, inner) : std::string()) + rest, width));
}

ProgressLine::ProgressLine(std::string label, std::int64_t total, ProgressOptions options)
    : label_(std::move(label)), total_(total), options_(options), started_(Clock::now()), shown_(started_) {}

ProgressLine::~ProgressLine() { finish(); }

void ProgressLine::update(std::int64_t done, std::string_view fields) {
  const auto now = Clock::now();
  const bool terminal = log::has_status_line();
  if (now - shown_ < (terminal ? options_.redraw_interval : options_.plain_interval)) return;
  shown_ = now;
  std::string eta;
  if (const std::int64_t progressed = done - options_.start; progressed > 0 && done < total_) {
    const std::chrono::duration<double> left =
        (now - started_) * (static_cast<double>(total_ - done) / static_cast<double>(progressed));
    eta = format_duration(std::chrono::ceil<std::chrono::seconds>(left));
  }
  if (terminal) {
    // The last column stays free: some terminals wrap when it is filled.
    log::set_status_line(progress_text(label_, done, total_, fields, eta, std::max(terminal_width() - 1, 1)));
  } else {
    log::info(progress_text(label_, done, total_, fields, eta, 0));
  }
}

void ProgressLine::finish() { log::set_status_line(""); }

}  // namespace mmtrain
