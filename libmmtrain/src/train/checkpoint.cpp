#include "mmtrain/train/checkpoint.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <fstream>
#include <iterator>

#include "mmtrain/core/error.h"
#include "mmtrain/io/atomic_file.h"
#include "mmtrain/io/pth_file.h"
#include "mmtrain/io/tensor_file.h"

namespace mmtrain {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kStateFile = "state.json";

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    throw DataError(fmt::format("[load_checkpoint] {} cannot be read: the checkpoint is incomplete", path.string()));
  return {std::istreambuf_iterator<char>(file), {}};
}

// What processes that were killed while they saved have left.
void remove_leftovers(const fs::path& directory) {
  const std::string prefix = fmt::format(".{}.", directory.filename().string());
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(directory.parent_path(), code)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix)) continue;
    int process = 0;
    const char* end = name.data() + name.size();
    const auto [last, error] = std::from_chars(name.data() + prefix.size(), end, process);
    if (error != std::errc() || last != end || process == ::getpid()) continue;
    if (::kill(process, 0) != 0 && errno == ESRCH) fs::remove_all(entry.path(), code);
  }
}

}  // namespace

void save_checkpoint(const fs::path& directory, const Checkpoint& checkpoint) {
  const fs::path fresh = directory.parent_path() / fmt::format(".{}.{}", directory.filename().string(), ::getpid());
  try {
    remove_leftovers(directory);
    fs::create_directories(fresh);
    save_safetensors(fresh / kModelFile, checkpoint.model);
    save_safetensors(fresh / kOptimizerFile, checkpoint.optimizer);
    write_file_atomic(fresh / kStateFile, checkpoint.state);
    replace_directory(fresh, directory);
  } catch (const std::exception& error) {
    std::error_code ignored;
    fs::remove_all(fresh, ignored);
    throw Error(fmt::format("[save_checkpoint] {} was not saved, what stood there before is kept: {}",
                            directory.string(), error.what()));
  }
}

Checkpoint load_checkpoint(const fs::path& directory) {
  recover_directory(directory);
  if (!fs::is_directory(directory)) {
    throw DataError(fmt::format("[load_checkpoint] {} is not a checkpoint directory", directory.string()));
  }
  return {load_safetensors(directory / kModelFile), load_safetensors(directory / kOptimizerFile),
          read_text(directory / kStateFile)};
}

StateDict load_weights(const fs::path& path) {
  if (fs::is_directory(path)) return load_safetensors(path / kModelFile);
  return is_pth(path) ? load_pth(path) : load_safetensors(path);
}

}  // namespace mmtrain
