#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace mmtrain {

// Model of the CPU as /proc/cpuinfo names it, else the architecture.
std::string cpu_name();

// Logical cores this process may run on.
int cpu_cores();

// Bytes of memory: the machine's, cut down to what the control group of the process allows. `root` holds `proc` and
// `sys` (tests give their own).
struct HostMemory {
  std::int64_t total = 0, free = 0;
};
HostMemory host_memory(const std::filesystem::path& root = "/");

// Resident memory of this process and its highest value so far.
struct ProcessMemory {
  std::int64_t resident = 0, peak = 0;
};
ProcessMemory process_memory();

// Forgets the highest value; does nothing where the kernel does not permit it.
void reset_process_peak();

}  // namespace mmtrain
