#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "catch.h"
#include "mmtrain/core/log.h"
#include "temp_dir.h"

// What the tests of data, caches and datasets share.
namespace fixtures {

// The log's lines while it lives, in place of the console.
class LogCapture {
 public:
  LogCapture() {
    mmtrain::log::set_sink([this](mmtrain::log::Level, std::string_view line) { text_ += std::string(line) + '\n'; });
  }
  ~LogCapture() { mmtrain::log::set_sink({}); }
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;

  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file.is_open());
  return {std::istreambuf_iterator<char>(file), {}};
}

// Makes the folders on the way.
inline void write_text(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << bytes;
  REQUIRE(file.good());
}

}  // namespace fixtures
