#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "mmtrain/core/error.h"
#include "mmtrain/io/atomic_file.h"
#include "mmtrain/io/crc32c.h"
#include "mmtrain/io/event_writer.h"
#include "mmtrain/io/mapped_file.h"
#include "mmtrain/io/safetensors.h"
#include "mmtrain/io/state_dict.h"
#include "mmtrain/io/tensor_file.h"
#include "temp_dir.h"

namespace fs = std::filesystem;
using fixtures::TempDir;
using mmtrain::DataError;
using mmtrain::Error;
using mmtrain::SafetensorsFile;
using mmtrain::SafetensorsType;
using mmtrain::StateDict;

namespace {

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_text(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

std::size_t count_files(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), {}));
}

template <class Exception, class Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const Exception& error) {
    return error.what();
  }
  return "(nothing was thrown)";
}

// Files of this process cannot grow beyond `bytes` while it lives: a disk that fills up.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &former_);
    const rlimit limit{bytes, former_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &former_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit former_{};
};

// The exit code of `action` run in a forked child; 99 if it throws.
pid_t start_child(const std::function<int()>& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    int code = 99;
    try {
      code = action();
    } catch (...) {
    }
    ::_exit(code);
  }
  return child;
}

int wait_for(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Makes this process live on a file system that cannot exchange directories: renameat2 with flags gives EINVAL.
bool forbid_exchange() {
  constexpr auto kNumber = static_cast<unsigned>(offsetof(seccomp_data, nr));
  constexpr auto kFlags = static_cast<unsigned>(offsetof(seccomp_data, args) + 4 * sizeof(std::uint64_t));
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat2, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kFlags),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{static_cast<unsigned short>(std::size(filter)), filter};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

void write_version(const fs::path& folder, const std::string& version) {
  fs::remove_all(folder);
  fs::create_directories(folder);
  for (const char* file : {"a", "b"}) write_text(folder / file, version);
}

// The version in a folder of `write_version`; empty if it is not complete.
std::string read_version(const fs::path& folder) {
  const std::string a = read_text(folder / "a"), b = read_text(folder / "b");
  return a == b ? a : "";
}

std::string safetensors_bytes(const std::string& header, std::size_t data_size) {
  std::uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + header + std::string(data_size, '\x01');
}

std::string length_field(std::uint64_t length) {
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes;
}

torch::Tensor raw_bytes(const torch::Tensor& tensor) {
  const torch::Tensor values = tensor.contiguous();
  return torch::from_blob(values.data_ptr(), {static_cast<std::int64_t>(values.nbytes())}, torch::kUInt8).clone();
}

bool identical(const torch::Tensor& a, const torch::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() && torch::equal(raw_bytes(a), raw_bytes(b));
}

// Frames of a TFRecord file whose checksums hold; stops at the first that does not.
std::vector<std::string> read_records(const std::string& file) {
  const auto masked = [](std::string_view text) {
    const std::uint32_t sum = mmtrain::crc32c(std::as_bytes(std::span(text)));
    return ((sum >> 15) | (sum << 17)) + 0xa282ead8U;
  };
  const auto load = [&]<class T>(std::size_t at, T) {
    T value;
    std::memcpy(&value, file.data() + at, sizeof value);
    return value;
  };
  std::vector<std::string> records;
  for (std::size_t at = 0; at + 16 <= file.size();) {
    const std::uint64_t length = load(at, std::uint64_t{});
    if (load(at + 8, std::uint32_t{}) != masked(std::string_view(file).substr(at, 8))) break;
    if (at + 16 + length > file.size()) break;
    records.push_back(file.substr(at + 12, length));
    if (load(at + 12 + length, std::uint32_t{}) != masked(records.back())) break;
    at += 16 + length;
  }
  return records;
}

struct NetImpl : torch::nn::Module {
  NetImpl() {
    features =
        register_module("features", torch::nn::Sequential(torch::nn::Conv2d(3, 4, 3), torch::nn::BatchNorm2d(4)));
    scale = register_parameter("scale", torch::ones({}));
    head = register_module("head", torch::nn::Linear(torch::nn::LinearOptions(4, 2).bias(false)));
    steps = register_buffer("steps", torch::zeros({1}, torch::kLong));
  }
  torch::nn::Sequential features{nullptr};
  torch::nn::Linear head{nullptr};
  torch::Tensor scale, steps;
};
TORCH_MODULE(Net);

StateDict copy_of(const StateDict& dict) {
  StateDict copy;
  for (const auto& item : dict) copy.insert(item.key(), item.value().detach().clone());
  return copy;
}

StateDict without(const StateDict& dict, const std::string& name) {
  StateDict copy;
  for (const auto& item : dict) {
    if (item.key() != name) copy.insert(item.key(), item.value());
  }
  return copy;
}

}  // namespace

TEST_CASE("an atomic file appears complete at commit and not before", "[io][atomic]") {
  const TempDir folder;
  const fs::path path = folder.path() / "file";
  write_text(path, "old");
  {
    mmtrain::AtomicFile file(path);
    file.write("new ");
    file.write("content");
    CHECK(read_text(path) == "old");
    file.commit();
    CHECK(read_text(path) == "new content");
    CHECK_THROWS_AS(file.write("more"), Error);
    CHECK_THROWS_AS(file.commit(), Error);
  }
  CHECK(read_text(path) == "new content");
  CHECK(count_files(folder.path()) == 1);
}

TEST_CASE("an atomic file that is not committed leaves what was there and nothing else", "[io][atomic]") {
  const TempDir folder;
  const fs::path path = folder.path() / "file";
  write_text(path, "old");
  { mmtrain::AtomicFile(path).write("new"); }
  CHECK(read_text(path) == "old");
  CHECK(count_files(folder.path()) == 1);
}

TEST_CASE("a file that outgrows the disk is an error that names it and leaves the old file", "[io][atomic]") {
  const TempDir folder;
  const fs::path path = folder.path() / "file";
  write_text(path, "old");
  const FileSizeLimit limit(1 << 16);
  const std::string big(1 << 20, 'x');
  CHECK(message_of<Error>([&] { mmtrain::write_file_atomic(path, big); }) ==
        "[io] cannot write '" + path.string() + "': File too large");
  CHECK(read_text(path) == "old");
  CHECK(count_files(folder.path()) == 1);

  const StateDict tensors = [] {
    StateDict dict;
    dict.insert("small", torch::zeros({4}));
    dict.insert("large", torch::zeros({1 << 18}));
    return dict;
  }();
  CHECK_THROWS_AS(mmtrain::save_safetensors(path, tensors), Error);
  CHECK(read_text(path) == "old");
  CHECK(count_files(folder.path()) == 1);
}

TEST_CASE("a full file system leaves the old file", "[io][atomic]") {
  const TempDir folder;
  const pid_t child = start_child([&] {
    constexpr int kNotPermitted = 77;
    // A mount name space of its own: the mount ends with the child.
    if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return kNotPermitted;
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return kNotPermitted;
    if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=256k") != 0) return kNotPermitted;
    const fs::path path = folder.path() / "file";
    write_text(path, "old");
    const std::string message = message_of<Error>([&] { mmtrain::write_file_atomic(path, std::string(1 << 20, 'x')); });
    if (message != "[io] cannot write '" + path.string() + "': No space left on device") return 1;
    if (read_text(path) != "old") return 2;
    return count_files(folder.path()) == 1 ? 0 : 3;
  });
  const int code = wait_for(child);
  if (code == 77) {
    WARN("this machine permits no mounts: only the limit on file sizes was tried");
  } else {
    CHECK(code == 0);
  }
}

TEST_CASE("an atomic file in a folder that does not exist is an error that names it", "[io][atomic]") {
  const TempDir folder;
  const fs::path path = folder.path() / "none" / "file";
  CHECK(message_of<Error>([&] { mmtrain::write_file_atomic(path, "x"); }) ==
        "[io] cannot write '" + path.string() + "': No such file or directory");
}

TEST_CASE("an atomic file never replaces a folder", "[io][atomic]") {
  const TempDir folder;
  const fs::path path = folder.path() / "file";
  fs::create_directories(path / "inside");
  CHECK_THROWS_AS(mmtrain::write_file_atomic(path, "x"), Error);
  CHECK(fs::exists(path / "inside"));
  CHECK(count_files(folder.path()) == 1);
}

TEST_CASE("threads that write the same atomic file leave one of their contents, whole", "[io][atomic]") {
  const TempDir folder;
  const fs::path path = folder.path() / "file";
  {
    std::vector<std::jthread> threads;
    for (char c = 'a'; c < 'e'; ++c) {
      threads.emplace_back([&path, c] {
        for (int i = 0; i < 10; ++i) mmtrain::write_file_atomic(path, std::string(10'000, c));
      });
    }
  }
  const std::string text = read_text(path);
  REQUIRE(text.size() == 10'000);
  CHECK(text.find_first_not_of(text[0]) == std::string::npos);
  CHECK(count_files(folder.path()) == 1);
}

TEST_CASE("replace_directory puts a folder in the place of another", "[io][atomic]") {
  const TempDir folder;
  const fs::path fresh = folder.path() / "fresh", target = folder.path() / "target";
  const auto replace = [&] {
    write_version(fresh, "1");
    mmtrain::replace_directory(fresh, target);
    if (read_version(target) != "1") return 1;
    write_version(fresh, "2");
    mmtrain::replace_directory(fresh / "", target / "");
    if (read_version(target) != "2") return 2;
    return count_files(folder.path()) == 1 ? 0 : 3;
  };
  SECTION("by exchange") { CHECK(replace() == 0); }
  SECTION("by a detour where the file system cannot exchange") {
    CHECK(wait_for(start_child([&] { return forbid_exchange() ? replace() : 4; })) == 0);
  }
  SECTION("not at all if the fresh one does not exist") {
    write_version(target, "1");
    CHECK_THROWS_AS(mmtrain::replace_directory(fresh, target), Error);
    CHECK(read_version(target) == "1");
  }
}

TEST_CASE("a kill at any moment of replace_directory leaves a complete folder", "[io][atomic]") {
  const bool exchange = GENERATE(true, false);
  const TempDir folder;
  const fs::path fresh = folder.path() / "fresh", target = folder.path() / "target";
  write_version(target, "0");
  for (int round = 0; round < 40; ++round) {
    const pid_t child = start_child([&] {
      if (!exchange && !forbid_exchange()) return 1;
      for (int version = 0;; ++version) {
        write_version(fresh, std::to_string(version));
        mmtrain::replace_directory(fresh, target);
      }
    });
    std::this_thread::sleep_for(std::chrono::microseconds(500 + 337 * round));
    ::kill(child, SIGKILL);
    REQUIRE(wait_for(child) == 128 + SIGKILL);
    if (exchange) {
      REQUIRE_FALSE(read_version(target).empty());
    } else {
      mmtrain::recover_directory(target);
      REQUIRE_FALSE(read_version(target).empty());
      REQUIRE_FALSE(fs::exists(target.string() + ".old"));
    }
  }
}

TEST_CASE("recover_directory undoes a detour cut short at either point", "[io][atomic]") {
  const TempDir folder;
  const fs::path target = folder.path() / "target", detour = folder.path() / "target.old";
  write_version(detour, "1");
  mmtrain::recover_directory(target);
  CHECK(read_version(target) == "1");
  CHECK_FALSE(fs::exists(detour));
  write_version(detour, "0");
  mmtrain::recover_directory(target);
  CHECK(read_version(target) == "1");
  CHECK_FALSE(fs::exists(detour));
}

TEST_CASE("a file lock has one holder among threads and processes", "[io][lock]") {
  const TempDir folder;
  const fs::path path = folder.path() / "lock";
  const auto free_for_child = [&] {
    return wait_for(start_child([&] { return mmtrain::FileLock::try_lock(path).has_value() ? 1 : 0; })) == 1;
  };
  {
    auto lock = mmtrain::FileLock::try_lock(path);
    REQUIRE(lock.has_value());
    CHECK_FALSE(mmtrain::FileLock::try_lock(path).has_value());
    CHECK_FALSE(free_for_child());
    const mmtrain::FileLock moved = std::move(*lock);
    lock.reset();
    CHECK_FALSE(free_for_child());
  }
  CHECK(free_for_child());
  CHECK_THROWS_AS(mmtrain::FileLock::wait(folder.path() / "none" / "lock"), Error);
}

TEST_CASE("waiting for a file lock ends when its holder is killed", "[io][lock]") {
  const TempDir folder;
  const fs::path path = folder.path() / "lock";
  const pid_t holder = start_child([&]() -> int {
    const auto lock = mmtrain::FileLock::wait(path);
    write_text(folder.path() / "held", "");
    for (;;) ::pause();
  });
  while (!fs::exists(folder.path() / "held")) std::this_thread::yield();
  std::atomic<bool> got = false;
  std::jthread waiter([&] {
    const auto lock = mmtrain::FileLock::wait(path);
    got = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK_FALSE(got);
  ::kill(holder, SIGKILL);
  wait_for(holder);
  waiter.join();
  CHECK(got);
}

TEST_CASE("a mapped file shows the file's bytes", "[io][mapped]") {
  const TempDir folder;
  const fs::path path = folder.path() / "file";
  write_text(path, "bytes");
  mmtrain::MappedFile file(path, mmtrain::MappedFile::Access::copy_on_write);
  mmtrain::MappedFile moved = std::move(file);
  REQUIRE(moved.bytes().size() == 5);
  CHECK(moved.bytes()[1] == std::byte{'y'});
  const_cast<std::byte&>(moved.bytes()[0]) = std::byte{'B'};
  CHECK(read_text(path) == "bytes");
  fs::remove(path);
  CHECK(moved.bytes()[4] == std::byte{'s'});
}

TEST_CASE("an empty file maps to no bytes; what is no file is an error that names it", "[io][mapped]") {
  const TempDir folder;
  write_text(folder.path() / "empty", "");
  CHECK(mmtrain::MappedFile(folder.path() / "empty").bytes().empty());
  const auto error_of = [](const fs::path& path) {
    return message_of<DataError>([&] { const mmtrain::MappedFile file(path); });
  };
  const std::string missing = (folder.path() / "none").string(), pipe = (folder.path() / "pipe").string();
  CHECK(error_of(missing) == "[io] cannot read '" + missing + "': No such file or directory");
  CHECK(error_of(folder.path()) == "[io] cannot read '" + folder.path().string() + "': not a regular file");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(error_of(pipe) == "[io] cannot read '" + pipe + "': not a regular file");
}

TEST_CASE("crc32c gives the sums of RFC 3720", "[io][crc32c]") {
  const auto sum = [](std::string_view text) { return mmtrain::crc32c(std::as_bytes(std::span(text))); };
  CHECK(sum(std::string(32, '\0')) == 0x8a9136aaU);
  CHECK(sum(std::string(32, '\xff')) == 0x62a8ab43U);
  CHECK(sum("123456789") == 0xe3069283U);
  CHECK(sum("") == 0);
  const std::string_view tail = "56789";
  CHECK(mmtrain::crc32c(std::as_bytes(std::span(tail)), sum("1234")) == sum("123456789"));
}

TEST_CASE("a safetensors header that breaks the format is refused with its reason", "[io][safetensors]") {
  struct Case {
    const char* name;
    std::string bytes;
    std::string reason;
  };
  const auto f32 = [](const char* fields) { return std::string("{\"a\":{\"dtype\":\"F32\",") + fields + "}}"; };
  const std::string good = f32(R"("shape":[2],"data_offsets":[0,8])");
  const std::vector<Case> cases{
      {"empty file", "", "truncated: 0 bytes"},
      {"cut in the length", std::string(7, '\x01'), "truncated: 7 bytes"},
      {"cut in the header", safetensors_bytes(good, 0).substr(0, 30), "truncated: the header has"},
      {"header longer than the file", length_field(50) + "{}", "truncated: the header has 50 bytes, the file 2"},
      {"header over the limit", length_field(100'000'001) + "{}", "over the limit"},
      {"length of all bits", std::string(8, '\xff') + "{}", "over the limit"},
      {"empty header", length_field(0), "not a JSON object"},
      {"not JSON", safetensors_bytes("{not json}", 0), "syntax error"},
      {"a list", safetensors_bytes("[]", 0), "not a JSON object"},
      {"space before the object", safetensors_bytes(" {}", 0), "not a JSON object"},
      {"unfinished JSON", safetensors_bytes("{\"a\":", 0), "syntax error"},
      {"not UTF-8", safetensors_bytes("{\"\xff\":1}", 0), "UTF-8"},
      {"NUL after the object", safetensors_bytes(std::string("{}\0x", 4), 0), "NUL"},
      {"deep nesting", safetensors_bytes("{\"a\":" + std::string(100'000, '[') + "}", 0), "levels deep"},
      {"name twice",
       safetensors_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                         R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                         2),
       "given twice"},
      {"field twice", safetensors_bytes(f32(R"("shape":[2],"shape":[2],"data_offsets":[0,8])"), 8), "given twice"},
      {"tensor that is no object", safetensors_bytes(R"({"a":[1]})", 0), "must be a JSON object"},
      {"tensor null", safetensors_bytes(R"({"a":null})", 0), "must be a JSON object"},
      {"no dtype", safetensors_bytes(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8), "no 'dtype'"},
      {"no shape", safetensors_bytes(f32(R"("data_offsets":[0,8])"), 8), "no 'shape'"},
      {"no offsets", safetensors_bytes(f32(R"("shape":[2])"), 8), "no 'data_offsets'"},
      {"other field", safetensors_bytes(f32(R"("shape":[2],"data_offsets":[0,8],"x":1)"), 8), "fields other than"},
      {"dtype of another type", safetensors_bytes(R"({"a":{"dtype":3,"shape":[2],"data_offsets":[0,8]}})", 8),
       "'dtype' must be a string"},
      {"unknown dtype", safetensors_bytes(R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", 8),
       "unknown type 'F31'"},
      {"lower case dtype", safetensors_bytes(R"({"a":{"dtype":"f32","shape":[2],"data_offsets":[0,8]}})", 8),
       "unknown type 'f32'"},
      {"half-byte elements", safetensors_bytes(R"({"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", 1),
       "share a byte"},
      {"six-bit elements", safetensors_bytes(R"({"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}})", 3),
       "share a byte"},
      {"shape that is no list", safetensors_bytes(f32(R"("shape":2,"data_offsets":[0,8])"), 8), "must be a list"},
      {"negative size", safetensors_bytes(f32(R"("shape":[-2],"data_offsets":[0,8])"), 8), "whole numbers"},
      {"two negative sizes", safetensors_bytes(f32(R"("shape":[-2,-1],"data_offsets":[0,8])"), 8), "whole numbers"},
      {"fractional size", safetensors_bytes(f32(R"("shape":[2.0],"data_offsets":[0,8])"), 8), "whole numbers"},
      {"size over 64 bits", safetensors_bytes(f32(R"("shape":[36893488147419103232],"data_offsets":[0,8])"), 8),
       "whole numbers"},
      {"size over 63 bits", safetensors_bytes(f32(R"("shape":[9223372036854775808],"data_offsets":[0,8])"), 8),
       "whole numbers"},
      {"product that wraps to the right size",
       safetensors_bytes(f32(R"("shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0), "overflows"},
      {"bytes that wrap", safetensors_bytes(f32(R"("shape":[4611686018427387904],"data_offsets":[0,0])"), 0),
       "overflows"},
      {"strides that wrap in an empty tensor",
       safetensors_bytes(f32(R"("shape":[0,4294967296,4294967296],"data_offsets":[0,0])"), 0), "overflows"},
      {"shape larger than its bytes", safetensors_bytes(f32(R"("shape":[3],"data_offsets":[0,8])"), 8),
       "needs 12 bytes, the offsets give 8"},
      {"shape smaller than its bytes", safetensors_bytes(f32(R"("shape":[1],"data_offsets":[0,8])"), 8),
       "needs 4 bytes, the offsets give 8"},
      {"one offset", safetensors_bytes(f32(R"("shape":[2],"data_offsets":[0])"), 8), "a list of two"},
      {"three offsets", safetensors_bytes(f32(R"("shape":[2],"data_offsets":[0,8,8])"), 8), "a list of two"},
      {"negative offset", safetensors_bytes(f32(R"("shape":[2],"data_offsets":[-8,0])"), 8), "whole numbers"},
      {"text as offset", safetensors_bytes(f32(R"("shape":[2],"data_offsets":["0",8])"), 8), "whole numbers"},
      {"end before begin", safetensors_bytes(f32(R"("shape":[2],"data_offsets":[8,0])"), 8), "before it begins"},
      {"beyond the end", safetensors_bytes(good, 7), "truncated: tensor 'a' ends at byte 8"},
      {"trailing bytes", safetensors_bytes(good, 9), "the last 1 bytes belong to no tensor"},
      {"no tensors but bytes", safetensors_bytes("{}", 4), "the last 4 bytes belong to no tensor"},
      {"hole at the start", safetensors_bytes(f32(R"("shape":[2],"data_offsets":[4,12])"), 12),
       "bytes 0 to 4 belong to no tensor"},
      {"hole between",
       safetensors_bytes(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                         R"("b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}})",
                         5),
       "bytes 2 to 3 belong to no tensor"},
      {"overlap",
       safetensors_bytes(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                         R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                         6),
       "overlaps"},
      {"the same bytes twice",
       safetensors_bytes(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                         R"("b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                         4),
       "overlaps"},
      {"metadata that is no object", safetensors_bytes(R"({"__metadata__":[]})", 0), "must be a JSON object"},
      {"metadata that is no text", safetensors_bytes(R"({"__metadata__":{"a":1}})", 0), "must be a string"},
  };
  const TempDir folder;
  const fs::path path = folder.path() / "broken.safetensors";
  for (const Case& broken : cases) {
    INFO(broken.name);
    write_text(path, broken.bytes);
    const std::string message = message_of<DataError>([&] { const SafetensorsFile file(path); });
    CHECK(message.find(broken.reason) != std::string::npos);
    CHECK(message.starts_with("[safetensors] " + path.string() + ":"));
  }
  write_text(path, safetensors_bytes(good, 8));
  CHECK_NOTHROW(SafetensorsFile(path));
}

TEST_CASE("safetensors files that are unusual but allowed are read", "[io][safetensors]") {
  const TempDir folder;
  const fs::path path = folder.path() / "file.safetensors";
  SECTION("no tensors") {
    write_text(path, safetensors_bytes("{}", 0));
    CHECK(SafetensorsFile(path).entries().empty());
  }
  SECTION("no metadata, said explicitly") {
    write_text(path, safetensors_bytes(R"({"__metadata__":null})", 0));
    CHECK(SafetensorsFile(path).metadata().empty());
  }
  SECTION("names out of the order of their bytes, spaces behind, empty and 0-d tensors") {
    write_text(path, safetensors_bytes(R"({"b":{"dtype":"U8","shape":[],"data_offsets":[4,5]},"e":{"shape":[3,0],)"
                                       R"("dtype":"F64","data_offsets":[4,4]},"__metadata__":{"k":"v"},)"
                                       R"("a":{"data_offsets":[0,4],"dtype":"F32","shape":[1]}}  )",
                                       5));
    const SafetensorsFile file(path);
    REQUIRE(file.entries().size() == 3);
    CHECK(file.entries()[0].name == "a");
    CHECK(file.entries()[1].name == "e");
    CHECK(file.entries()[2].name == "b");
    CHECK(file.metadata() == mmtrain::SafetensorsMetadata{{"k", "v"}});
    CHECK(file.contains("e"));
    CHECK_FALSE(file.contains("__metadata__"));
    CHECK(file.find("b")->shape.empty());
    CHECK(file.data(*file.find("b")).size() == 1);
    CHECK(file.data(*file.find("e")).empty());
  }
}

TEST_CASE("write_safetensors lays tensors out as the Python library does", "[io][safetensors]") {
  const TempDir folder;
  const fs::path path = folder.path() / "file.safetensors";
  const std::vector<std::byte> bytes(8, std::byte{7});
  const auto data = [&](std::size_t size) { return std::span(bytes).first(size); };
  mmtrain::write_safetensors(path,
                             {{"small", SafetensorsType::u8, {3}, data(3)},
                              {"z", SafetensorsType::f32, {2}, data(8)},
                              {"a\"b", SafetensorsType::f32, {}, data(4)},
                              {"wide", SafetensorsType::i64, {1}, data(8)}},
                             {{"note", "ü"}});
  const std::string file = read_text(path);
  const std::string header =
      R"({"__metadata__":{"note":"ü"},"wide":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
      R"("a\"b":{"dtype":"F32","shape":[],"data_offsets":[8,12]},"z":{"dtype":"F32","shape":[2],)"
      R"("data_offsets":[12,20]},"small":{"dtype":"U8","shape":[3],"data_offsets":[20,23]}})";
  CHECK(file.substr(8, header.size()) == header);
  CHECK((file.size() - 23) % 8 == 0);
  CHECK(SafetensorsFile(path).metadata().at("note") == "ü");
}

TEST_CASE("a layout tells where a file that is filled later has its tensors", "[io][safetensors]") {
  const TempDir folder;
  const fs::path path = folder.path() / "cache.safetensors";
  const auto layout = mmtrain::safetensors_layout(
      {{"status", SafetensorsType::u8, {10}}, {"image", SafetensorsType::u16, {10, 3}}}, {{"key", "abc"}});
  REQUIRE(layout.entries.size() == 2);
  CHECK(layout.entries[0].name == "image");
  CHECK(layout.file_size == layout.header.size() + 70);
  write_text(path, layout.header);
  fs::resize_file(path, layout.file_size);
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(static_cast<std::streamoff>(layout.header.size() + layout.entries[1].begin))
      .put('\x09');
  const SafetensorsFile file(path);
  CHECK(file.data(*file.find("status"))[0] == std::byte{9});
  CHECK(file.data(*file.find("image"))[59] == std::byte{0});
}

TEST_CASE("what cannot be written as safetensors is refused before a file is made", "[io][safetensors]") {
  const TempDir folder;
  const fs::path path = folder.path() / "file.safetensors";
  const std::vector<std::byte> bytes(8);
  using Tensors = std::vector<mmtrain::SafetensorsTensor>;
  const auto error_of = [&](const Tensors& tensors, const mmtrain::SafetensorsMetadata& metadata = {}) {
    return message_of<DataError>([&] { mmtrain::write_safetensors(path, tensors, metadata); });
  };
  const auto type = SafetensorsType::u8;
  CHECK(error_of({{"a", type, {8}, bytes}, {"a", type, {8}, bytes}}) ==
        "[safetensors] tensor name 'a' is given twice or reserved");
  CHECK(error_of({{"__metadata__", type, {8}, bytes}}) ==
        "[safetensors] tensor name '__metadata__' is given twice or reserved");
  CHECK(error_of({{"a", type, {7}, bytes}}) == "[safetensors] tensor 'a' needs 7 bytes, got 8");
  CHECK(error_of({{"a", type, {-8}, bytes}}) == "[safetensors] tensor 'a': shape [-8] is negative or overflows");
  CHECK(error_of({{"a", type, {std::int64_t{1} << 62, 4}, bytes}}).find("overflows") != std::string::npos);
  CHECK(error_of({{"a\xff", type, {8}, bytes}}).find("UTF-8") != std::string::npos);
  CHECK(error_of({{"a", type, {8}, bytes}}, {{"k", "\xff"}}).find("UTF-8") != std::string::npos);
  CHECK(count_files(folder.path()) == 0);
}

TEST_CASE("every type that LibTorch and the format share survives a round trip, copied or mapped", "[io][tensors]") {
  const TempDir folder;
  const fs::path path = folder.path() / "all.safetensors";
  torch::manual_seed(1);
  const torch::Tensor random = torch::randint(0, 256, {4, 6, 8}, torch::kUInt8);
  StateDict tensors;
  for (const auto type :
       {torch::kBool, torch::kUInt8, torch::kInt8, torch::kUInt16, torch::kInt16, torch::kUInt32, torch::kInt32,
        torch::kUInt64, torch::kInt64, torch::kFloat16, torch::kBFloat16, torch::kFloat32, torch::kFloat64,
        torch::kComplexFloat, torch::kFloat8_e4m3fn, torch::kFloat8_e5m2, torch::kFloat8_e4m3fnuz,
        torch::kFloat8_e5m2fnuz, torch::kFloat8_e8m0fnu}) {
    const std::string name = c10::toString(type);
    const torch::Tensor full = type == torch::kBool ? random.remainder(2).to(torch::kBool) : random.view(type);
    tensors.insert(name, full);
    tensors.insert(name + ".scalar", full[1][2][0]);
    tensors.insert(name + ".empty", torch::empty({0, 3}, full.options()));
  }
  mmtrain::save_safetensors(path, tensors, {{"step", "7"}});
  for (const auto mode : {mmtrain::TensorLoad::copy, mmtrain::TensorLoad::map}) {
    const StateDict loaded = mmtrain::load_safetensors(path, mode);
    REQUIRE(loaded.size() == tensors.size());
    for (const auto& item : tensors) {
      INFO(item.key());
      REQUIRE(loaded.contains(item.key()));
      CHECK(identical(loaded[item.key()], item.value()));
    }
  }
  CHECK(SafetensorsFile(path).metadata() == mmtrain::SafetensorsMetadata{{"step", "7"}});
}

TEST_CASE("tensors are written by value whatever their layout in memory", "[io][tensors]") {
  const TempDir folder;
  const fs::path path = folder.path() / "file.safetensors";
  const torch::Tensor base = torch::arange(24, torch::kFloat32).reshape({2, 3, 4});
  StateDict tensors;
  tensors.insert("transposed", base.transpose(0, 2));
  tensors.insert("strided", base.slice(2, 0, 4, 2));
  tensors.insert("expanded", torch::tensor({1.0F, 2.0F}).unsqueeze(1).expand({2, 5}));
  tensors.insert("channels_last", torch::randn({2, 3, 4, 5}).contiguous(torch::MemoryFormat::ChannelsLast));
  tensors.insert("offset", base[1]);
  tensors.insert("shared", base[1]);
  tensors.insert("trained", torch::randn({3}, torch::requires_grad()));
  tensors.insert("conjugate", torch::complex(base, -base).conj());
  tensors.insert("negative", torch::imag(torch::complex(base, base).conj()));
  mmtrain::save_safetensors(path, tensors);
  const StateDict loaded = mmtrain::load_safetensors(path);
  for (const auto& item : tensors) {
    INFO(item.key());
    CHECK(torch::equal(loaded[item.key()], item.value()));
    CHECK_FALSE(loaded[item.key()].requires_grad());
  }
}

TEST_CASE("tensors on a CUDA device are written and come back on the host", "[io][tensors][cuda]") {
  if (!torch::cuda::is_available()) return;
  const TempDir folder;
  const fs::path path = folder.path() / "file.safetensors";
  StateDict tensors;
  tensors.insert("weight", torch::randn({5, 7}, torch::kCUDA).t());
  tensors.insert("count", torch::tensor(3, torch::TensorOptions(torch::kCUDA).dtype(torch::kLong)));
  mmtrain::save_safetensors(path, tensors);
  const StateDict loaded = mmtrain::load_safetensors(path);
  for (const auto& item : tensors) {
    CHECK(loaded[item.key()].is_cpu());
    CHECK(torch::equal(loaded[item.key()], item.value().cpu()));
  }
}

TEST_CASE("tensors without dense values or of types the format lacks are refused by name", "[io][tensors]") {
  const TempDir folder;
  const auto error_of = [&](const torch::Tensor& tensor) {
    StateDict tensors;
    tensors.insert("odd", tensor);
    return message_of<DataError>([&] { mmtrain::save_safetensors(folder.path() / "file", tensors); });
  };
  CHECK(error_of({}) == "[safetensors] tensor 'odd' is undefined");
  CHECK(error_of(torch::zeros({2}, torch::kComplexDouble)).find("no type for ComplexDouble") != std::string::npos);
  CHECK(error_of(torch::eye(2).to_sparse()).find("no dense values") != std::string::npos);
  CHECK(error_of(torch::empty({2}, torch::kMeta)).find("no dense values") != std::string::npos);
  CHECK(count_files(folder.path()) == 0);
}

TEST_CASE("mapped tensors outlive the file, share its memory and never write to it", "[io][tensors]") {
  const TempDir folder;
  const fs::path path = folder.path() / "file.safetensors";
  StateDict tensors;
  tensors.insert("a", torch::arange(1000));
  mmtrain::save_safetensors(path, tensors);
  const std::string before = read_text(path);
  torch::Tensor mapped;
  {
    const StateDict loaded = mmtrain::load_safetensors(path, mmtrain::TensorLoad::map);
    mapped = loaded["a"].slice(0, 10, 20);
  }
  mapped.add_(1);
  CHECK(read_text(path) == before);
  fs::remove(path);
  CHECK(torch::equal(mapped, torch::arange(11, 21)));
}

TEST_CASE("a mapped tensor that lies at an odd address is copied", "[io][tensors]") {
  const TempDir folder;
  const fs::path path = folder.path() / "file.safetensors";
  const std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  for (std::size_t padding = 0; padding < 8; ++padding) {
    write_text(path, safetensors_bytes(header + std::string(padding, ' '), 8));
    const torch::Tensor tensor = mmtrain::load_safetensors(path, mmtrain::TensorLoad::map)["a"];
    CHECK(reinterpret_cast<std::uintptr_t>(tensor.data_ptr()) % sizeof(float) == 0);
    CHECK(raw_bytes(tensor).eq(1).all().item<bool>());
  }
}

TEST_CASE("a state dict has the names and the order of Python's", "[io][state_dict]") {
  const Net net;
  CHECK(mmtrain::state_dict(*net).keys() ==
        std::vector<std::string>{"scale", "steps", "features.0.weight", "features.0.bias", "features.1.weight",
                                 "features.1.bias", "features.1.running_mean", "features.1.running_var",
                                 "features.1.num_batches_tracked", "head.weight"});
}

TEST_CASE("a state dict shares the module's memory", "[io][state_dict]") {
  const Net net;
  const torch::NoGradGuard no_grad;
  mmtrain::state_dict(*net)["scale"].fill_(5);
  CHECK(net->scale.item<float>() == 5);
}

TEST_CASE("a module loads the state of another through a file", "[io][state_dict]") {
  const TempDir folder;
  const Net source;
  Net target;
  mmtrain::save_safetensors(folder.path() / "net.safetensors", mmtrain::state_dict(*source));
  const torch::Tensor weight = target->head->weight;
  const auto report = mmtrain::load_state_dict(*target, mmtrain::load_safetensors(folder.path() / "net.safetensors"));
  CHECK(report.complete());
  CHECK(report.loaded.size() == 10);
  CHECK(target->head->weight.is_same(weight));
  const StateDict expected = mmtrain::state_dict(*source), actual = mmtrain::state_dict(*target);
  for (const auto& item : expected) CHECK(identical(actual[item.key()], item.value()));
  CHECK(target->head->weight.requires_grad());
}

TEST_CASE("loading keeps the module's own types", "[io][state_dict]") {
  const Net source;
  Net target;
  target->to(torch::kFloat64);
  mmtrain::load_state_dict(*target, mmtrain::state_dict(*source));
  CHECK(target->head->weight.dtype() == torch::kFloat64);
  CHECK(torch::equal(target->head->weight, source->head->weight.to(torch::kFloat64)));
}

TEST_CASE("a strict load that does not fit changes nothing and names what differs", "[io][state_dict]") {
  Net net;
  const StateDict before = copy_of(mmtrain::state_dict(*net));
  StateDict other = copy_of(mmtrain::state_dict(*Net()));
  const auto refused = [&](const StateDict& dict, mmtrain::LoadOptions options = {}) {
    const std::string message = message_of<DataError>([&] { mmtrain::load_state_dict(*net, dict, options); });
    const StateDict now = mmtrain::state_dict(*net);
    for (const auto& item : before) CHECK(identical(now[item.key()], item.value()));
    return message;
  };
  CHECK(refused(without(other, "head.weight")).ends_with("9 loaded\n1 missing in the file: head.weight"));
  StateDict more = copy_of(other);
  more.insert("extra", torch::zeros({1}));
  CHECK(refused(more).ends_with("10 loaded\n1 unknown to the module: extra"));
  StateDict misshaped = without(other, "head.weight");
  misshaped.insert("head.weight", torch::zeros({2, 5}));
  const std::string shapes = "1 of another shape: head.weight: module [2,4], file [2,5]";
  CHECK(refused(misshaped).ends_with(shapes));
  CHECK(refused(misshaped, {.strict = false}).ends_with(shapes));
}

TEST_CASE("a load that is not strict reports what it left out", "[io][state_dict]") {
  Net net;
  const StateDict before = copy_of(mmtrain::state_dict(*net));
  StateDict other = without(copy_of(mmtrain::state_dict(*Net())), "scale");
  other.insert("extra", torch::zeros({1}));
  auto report = mmtrain::load_state_dict(*net, other, {.strict = false});
  CHECK(report.loaded.size() == 9);
  CHECK(report.missing == std::vector<std::string>{"scale"});
  CHECK(report.unexpected == std::vector<std::string>{"extra"});
  CHECK(report.misshaped.empty());
  CHECK_FALSE(report.complete());
  CHECK(torch::equal(net->features[0]->named_parameters()["weight"], other["features.0.weight"]));

  StateDict misshaped = without(other, "head.weight");
  misshaped.insert("head.weight", torch::zeros({3, 4}));
  report = mmtrain::load_state_dict(*net, misshaped, {.strict = false, .partial = true});
  CHECK(report.misshaped == std::vector<std::string>{"head.weight: module [2,4], file [3,4]"});
  CHECK(report.loaded.size() == 8);
  CHECK(net->head->weight.sizes() == torch::IntArrayRef({2, 4}));
}

TEST_CASE("names can be renamed and dropped while loading", "[io][state_dict]") {
  Net net;
  const Net source;
  StateDict wrapped;
  for (const auto& item : mmtrain::state_dict(*source)) wrapped.insert("module." + item.key(), item.value());
  wrapped.insert("optimizer.step", torch::zeros({1}));
  const auto strip = [](const std::string& name) {
    return name.starts_with("module.") ? name.substr(7) : std::string();
  };
  CHECK(mmtrain::load_state_dict(*net, wrapped, {.rename = strip}).complete());
  CHECK(torch::equal(net->head->weight, source->head->weight));
  const auto clash = [](const std::string&) { return std::string("scale"); };
  CHECK(message_of<DataError>([&] { mmtrain::load_state_dict(*net, wrapped, {.strict = false, .rename = clash}); }) ==
        "[load_state_dict] 'module.scale' and 'module.steps' are both renamed to 'scale'");
}

TEST_CASE("a report with many names shows the first ones", "[io][state_dict]") {
  mmtrain::LoadReport report;
  for (int i = 0; i < 20; ++i) report.missing.push_back(std::string(1, 'n').append(std::to_string(i)));
  CHECK(report.summary() == "0 loaded\n20 missing in the file: n0, n1, n2, n3, n4, n5, n6, n7 and 12 more");
}

TEST_CASE("an event file is a version record and one record an event, each with good checksums", "[io][events]") {
  const TempDir folder;
  mmtrain::EventWriter writer(folder.path() / "logs", std::chrono::hours(1));
  CHECK(writer.path().parent_path() == folder.path() / "logs");
  CHECK(writer.path().filename().string().starts_with("events.out.tfevents."));
  writer.add_scalar("loss/train", 0.5, 3);
  CHECK(read_text(writer.path()).empty());
  writer.flush();
  const auto records = read_records(read_text(writer.path()));
  REQUIRE(records.size() == 2);
  CHECK(records[0].find("brain.Event:2") != std::string::npos);
  CHECK(records[1].find("loss/train") != std::string::npos);
}

TEST_CASE("event writers of many threads and writers in one folder do not disturb each other", "[io][events]") {
  const TempDir folder;
  fs::path path;
  {
    mmtrain::EventWriter writer(folder.path(), std::chrono::milliseconds(0)), other(folder.path());
    path = writer.path();
    CHECK(path != other.path());
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&writer, t] {
        for (int i = 0; i < 100; ++i) writer.add_scalar(std::string("tag").append(std::to_string(t)), i, i);
      });
    }
  }
  CHECK(read_records(read_text(path)).size() == 401);
  CHECK(count_files(folder.path()) == 2);
}

TEST_CASE("a disk that fills up leaves an event file that can be read and written on", "[io][events]") {
  const TempDir folder;
  mmtrain::EventWriter writer(folder.path(), std::chrono::hours(1));
  writer.add_scalar("before", 1, 0);
  writer.flush();
  {
    const FileSizeLimit limit(200);
    for (int i = 0; i < 10; ++i) writer.add_scalar("lost", 1, 0);
    CHECK_THROWS_AS(writer.flush(), Error);
  }
  writer.add_scalar("after", 1, 1);
  writer.flush();
  const std::string file = read_text(writer.path());
  const auto records = read_records(file);
  REQUIRE(records.size() == 3);
  CHECK(records[2].find("after") != std::string::npos);
}

TEST_CASE("an event writer that cannot make its file says so", "[io][events]") {
  const TempDir folder;
  write_text(folder.path() / "file", "");
  CHECK(message_of<Error>([&] { mmtrain::EventWriter writer(folder.path() / "file"); }).find("Not a directory") !=
        std::string::npos);
}
