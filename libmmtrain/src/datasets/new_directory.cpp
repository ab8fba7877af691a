#include "datasets/new_directory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <string>
#include <system_error>

#include "mmtrain/core/error.h"

namespace mmtrain::datasets::detail {
namespace fs = std::filesystem;

void make_directory(std::string_view who, const fs::path& directory, const std::function<void(const fs::path&)>& fill) {
  const fs::path target = fs::absolute(directory.has_filename() ? directory : directory.parent_path());
  std::error_code error;
  if (fs::exists(target, error) && !fs::is_empty(target, error)) {
    throw ConfigError(
        fmt::format("[{}] '{}' is there already and not empty: name a new directory", who, target.string()));
  }
  const fs::path growing = target.parent_path() / fmt::format(".{}.{}.tmp", target.filename().string(), ::getpid());
  try {
    fs::remove_all(growing);
    fill(growing);
    fs::rename(growing, target);
  } catch (const fs::filesystem_error& failure) {
    fs::remove_all(growing, error);
    const std::string text = fmt::format("[{}] cannot make '{}': {}", who, target.string(), failure.code().message());
    if (failure.code() == std::errc::no_space_on_device) throw Error(text);
    throw ConfigError(text);
  } catch (...) {
    fs::remove_all(growing, error);
    throw;
  }
}

}  // namespace mmtrain::datasets::detail
