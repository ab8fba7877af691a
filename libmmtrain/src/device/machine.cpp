#include "device/machine.h"

#include <sched.h>
#include <sys/utsname.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <string_view>
#include <thread>

namespace mmtrain {
namespace {

namespace fs = std::filesystem;

// Value of the first line `key : value` of a file under /proc, without the blanks around it.
std::optional<std::string> proc_value(const fs::path& file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? std::string() : line.substr(start);
  }
  return std::nullopt;
}

// Such as `MemTotal:  16316412 kB`, in bytes; 0 if it is not there.
std::int64_t proc_kilobytes(const fs::path& file, std::string_view key) {
  const std::string text = proc_value(file, key).value_or("");
  std::int64_t kilobytes = 0;
  std::from_chars(text.data(), text.data() + text.size(), kilobytes);
  return kilobytes * 1024;
}

// The number a control file holds; nothing for `max` or a missing file.
std::optional<std::int64_t> read_number(const fs::path& file) {
  std::ifstream in(file);
  std::int64_t value = 0;
  if (in >> value) return value;
  return std::nullopt;
}

// Names of the two control files of a memory group, which differ between version 1 and 2 of control groups.
struct GroupFiles {
  const char* mount;
  const char* limit;
  const char* usage;
};
constexpr GroupFiles kVersion2{"sys/fs/cgroup", "memory.max", "memory.current"};
constexpr GroupFiles kVersion1{"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"};

void apply_limit(const fs::path& group, const GroupFiles& files, HostMemory& memory) {
  const auto limit = read_number(group / files.limit);
  if (!limit || *limit >= memory.total) return;
  memory.total = *limit;
  const std::int64_t used = read_number(group / files.usage).value_or(0);
  memory.free = std::clamp<std::int64_t>(*limit - used, 0, memory.free);
}

// A limit may sit at any level between the group of the process and the root.
void apply_limits(const fs::path& root, const GroupFiles& files, const std::string& group, HostMemory& memory) {
  const fs::path mount = root / files.mount;
  for (fs::path at = fs::path(group).relative_path(); !at.empty(); at = at.parent_path()) {
    apply_limit(mount / at, files, memory);
  }
  apply_limit(mount, files, memory);
}

}  // namespace

std::string cpu_name() {
  for (const char* key : {"model name", "Model", "cpu model"}) {
    if (auto name = proc_value("/proc/cpuinfo", key); name && !name->empty()) return *name;
  }
  utsname system{};
  return uname(&system) == 0 ? system.machine : "CPU";
}

int cpu_cores() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) return CPU_COUNT(&allowed);
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

HostMemory host_memory(const fs::path& root) {
  HostMemory memory{.total = proc_kilobytes(root / "proc/meminfo", "MemTotal"),
                    .free = proc_kilobytes(root / "proc/meminfo", "MemAvailable")};
  // Lines are `hierarchy:controllers:group`; hierarchy 0 is version 2.
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (line.starts_with("0:")) apply_limits(root, kVersion2, group, memory);
    if (controllers == "memory") apply_limits(root, kVersion1, group, memory);
  }
  return memory;
}

ProcessMemory process_memory() {
  return {.resident = proc_kilobytes("/proc/self/status", "VmRSS"),
          .peak = proc_kilobytes("/proc/self/status", "VmHWM")};
}

void reset_process_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace mmtrain
