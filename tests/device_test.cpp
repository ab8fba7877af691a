#include <c10/util/Exception.h>
#include <sys/resource.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "catch.h"
#include "device/cuda_driver.h"
#include "device/device_spec.h"
#include "device/machine.h"
#include "device/nvml.h"
#include "mmtrain/core/error.h"
#include "mmtrain/device/device.h"
#include "mmtrain/device/memory.h"
#include "mmtrain/device/runtime.h"
#include "mmtrain/device/system_info.h"

using namespace mmtrain;
namespace fs = std::filesystem;

namespace {

// Sets an environment variable (or clears it) for as long as it lives.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    value ? setenv(name, value, 1) : unsetenv(name);
  }
  ~Variable() { old_ ? setenv(name_, old_->c_str(), 1) : unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

template <class Error, class Call>
std::string error_text(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  FAIL("nothing was thrown");
  return {};
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

// A machine with GPUs that work, to be spoilt one fact at a time.
CudaSituation working() {
  return {.libtorch_cuda = 13000,
          .driver_found = true,
          .driver_version = 13000,
          .driver_devices = 2,
          .driver_no_device = false,
          .driver_error = {},
          .visible_devices = std::nullopt};
}

const std::vector<std::string> kFour = {"A", "B", "C", "D"};

}  // namespace

TEST_CASE("every form of a device list names the GPUs it should", "[device]") {
  CHECK(select_devices("cpu", kFour, "") == std::vector<int>{});
  CHECK(select_devices("auto", kFour, "") == std::vector<int>{0, 1, 2, 3});
  CHECK(select_devices("auto", {}, "no driver") == std::vector<int>{});
  CHECK(select_devices("cuda", kFour, "") == std::vector<int>{0});
  CHECK(select_devices("cuda:1", kFour, "") == std::vector<int>{1});
  CHECK(select_devices("cuda:2,0", kFour, "") == std::vector<int>{2, 0});
  CHECK(select_devices("cuda:0, cuda:3", kFour, "") == std::vector<int>{0, 3});
  CHECK(select_devices("0,2", kFour, "") == std::vector<int>{0, 2});
}

TEST_CASE("a device text that means nothing is refused with the forms that do", "[device]") {
  for (const char* spec : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0,", ",", "cpu,cpu", "cuda:0;1", "CUDA",
                           "cuda:1.5", "cuda:99999999999"}) {
    CAPTURE(spec);
    const auto text = error_text<ConfigError>([&] { select_devices(spec, kFour, ""); });
    CHECK(contains(text, "auto, cpu, cuda, cuda:N"));
    CHECK(contains(text, std::string("'") + spec + "'"));
  }
  CHECK(contains(error_text<ConfigError>([] { select_devices("cuda:1,0,1", kFour, ""); }), "cuda:1 twice"));
}

TEST_CASE("a GPU that is not there is an error that says what is", "[device]") {
  const auto beyond = error_text<DeviceError>([] { select_devices("cuda:0,4", kFour, ""); });
  CHECK(beyond == "[Device] cuda:4 does not exist; visible: cuda:0 (A), cuda:1 (B), cuda:2 (C), cuda:3 (D)");
  for (const char* spec : {"cuda", "cuda:0", "0,1"}) {
    CHECK(contains(error_text<DeviceError>([&] { select_devices(spec, {}, "there is no driver"); }),
                   "there is no driver"));
  }
}

TEST_CASE("the reason why CUDA cannot be used is the true one, in one line", "[device]") {
  CHECK(explain_no_cuda(working()).empty());
  CudaSituation none = working();
  none.driver_devices = 0;

  auto spoilt = working();
  spoilt.libtorch_cuda = 0;
  CHECK(explain_no_cuda(spoilt) == "this LibTorch is a CPU-only build");

  spoilt = working();
  spoilt.driver_found = false;
  CHECK(explain_no_cuda(spoilt) ==
        "LibTorch is a CUDA 13.0 build, but this machine has no NVIDIA driver (libcuda.so.1 not found)");

  spoilt = working();
  spoilt.driver_version = 12080;
  CHECK(explain_no_cuda(spoilt) ==
        "the NVIDIA driver serves CUDA 12.8, LibTorch was built for CUDA 13.0: the driver is too old");

  spoilt = none;
  spoilt.driver_error = "unsupported display driver (error 803)";
  CHECK(explain_no_cuda(spoilt) == "the NVIDIA driver does not start: unsupported display driver (error 803)");

  spoilt = none;
  spoilt.driver_no_device = true;
  spoilt.driver_error = "no CUDA-capable device is detected (error 100)";
  CHECK(explain_no_cuda(spoilt) == "the NVIDIA driver finds no GPU");
  for (const char* hiding : {"", "-1", "7"}) {
    spoilt.visible_devices = hiding;
    CHECK(explain_no_cuda(spoilt) ==
          std::string("the NVIDIA driver shows no GPU with CUDA_VISIBLE_DEVICES='") + hiding + "'");
  }
}

TEST_CASE("the driver's C API gives name, memory, capability and UUID of each GPU", "[device]") {
  const CudaDriver driver(FAKE_CUDA);
  CHECK(driver.found());
  CHECK(driver.version() == 13000);
  CHECK(driver.device_count() == 2);
  CHECK(driver.error().empty());
  const auto second = driver.properties(1);
  REQUIRE(second);
  CHECK(second->name == "Fake GPU 1");
  CHECK(second->total_memory == std::int64_t{80} << 30);
  CHECK(second->capability_major == 9);
  CHECK(second->capability_minor == 1);
  CHECK(second->multiprocessors == 132);
  CHECK(second->uuid == "10111213-1415-1617-1819-1a1b1c1d1e1f");
  CHECK_FALSE(driver.properties(2));
  CHECK_FALSE(driver.properties(-1));
  CHECK(explain_no_cuda(cuda_situation(13000, driver)).empty());
}

TEST_CASE("a driver that does not start, is too old, or is hidden is told apart", "[device]") {
  const Variable shown("CUDA_VISIBLE_DEVICES", nullptr);
  SECTION("it fails with a text of its own") {
    const Variable status("FAKE_CUDA_INIT", "803");
    const CudaDriver driver(FAKE_CUDA);
    CHECK(driver.found());
    CHECK(driver.device_count() == 0);
    CHECK_FALSE(driver.properties(0));
    CHECK(explain_no_cuda(cuda_situation(13000, driver)) ==
          "the NVIDIA driver does not start: system has unsupported display driver (error 803)");
  }
  SECTION("it fails with a number it cannot explain") {
    const Variable status("FAKE_CUDA_INIT", "12345");
    CHECK(CudaDriver(FAKE_CUDA).error() == "unknown error (error 12345)");
  }
  SECTION("it serves an older CUDA") {
    const Variable version("FAKE_CUDA_VERSION", "12040");
    CHECK(contains(explain_no_cuda(cuda_situation(13000, CudaDriver(FAKE_CUDA))), "driver serves CUDA 12.4"));
  }
  SECTION("it has no device") {
    const Variable status("FAKE_CUDA_INIT", "100");
    CHECK(explain_no_cuda(cuda_situation(13000, CudaDriver(FAKE_CUDA))) == "the NVIDIA driver finds no GPU");
    const Variable hidden("CUDA_VISIBLE_DEVICES", "-1");
    CHECK(contains(explain_no_cuda(cuda_situation(13000, CudaDriver(FAKE_CUDA))), "CUDA_VISIBLE_DEVICES='-1'"));
  }
  SECTION("there is none, or something else bears its name") {
    CHECK_FALSE(CudaDriver("libmmtrain-no-such-library.so").found());
    CHECK_FALSE(CudaDriver("libc.so.6").found());
  }
}

TEST_CASE("the management library gives free memory of whole GPUs and of slices", "[device]") {
  const Nvml nvml(FAKE_CUDA);
  CHECK(nvml.driver_version() == "580.65.06");
  const auto whole = nvml.memory("00010203-0405-0607-0809-0a0b0c0d0e0f");
  REQUIRE(whole);
  CHECK(whole->total == 1000);
  CHECK(whole->free == 600);
  const auto slice = nvml.memory("10111213-1415-1617-1819-1a1b1c1d1e1f");
  REQUIRE(slice);
  CHECK(slice->free == 601);
  CHECK_FALSE(nvml.memory("ffffffff-1415-1617-1819-1a1b1c1d1e1f"));
  const Nvml absent("libmmtrain-no-such-library.so");
  CHECK(absent.driver_version().empty());
  CHECK_FALSE(absent.memory("00010203-0405-0607-0809-0a0b0c0d0e0f"));
}

TEST_CASE("the devices of this machine are what LibTorch can use", "[device]") {
  const int count = torch::cuda::is_available() ? torch::cuda::device_count() : 0;
  CHECK(cuda_device_count() == count);
  CHECK(cuda_unavailable_reason().empty() == (count > 0));
  CHECK(parse_devices("cpu") == std::vector<c10::Device>{c10::kCPU});
  const auto automatic = parse_devices("auto");
  REQUIRE(automatic.size() == static_cast<std::size_t>(std::max(count, 1)));
  CHECK(automatic[0].is_cuda() == (count > 0));
  CHECK(best_device().is_cuda() == (count > 0));
  if (count == 0) {
    CHECK(contains(error_text<DeviceError>([] { parse_devices("cuda"); }), cuda_unavailable_reason()));
    CHECK_THROWS_AS(describe(c10::Device("cuda:0")), DeviceError);
    CHECK(memory_stats(c10::Device("cuda:0")).total == 0);
  }
  for (const c10::Device& device : automatic) {
    const DeviceInfo info = describe(device);
    CHECK_FALSE(info.name.empty());
    CHECK(info.total_memory > 0);
    CHECK(info.free_memory > 0);
    CHECK(info.free_memory <= info.total_memory);
    CHECK(info.units > 0);
    CHECK((info.capability_major > 0) == device.is_cuda());
  }
  CHECK_THROWS_AS(describe(c10::Device("meta")), DeviceError);
}

TEST_CASE("the line about how a run trains has the documented forms", "[device]") {
  CHECK(training_on({c10::kCPU}) == "Training on: cpu");
  CHECK(training_on({c10::kCPU}, 2) == "Training on: 2 CPU replicas");
  CHECK(training_on({c10::Device("cuda:0"), c10::Device("cuda:2")}) == "Training on: DataParallel on 2 GPUs: [0, 2]");
}

TEST_CASE("the memory of a container counts, not that of the machine around it", "[device]") {
  const fs::path root = fs::temp_directory_path() / ("mmtrain_device_test_" + std::to_string(getpid()));
  const fs::path v1 = root / "sys/fs/cgroup/memory", v2 = root / "sys/fs/cgroup";
  write(root / "proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    800 kB\n");
  const auto check = [&](std::int64_t total, std::int64_t free) {
    const HostMemory memory = host_memory(root);
    CHECK(memory.total == total);
    CHECK(memory.free == free);
  };
  SECTION("no control groups") { check(1024000, 819200); }
  SECTION("version 2, without a limit") {
    write(root / "proc/self/cgroup", "0::/job\n");
    write(v2 / "job/memory.max", "max\n");
    check(1024000, 819200);
  }
  SECTION("version 2, limited above the group of the process") {
    write(root / "proc/self/cgroup", "0::/slice/job/step\n");
    write(v2 / "slice/job/step/memory.max", "max\n");
    write(v2 / "slice/job/memory.max", "500000\n");
    write(v2 / "slice/job/memory.current", "420000\n");
    write(v2 / "slice/memory.max", "600000\n");
    check(500000, 80000);
  }
  SECTION("version 1, seen from inside a container") {
    write(root / "proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/not/visible/here\n0::/\n");
    write(v1 / "memory.limit_in_bytes", "300000\n");
    write(v1 / "memory.usage_in_bytes", "310000\n");
    check(300000, 0);
  }
  SECTION("version 1, with its way of saying no limit") {
    write(root / "proc/self/cgroup", "4:memory:/\n");
    write(v1 / "memory.limit_in_bytes", "9223372036854771712\n");
    check(1024000, 819200);
  }
  fs::remove_all(root);
}

TEST_CASE("CPU memory figures follow what the process holds", "[device]") {
  const MemoryStats before = memory_stats(c10::kCPU);
  CHECK(before.allocated > (1 << 20));
  CHECK(before.peak_allocated >= before.allocated);
  CHECK(before.free <= before.total);
  constexpr std::int64_t kSize = std::int64_t{256} << 20;
  {
    const auto block = torch::ones({kSize}, torch::kUInt8);
    CHECK(memory_stats(c10::kCPU).allocated - before.allocated > kSize * 9 / 10);
  }
  const MemoryStats after = memory_stats(c10::kCPU);
  CHECK(after.peak_allocated - before.allocated > kSize * 9 / 10);
  CHECK(after.allocated - before.allocated < kSize / 10);
  reset_peak(c10::kCPU);
  empty_cache(c10::kCPU);
  // Kernels without /proc/self/clear_refs keep the old value; none may report less than is in use.
  const MemoryStats reset = memory_stats(c10::kCPU);
  CHECK(reset.peak_allocated >= reset.allocated);
  if (std::ofstream("/proc/self/clear_refs") << "5" << std::flush) CHECK(reset.peak_allocated < after.peak_allocated);
}

TEST_CASE("bytes are printed with three digits and a unit", "[device]") {
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1024) == "1.00 KiB");
  CHECK(format_bytes(1536) == "1.50 KiB");
  CHECK(format_bytes((1 << 20) - 1) == "1.00 MiB");
  CHECK(format_bytes(std::int64_t{3} << 29) == "1.50 GiB");
  CHECK(format_bytes(std::int64_t{5} << 40) == "5.00 TiB");
}

TEST_CASE("running out of memory is recognised in every disguise, and nothing else is", "[device]") {
  CHECK(is_out_of_memory(std::bad_alloc()));
  CHECK(is_out_of_memory(c10::OutOfMemoryError({__func__, __FILE__, 1}, "any text")));
  CHECK(is_out_of_memory(std::runtime_error("rank 1: CUDA out of memory. Tried to allocate 2.00 GiB.")));
  CHECK(is_out_of_memory(std::runtime_error("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")));
  CHECK_FALSE(is_out_of_memory(std::runtime_error("CUDA error: device-side assert triggered")));
  CHECK_FALSE(is_out_of_memory(ConfigError("[Trainer] batch_size must be positive, got 0")));
  try {
    torch::empty({std::int64_t{1} << 60}, torch::kUInt8);
    FAIL("an exbibyte was allocated");
  } catch (const std::exception& error) {
    CHECK(is_out_of_memory(error));
    const std::string advice = out_of_memory_advice(error, {.batch_size = 64, .flags = {}});
    CHECK(contains(advice, "Out of memory on cpu: wanted 1048576.00 TiB more"));
  }
}

TEST_CASE("advice names what was wanted and only what the program can do", "[device]") {
  const std::runtime_error error(
      "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 79 GiB");
  const auto all = out_of_memory_advice(
      error, {.batch_size = 64, .flags = {"--batch_size", "--accumulation_steps", "--amp", "--num_workers"}});
  for (const char* part : {"1.50 GiB more", "--batch_size 32", "--accumulation_steps", "--amp", "--num_workers",
                           "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"}) {
    CAPTURE(part);
    CHECK(contains(all, part));
  }
  const auto few = out_of_memory_advice(error, {.batch_size = 1, .flags = {"--accumulation_steps"}});
  for (const char* part : {"--batch_size", "--accumulation_steps", "--amp", "--num_workers"}) {
    CAPTURE(part);
    CHECK_FALSE(contains(few, part));
  }
  CHECK_FALSE(contains(out_of_memory_advice(std::bad_alloc(), {}), "wanted"));
}

TEST_CASE("runtime switches are set, and set back", "[device]") {
  const int threads = at::get_num_threads();
  const Variable workspace("CUBLAS_WORKSPACE_CONFIG", nullptr);
  const at::Context& context = at::globalContext();

  apply_runtime({.threads = 1, .tf32 = false, .matmul_precision = "medium", .deterministic = true});
  CHECK(at::get_num_threads() == 1);
  CHECK(context.float32MatmulPrecision() == at::Float32MatmulPrecision::MEDIUM);
  CHECK_FALSE(context.allowTF32CuDNN());
  CHECK_FALSE(context.benchmarkCuDNN());
  CHECK(context.deterministicCuDNN());
  CHECK(context.deterministicAlgorithms());
  CHECK(std::string(std::getenv("CUBLAS_WORKSPACE_CONFIG")) == ":4096:8");

  apply_runtime({.threads = threads});
  CHECK(at::get_num_threads() == threads);
  CHECK(context.float32MatmulPrecision() ==
        (cuda_device_count() > 0 ? at::Float32MatmulPrecision::HIGH : at::Float32MatmulPrecision::HIGHEST));
  CHECK(context.allowTF32CuDNN());
  CHECK(context.benchmarkCuDNN());
  CHECK_FALSE(context.deterministicCuDNN());
  CHECK_FALSE(context.deterministicAlgorithms());

  CHECK_THROWS_AS(apply_runtime({.threads = -1}), ConfigError);
  CHECK_THROWS_AS(apply_runtime({.matmul_precision = "low"}), ConfigError);
}

#ifdef __GLIBC__
TEST_CASE("memory that tensors gave back is used again, not fetched from the system", "[device]") {
  apply_runtime({});
  const auto page_faults = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
  };
  constexpr std::int64_t kBytes = 48 << 20;
  // The C library keeps some small remainders of aligned blocks apart, which takes fresh memory a few times.
  for (int i = 0; i < 16; ++i) torch::ones({kBytes}, torch::kUInt8);
  const auto before = page_faults();
  for (int i = 0; i < 4; ++i) torch::ones({kBytes}, torch::kUInt8);
  CHECK(page_faults() - before < kBytes / sysconf(_SC_PAGESIZE));  // four times as many otherwise
}
#endif

TEST_CASE("one seed makes the same numbers again", "[device]") {
  seed_all(42);
  const auto first = torch::randn({8});
  const auto second = torch::randn({8});
  CHECK_FALSE(torch::equal(first, second));
  seed_all(42);
  CHECK(torch::equal(torch::randn({8}), first));
}

TEST_CASE("system information tells versions, machine, devices and steering variables", "[device]") {
  const Variable nccl("NCCL_MMTRAIN_TEST", "bad \xff byte"), torch_flag("TORCH_MMTRAIN_TEST", "a=b"),
      other("MMTRAIN_TEST", "x");
  const SystemInfo info = collect_system_info();
  CHECK(info.libtorch.starts_with("2."));
  CHECK(info.cpu.units >= 1);
  CHECK(info.threads >= 1);
  CHECK_FALSE(info.compiler.empty());
  CHECK(info.gpus.empty() != info.cuda_unavailable.empty());

  const auto json = nlohmann::json::parse(to_json(info));
  CHECK(json["devices"][0]["device"] == "cpu");
  CHECK(json["devices"][0]["total_memory"] == info.cpu.total_memory);
  CHECK(json["devices"].size() == info.gpus.size() + 1);
  CHECK(json["environment"]["TORCH_MMTRAIN_TEST"] == "a=b");
  CHECK(json["environment"].contains("NCCL_MMTRAIN_TEST"));
  CHECK_FALSE(json["environment"].contains("MMTRAIN_TEST"));

  std::string text;
  for (const std::string& line : to_lines(info)) {
    CHECK_FALSE(contains(line, "\n"));
    text += line + "\n";
  }
  CHECK(contains(text, "LibTorch " + info.libtorch));
  CHECK(contains(text, info.cpu.name));
  CHECK(contains(text, "cores"));
  if (info.gpus.empty()) CHECK(contains(text, "GPU: none, " + info.cuda_unavailable));
}
