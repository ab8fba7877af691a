#include "data/cache_place.h"

#include <c10/util/hash.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <system_error>

#include "core/posix.h"
#include "mmtrain/core/error.h"

namespace mmtrain::detail {
namespace fs = std::filesystem;
namespace {

constexpr const char* kExtension = ".safetensors";
constexpr const char* kPartialExtension = ".partial";
constexpr std::size_t kHashLength = 16;  // in file names

fs::path with_suffix(fs::path path, const char* suffix) { return path += suffix; }

CachePlace in_folder(const fs::path& folder, const std::string& name, const std::string& fingerprint) {
  // One lock for all caches of a name: the builder of one removes the others.
  return {folder / fmt::format("{}-{}{}", name, fingerprint.substr(0, kHashLength), kExtension),
          folder / fmt::format("{}.lock", name), name};
}

std::optional<fs::path> user_cache() {
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg == '/') return fs::path(xdg);
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') return fs::path(home) / ".cache";
  return std::nullopt;
}

// A folder of its own for each data directory of this user.
fs::path folder_for(const fs::path& user_cache, const fs::path& data_dir) {
  std::error_code error;
  fs::path canonical = fs::weakly_canonical(data_dir, error);
  if (error) canonical = fs::absolute(data_dir);
  const std::string hash = c10::sha1(canonical.string()).str().substr(0, kHashLength);
  return user_cache / "mmtrain" / "data" / fmt::format("{}-{}", canonical.filename().string(), hash);
}

// Empty if files can be made in `folder`, else why not.
std::string obstacle(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return error.message();
  return ::access(folder.c_str(), W_OK | X_OK) == 0 ? "" : errno_text(errno);
}

}  // namespace

fs::path CachePlace::partial() const { return with_suffix(file, kPartialExtension); }

std::vector<fs::path> CachePlace::former() const {
  std::vector<fs::path> found;
  if (name.empty()) return found;
  const std::string prefix = name + "-";
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(file.parent_path(), error)) {
    std::string other = entry.path().filename().string();
    if (other.ends_with(kPartialExtension)) other.resize(other.size() - std::string_view(kPartialExtension).size());
    const bool same_name = other.starts_with(prefix) && other.ends_with(kExtension) &&
                           other.size() == prefix.size() + kHashLength + std::string_view(kExtension).size();
    if (same_name && other != file.filename().string()) found.push_back(entry.path());
  }
  return found;
}

std::vector<CachePlace> cache_places(const DecodeCacheOptions& options, const std::string& fingerprint) {
  if (options.name.empty() || options.name.find('/') != options.name.npos) {
    throw ConfigError(fmt::format("[DecodeCache] name must be part of a file name, got '{}'", options.name));
  }
  if (options.place.extension() == kExtension) {
    return {{fs::absolute(options.place), with_suffix(fs::absolute(options.place), ".lock"), ""}};
  }
  if (!options.place.empty()) return {in_folder(fs::absolute(options.place), options.name, fingerprint)};
  if (options.data_dir.empty()) throw ConfigError("[DecodeCache] needs a place, or the data_dir to put it beside");
  std::vector<CachePlace> places{
      in_folder(fs::absolute(options.data_dir) / ".mmtrain_cache", options.name, fingerprint)};
  if (const auto cache = user_cache()) {
    places.push_back(in_folder(folder_for(*cache, options.data_dir), options.name, fingerprint));
  }
  return places;
}

const CachePlace& writable_place(const std::vector<CachePlace>& places) {
  std::vector<std::string> obstacles;
  for (const CachePlace& place : places) {
    const fs::path folder = place.file.parent_path();
    const std::string reason = obstacle(folder);
    if (reason.empty()) return place;
    obstacles.push_back(fmt::format("{}: {}", folder.string(), reason));
  }
  throw ConfigError(
      fmt::format("[DecodeCache] no folder for the cache can be written ({}): name another one, or do "
                  "without a cache",
                  fmt::join(obstacles, "; ")));
}

}  // namespace mmtrain::detail
