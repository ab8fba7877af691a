// Checks what training on a GPU needs, one line each.
#include <optional>

#include "common/cli.h"
#include "common/gpu_check.h"
#include "common/program.h"

int main(int argc, char** argv) {
  return programs::run_program([&](mmtrain::OutOfMemoryContext&) {
    programs::GpuCheckOptions options;
    programs::Cli cli("test_gpu_training", "Checks devices, mixed precision, compiled steps, loader and replicas.");
    cli.add("device", options.device, "auto, cpu, cuda or cuda:N");
    cli.add("num_workers", options.num_workers, "threads of the loader that is checked");
    if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
    return programs::check_gpu(options);
  });
}
