#include <sys/mman.h>
#include <sys/wait.h>
#include <torch/nn.h>
#include <torch/optim/adam.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "data_fixtures.h"
#include "mmtrain/core/error.h"
#include "mmtrain/data/data_loader.h"
#include "mmtrain/data/decode_cache.h"
#include "mmtrain/data/sampler.h"

using namespace mmtrain;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;
using fixtures::LogCapture;
using fixtures::read_text;
using fixtures::TempDir;
using fixtures::write_text;
namespace fs = std::filesystem;

namespace {

// A number that processes share.
class SharedCounter {
 public:
  SharedCounter()
      : value_(static_cast<std::atomic<int>*>(
            ::mmap(nullptr, sizeof(std::atomic<int>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    REQUIRE(static_cast<void*>(value_) != MAP_FAILED);
    new (value_) std::atomic<int>(0);
  }
  ~SharedCounter() { ::munmap(value_, sizeof(*value_)); }
  std::atomic<int>& operator*() const { return *value_; }

 private:
  std::atomic<int>* value_;
};

// `size` samples of a block of bytes and a half number, both made of the index.
struct Pictures : SampleSource {
  std::int64_t samples = 40;
  std::int64_t block = 100;
  std::string state = "first";
  std::set<std::int64_t> bad = {};
  std::chrono::microseconds delay{0};
  std::atomic<int>* reads = nullptr;

  std::vector<TensorSpec> spec() const override {
    return {{"image", {block}, torch::kUInt8}, {"gain", {2}, torch::kFloat16}};
  }
  std::int64_t size() const override { return samples; }
  std::string sample_name(std::int64_t index) const override { return "picture" + std::to_string(index); }
  std::string fingerprint() const override { return state; }
  std::span<const std::span<const std::byte>> read(std::int64_t index, Scratch& scratch) const override {
    if (reads != nullptr) ++*reads;
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
    if (bad.contains(index)) throw DataError(index % 2 == 0 ? "is \"torn\" \xFF" : "is empty");
    scratch.decoded.resize(static_cast<std::size_t>(block) + 4);
    for (std::size_t k = 0; k < scratch.decoded.size(); ++k) {
      scratch.decoded[k] = static_cast<std::uint8_t>(static_cast<std::size_t>(index) * 31 + k * 7);
    }
    const auto bytes = std::as_bytes(std::span(scratch.decoded));
    scratch.fields.assign({bytes.first(static_cast<std::size_t>(block)), bytes.last(4)});
    return scratch.fields;
  }
};

std::vector<std::vector<std::uint8_t>> read_sample(const SampleSource& source, std::int64_t index) {
  SampleSource::Scratch scratch;
  std::vector<std::vector<std::uint8_t>> fields;
  for (const auto field : source.read(index, scratch)) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(field.data());
    fields.emplace_back(bytes, bytes + field.size());
  }
  return fields;
}

bool same_samples(const SampleSource& cache, const Pictures& source) {
  if (cache.size() != source.size() || cache.spec() != source.spec()) return false;
  for (std::int64_t index = 0; index < source.size(); ++index) {
    if (!source.bad.contains(index) && read_sample(cache, index) != read_sample(source, index)) return false;
  }
  return true;
}

std::shared_ptr<Pictures> pictures() { return std::make_shared<Pictures>(); }

DecodeCacheOptions in(const fs::path& place) { return {.name = "train", .place = place, .num_workers = 2}; }

std::vector<std::string> files_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// Runs `work` in a child process, which leaves with 0, or 1 if it throws.
template <class Work>
pid_t in_child(Work work) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  try {
    work();
    ::_exit(0);
  } catch (...) {
    ::_exit(1);
  }
}

int exit_status(pid_t child) {
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

}  // namespace

TEST_CASE("a cache holds the source's bytes, decoded once", "[data][cache]") {
  const TempDir dir;
  const auto source = pictures();
  std::atomic<int> reads{0};
  source->reads = &reads;
  const auto cache = [&] {
    const LogCapture log;
    std::string before;
    DecodeCacheOptions options = in(dir.path());
    options.progress = [&](std::int64_t, std::int64_t) { before = log.text(); };
    auto built = DecodeCache::open_or_build(source, options);
    CHECK_THAT(before, Contains("building") && Contains("40 samples, 11.35 KiB"));  // before it is there
    return built;
  }();
  CHECK(reads == 40);
  CHECK(cache->path().parent_path() == dir.path());
  source->reads = nullptr;
  CHECK(same_samples(*cache, *source));
  CHECK(cache->sample_name(3) == "picture3");
  CHECK(cache->bad_samples().empty());

  source->reads = &reads;
  const LogCapture log;
  const auto again = DecodeCache::open_or_build(source, in(dir.path()));
  CHECK(reads == 40);
  CHECK_THAT(log.text(), Contains("using") && Contains("40 samples"));
  source->reads = nullptr;
  CHECK(same_samples(*again, *source));
}

TEST_CASE("reading a cache copies nothing", "[data][cache]") {
  const TempDir dir;
  const auto cache = DecodeCache::open_or_build(pictures(), in(dir.path()));
  SampleSource::Scratch first, second;
  CHECK(cache->read(5, first)[0].data() == cache->read(5, second)[0].data());
  CHECK(first.decoded.empty());
  CHECK_THROWS_AS(cache->read(40, first), ConfigError);
  CHECK_THROWS_AS(cache->read(-1, first), ConfigError);
}

TEST_CASE("bad samples of a cache throw the reason found when it was built", "[data][cache]") {
  const TempDir dir;
  const auto source = pictures();
  source->bad = {4, 5, 39};
  DecodeCache::open_or_build(source, in(dir.path()));
  source->bad.clear();
  const LogCapture log;
  const auto cache = DecodeCache::open_or_build(source, in(dir.path()));
  CHECK_THAT(log.text(), Contains("3 bad"));
  SampleSource::Scratch scratch;
  CHECK_THROWS_WITH(cache->read(5, scratch), "is empty");
  CHECK_THROWS_WITH(cache->read(4, scratch), Contains("is \"torn\""));
  CHECK_THROWS_AS(cache->read(4, scratch), DataError);
  CHECK(read_sample(*cache, 6) == read_sample(*source, 6));
  const auto bad = cache->bad_samples();
  REQUIRE(bad.size() == 3);
  CHECK(bad[2].index == 39);
  CHECK(bad[2].path == "picture39");
  CHECK(bad[2].reason == "is empty");
}

TEST_CASE("a cache of bad samples alone can be built and says so", "[data][cache]") {
  const TempDir dir;
  const auto source = pictures();
  source->samples = 500;
  for (std::int64_t index = 0; index < 500; ++index) source->bad.insert(index);
  CHECK(DecodeCache::open_or_build(source, in(dir.path()))->bad_samples().size() == 500);
}

TEST_CASE("an empty source has an empty cache", "[data][cache]") {
  const TempDir dir;
  const auto source = pictures();
  source->samples = 0;
  CHECK(DecodeCache::open_or_build(source, in(dir.path()))->size() == 0);
  CHECK(DecodeCache::open_or_build(source, in(dir.path()))->size() == 0);
}

TEST_CASE("a cache is rebuilt when the source changes, and replaces the former one", "[data][cache]") {
  const TempDir dir;
  const auto source = pictures();
  const fs::path first = DecodeCache::open_or_build(source, in(dir.path()))->path();
  source->state = "second";
  source->samples = 30;
  const LogCapture log;
  const auto cache = DecodeCache::open_or_build(source, in(dir.path()));
  CHECK(same_samples(*cache, *source));
  CHECK(cache->path() != first);
  CHECK_FALSE(fs::exists(first));
  CHECK_THAT(log.text(), Contains("removed '" + first.string()));
}

TEST_CASE("caches of other names in the same folder are left alone", "[data][cache]") {
  const TempDir dir;
  const auto source = pictures();
  const auto other = DecodeCache::open_or_build(source, {.name = "train-64x64", .place = dir.path()})->path();
  source->state = "second";
  DecodeCache::open_or_build(source, in(dir.path()));
  CHECK(fs::exists(other));
}

TEST_CASE("a cache file named by the user is rebuilt in place when stale", "[data][cache]") {
  const TempDir dir;
  const fs::path file = dir.path() / "own.safetensors";
  const auto source = pictures();
  CHECK(DecodeCache::open_or_build(source, in(file))->path() == file);
  source->state = "second";
  const LogCapture log;
  CHECK(same_samples(*DecodeCache::open_or_build(source, in(file)), *source));
  CHECK_THAT(log.text(), Contains("cannot use '" + file.string()) && Contains("another state of the data"));
}

TEST_CASE("a cache of another form is stale even where the fingerprint is the same", "[data][cache]") {
  const TempDir dir;
  const auto source = pictures();
  DecodeCache::open_or_build(source, in(dir.path()));
  source->block = 101;
  const LogCapture log;
  CHECK(same_samples(*DecodeCache::open_or_build(source, in(dir.path())), *source));
  CHECK_THAT(log.text(), Contains("another form of 'image'"));
}

TEST_CASE("a damaged cache is noticed, reported and rebuilt", "[data][cache]") {
  const TempDir dir;
  const auto source = pictures();
  const fs::path file = DecodeCache::open_or_build(source, in(dir.path()))->path();
  const std::string whole = read_text(file);
  std::string damaged;
  SECTION("truncated in the data") { damaged = whole.substr(0, whole.size() - 10); }
  SECTION("truncated in the header") { damaged = whole.substr(0, 100); }
  SECTION("empty") { damaged = ""; }
  SECTION("longer") { damaged = whole + "x"; }
  SECTION("not safetensors") { damaged = std::string(whole.size(), '#'); }
  SECTION("without metadata") {
    damaged = whole;
    damaged.replace(damaged.find("mmtrain decode cache"), 7, "another");
  }
  write_text(file, damaged);
  const LogCapture log;
  const auto cache = DecodeCache::open_or_build(source, in(dir.path()));
  CHECK(same_samples(*cache, *source));
  CHECK(read_text(file) == whole);
  CHECK_THAT(log.text(), Contains("cannot use '" + file.string()));
}

TEST_CASE("an interrupted build is never taken for a cache", "[data][cache]") {
  const TempDir dir;
  const auto source = pictures();
  source->delay = 2ms;
  auto options = in(dir.path() / "c.safetensors");
  options.num_workers = 1;
  options.progress = [](std::int64_t, std::int64_t) { throw std::runtime_error("stop"); };
  source->samples = 100;
  source->block = 1 << 19;  // two samples a piece
  CHECK_THROWS_WITH(DecodeCache::open_or_build(source, options), "stop");
  const fs::path partial = dir.path() / "c.safetensors.partial";
  REQUIRE(fs::exists(partial));
  fs::rename(partial, options.place);
  source->samples = 10;
  source->delay = 0us;
  const LogCapture log;
  options.progress = {};
  CHECK(same_samples(*DecodeCache::open_or_build(source, options), *source));
  CHECK_THAT(log.text(), Contains("not complete"));
}

TEST_CASE("a killed build is taken up where it stopped", "[data][cache][process]") {
  const TempDir dir;
  const SharedCounter reads;
  const auto source = pictures();
  source->samples = 60;
  source->block = 1 << 19;
  source->delay = 3ms;
  source->bad = {1};
  source->reads = &*reads;
  const pid_t child = in_child([&] { DecodeCache::open_or_build(source, in(dir.path())); });
  while (*reads < 30) std::this_thread::sleep_for(1ms);
  REQUIRE(::kill(child, SIGKILL) == 0);
  REQUIRE(WIFSIGNALED(exit_status(child)));
  CHECK(files_in(dir.path()).size() == 2);  // the lock and the file under construction

  *reads = 0;
  source->delay = 0us;
  std::vector<std::int64_t> progress;
  auto options = in(dir.path());
  options.progress = [&](std::int64_t done, std::int64_t total) {
    CHECK(total == 60);
    progress.push_back(done);
  };
  const LogCapture log;
  const auto cache = DecodeCache::open_or_build(source, options);
  CHECK_THAT(log.text(), Contains("going on with"));
  CHECK(*reads > 0);
  CHECK(*reads < 50);
  REQUIRE_FALSE(progress.empty());
  CHECK(progress.back() == 60);
  CHECK(std::is_sorted(progress.begin(), progress.end()));
  SampleSource::Scratch scratch;
  CHECK_THROWS_WITH(cache->read(1, scratch), "is empty");
  CHECK(same_samples(*cache, *source));
}

TEST_CASE("the rest of a build of former data is not taken up", "[data][cache]") {
  const TempDir dir;
  const auto source = pictures();
  const auto options = in(dir.path() / "c.safetensors");
  auto stopping = options;
  stopping.progress = [](std::int64_t, std::int64_t) { throw std::runtime_error("stop"); };
  CHECK_THROWS_WITH(DecodeCache::open_or_build(source, stopping), "stop");
  std::atomic<int> reads{0};
  source->reads = &reads;
  source->state = "second";
  DecodeCache::open_or_build(source, options);
  CHECK(reads == 40);
}

TEST_CASE("of several processes one builds the cache and the others wait for it", "[data][cache][process]") {
  const TempDir dir;
  const SharedCounter reads;
  const auto source = pictures();
  source->delay = 2ms;
  source->reads = &*reads;
  std::vector<pid_t> children;
  for (int process = 0; process < 4; ++process) {
    children.push_back(in_child([&] {
      const auto cache = DecodeCache::open_or_build(source, in(dir.path()));
      if (read_sample(*cache, 17).at(0).size() != 100) throw std::runtime_error("wrong sample");
    }));
  }
  for (const pid_t child : children) CHECK(exit_status(child) == 0);
  CHECK(*reads == 40);
  CHECK(files_in(dir.path()).size() == 2);  // the lock and the cache
}

TEST_CASE("a cache lies beside the data, or with the user's caches where that is not writable", "[data][cache]") {
  const TempDir dir;
  const fs::path data = dir.path() / "data", home = dir.path() / "home";
  fs::create_directories(data);
  REQUIRE(::setenv("XDG_CACHE_HOME", home.c_str(), 1) == 0);
  const DecodeCacheOptions automatic{.name = "train", .data_dir = data};
  SECTION("beside the data") {
    CHECK(DecodeCache::open_or_build(pictures(), automatic)->path().parent_path() == data / ".mmtrain_cache");
    CHECK_FALSE(fs::exists(home));
  }
  SECTION("with the user's caches") {
    write_text(data / ".mmtrain_cache", "no folder can be made here");
    const auto path = DecodeCache::open_or_build(pictures(), automatic)->path();
    CHECK(path.parent_path().parent_path() == home / "mmtrain" / "data");
    CHECK(DecodeCache::open_or_build(pictures(), automatic)->path() == path);
    const fs::path other = dir.path() / "other" / "data";
    fs::create_directories(other);
    write_text(other / ".mmtrain_cache", "no folder can be made here");
    CHECK(DecodeCache::open_or_build(pictures(), {.name = "train", .data_dir = other})->path().parent_path() !=
          path.parent_path());
  }
  SECTION("nowhere") {
    write_text(data / ".mmtrain_cache", "no folder can be made here");
    write_text(home, "nor here");
    CHECK_THROWS_AS(DecodeCache::open_or_build(pictures(), automatic), ConfigError);
    CHECK_THROWS_WITH(DecodeCache::open_or_build(pictures(), in(home / "deep")), Contains(home.string()));
  }
  ::unsetenv("XDG_CACHE_HOME");
}

TEST_CASE("options of a cache are checked", "[data][cache]") {
  CHECK_THROWS_AS(DecodeCache::open_or_build(pictures(), {.name = "", .place = "/tmp"}), ConfigError);
  CHECK_THROWS_AS(DecodeCache::open_or_build(pictures(), {.name = "a/b", .place = "/tmp"}), ConfigError);
  CHECK_THROWS_AS(DecodeCache::open_or_build(pictures(), {.name = "train"}), ConfigError);
}

TEST_CASE("a disk too small for the cache is refused before anything is decoded", "[data][cache]") {
  const TempDir dir;
  const auto source = pictures();
  std::atomic<int> reads{0};
  source->reads = &reads;
  source->block = 1LL << 40;  // 40 TiB in all
  CHECK(DecodeCache::expected_bytes(*source) == 40 * ((1ULL << 40) + 5));
  try {
    DecodeCache::open_or_build(source, in(dir.path()));
    FAIL("there are 40 TiB of room?");
  } catch (const Error& error) {
    CHECK_THAT(error.what(), Contains("needs") && Contains("left") && Contains(dir.path().string()));
  }
  CHECK(reads == 0);
  CHECK(files_in(dir.path()) == std::vector<std::string>{"train.lock"});
}

TEST_CASE("an error that is not a bad sample ends the build and can be repaired", "[data][cache]") {
  struct Faulty : Pictures {
    bool faulty = true;
    std::span<const std::span<const std::byte>> read(std::int64_t index, Scratch& scratch) const override {
      if (faulty && index == 20) throw std::bad_alloc();
      return Pictures::read(index, scratch);
    }
  };
  const TempDir dir;
  const auto source = std::make_shared<Faulty>();
  CHECK_THROWS_AS(DecodeCache::open_or_build(source, in(dir.path())), std::bad_alloc);
  source->faulty = false;
  CHECK(same_samples(*DecodeCache::open_or_build(source, in(dir.path())), *source));
}

// This program is linked to the core library alone, which has no codec.
TEST_CASE("a net trains from a cache alone", "[data][cache]") {
  struct Halves : Dataset {
    std::shared_ptr<const SampleSource> source;
    DatasetSpec spec() const override { return {source->spec()}; }
    std::int64_t size() const override { return source->size(); }
    void write(std::int64_t index, SampleSlot& slot) const override {
      SampleSource::Scratch scratch;
      const auto fields = source->read(index, scratch);
      for (std::size_t k = 0; k < 2; ++k)
        std::copy(fields[k].begin(), fields[k].end(), slot.input<std::byte>(k).begin());
      slot.target<std::int64_t>()[0] = fields[0][0] < std::byte{128} ? 0 : 1;
    }
  };
  const TempDir dir;
  const LogCapture log;
  const auto source = pictures();
  std::atomic<int> reads{0};
  source->reads = &reads;
  const auto data = std::make_shared<Halves>();
  data->source = DecodeCache::open_or_build(source, in(dir.path()));
  REQUIRE(reads == 40);

  torch::manual_seed(1);
  torch::nn::Linear net(100, 2);
  torch::optim::Adam optimizer(net->parameters(), torch::optim::AdamOptions(0.02));
  DataLoader loader(data, std::make_shared<RandomSampler>(data->size(), 1), {.batch_size = 8, .num_workers = 2});
  std::vector<double> losses;
  for (int epoch = 0; epoch < 30; ++epoch) {
    losses.push_back(0);
    for (const Batch& batch : loader.epoch(epoch)) {
      const torch::Tensor input = batch.inputs["image"].to(torch::kFloat32) / 128 - 1;
      const torch::Tensor loss = torch::nn::functional::cross_entropy(net(input), batch.target);
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
      losses.back() += loss.item<double>() / 5;
    }
  }
  CHECK(losses.back() < 0.5 * losses.front());
  CHECK(reads == 40);
}

TEST_CASE("a cache is read by Python's safetensors", "[data][cache][python]") {
  const TempDir dir;
  const auto source = pictures();
  source->bad = {7};
  const auto cache = DecodeCache::open_or_build(source, in(dir.path() / "c.safetensors"));
  const fs::path script = dir.path() / "check.py";
  write_text(script, R"(
import json, sys
from safetensors import safe_open
with safe_open(sys.argv[1], "pt") as file:
    image, gain, status = (file.get_tensor(name) for name in ("image", "gain", "status"))
    assert image.shape == (40, 100) and str(image.dtype) == "torch.uint8"
    assert gain.shape == (40, 2) and str(gain.dtype) == "torch.float16"
    assert status.tolist() == [int(i == 7) for i in range(40)]
    assert all(image[i, k] == (i * 31 + k * 7) % 256 for i in range(40) if i != 7 for k in range(100))
    metadata = file.metadata()
    assert metadata["state"] == "complete" and len(metadata["fingerprint"]) == 40
    assert json.loads(metadata["bad_samples"]) == {"is empty": [7]}
)");
  const char* from_environment = std::getenv("MMTRAIN_PYTHON");
  const std::string python = from_environment != nullptr ? from_environment : MMTRAIN_PYTHON;
  if (!fs::exists(python)) {
    WARN("no Python at " << python << ": not checked");
    return;
  }
  const std::string command = "'" + python + "' '" + script.string() + "' '" + cache->path().string() + "'";
  CHECK(std::system(command.c_str()) == 0);
}
