#include "mmtrain/train/run_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <system_error>

#include "mmtrain/core/error.h"
#include "mmtrain/io/atomic_file.h"

namespace mmtrain {
namespace {

namespace fs = std::filesystem;

constexpr const char* kResultFile = "result.json";

}  // namespace

fs::path create_run_directory(const fs::path& out, const std::string& name) {
  if (name.empty() || name.find('/') != std::string::npos || name == "." || name == "..") {
    throw ConfigError(fmt::format("[run directory] a run's name must be a plain directory name, got '{}'", name));
  }
  std::error_code code;
  fs::create_directories(out, code);
  for (int number = 1; !code; ++number) {
    const fs::path path = out / (number == 1 ? name : fmt::format("{}-{}", name, number));
    if (fs::create_directory(path, code)) return path;  // false without an error: taken, perhaps a moment ago
    if (code == std::errc::file_exists) code.clear();
  }
  throw ConfigError(fmt::format("[run directory] {} cannot be written: {}; choose another --output_dir", out.string(),
                                code.message()));
}

bool is_run_of(const std::string& candidate, const std::string& name) {
  if (candidate == name) return true;
  if (!candidate.starts_with(name + "-")) return false;
  const std::string number = candidate.substr(name.size() + 1);
  return !number.empty() && number.find_first_not_of("0123456789") == std::string::npos;
}

std::optional<FoundRun> find_run(const fs::path& out, const std::string& name) {
  std::optional<FoundRun> newest[2];  // unfinished, finished
  fs::file_time_type times[2];
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(out, code)) {
    if (!entry.is_directory(code) || !is_run_of(entry.path().filename().string(), name)) continue;
    recover_directory(entry.path() / "checkpoints" / "last");
    const fs::path result = entry.path() / kResultFile;
    const bool finished = fs::exists(result, code);
    const fs::path mark = finished ? result : entry.path() / "checkpoints" / "last" / "state.json";
    const fs::file_time_type time = fs::last_write_time(mark, code);
    if (code) continue;  // never came to its first checkpoint
    if (newest[finished] && times[finished] >= time) continue;
    newest[finished] = FoundRun{entry.path(), finished, {}};
    times[finished] = time;
  }
  if (newest[0]) return newest[0];
  if (newest[1]) {
    std::ifstream file(newest[1]->path / kResultFile);
    newest[1]->result.assign(std::istreambuf_iterator<char>(file), {});
  }
  return newest[1];
}

void reopen_run(const fs::path& run_dir) {
  std::error_code code;
  fs::remove(run_dir / kResultFile, code);
  if (code)
    throw ConfigError(fmt::format("[run directory] {} cannot be changed: {}", run_dir.string(), code.message()));
}

void finish_run(const fs::path& run_dir, const std::string& result_json) {
  write_file_atomic(run_dir / kResultFile, result_json);
}

}  // namespace mmtrain
