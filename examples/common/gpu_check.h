#pragma once

#include <cstdint>
#include <string>

namespace programs {

struct GpuCheckOptions {
  std::string device = "auto";  ///< auto: the best GPU, the CPU if there is none
  int num_workers = 2;          ///< of the loader that is checked
};

/// Checks what training on a GPU needs: the device, basic operations, mixed precision, a compiled step, a loader,
/// several devices, memory. Prints a line `PASS`, `FAIL` or `SKIP` with the reason for each. Returns the exit code: 0
/// if nothing failed.
int check_gpu(const GpuCheckOptions& options = {});

}  // namespace programs
