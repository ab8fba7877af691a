#include <ATen/Parallel.h>
#include <torch/cuda.h>
#include <torch/types.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <new>
#include <numeric>
#include <ostream>
#include <ranges>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "mmtrain/core/error.h"
#include "mmtrain/data/data_loader.h"
#include "mmtrain/data/dataset.h"
#include "mmtrain/data/sampler.h"

using namespace mmtrain;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;

namespace {

// Sample i is the numbers {i, a random number} and the target 10 * i. `hook` runs first, and may throw.
class Numbers : public Dataset {
 public:
  explicit Numbers(std::int64_t size, std::function<void(std::int64_t)> hook = {})
      : size_(size), hook_(std::move(hook)) {}

  DatasetSpec spec() const override { return {{{"x", {2}}, {"i", {}, torch::kInt32}}}; }
  std::int64_t size() const override { return size_; }
  void write(std::int64_t index, SampleSlot& slot) const override {
    if (hook_) hook_(index);
    slot.input<float>(0)[0] = static_cast<float>(index);
    slot.input<float>(0)[1] = static_cast<float>(slot.random().uniform());
    slot.input<std::int32_t>(1)[0] = static_cast<std::int32_t>(index);
    slot.target<std::int64_t>()[0] = 10 * index;
  }
  std::string sample_name(std::int64_t index) const override { return "file" + std::to_string(index); }

 private:
  std::int64_t size_;
  std::function<void(std::int64_t)> hook_;
};

std::shared_ptr<Numbers> numbers(std::int64_t size, std::function<void(std::int64_t)> hook = {}) {
  return std::make_shared<Numbers>(size, std::move(hook));
}

std::shared_ptr<Sampler> in_order(std::int64_t size) { return std::make_shared<SequentialSampler>(size); }

std::function<void(std::int64_t)> bad_at(std::set<std::int64_t> bad) {
  return [bad](std::int64_t index) {
    if (bad.contains(index)) throw DataError("is torn");
  };
}

std::vector<std::int64_t> to_vector(const torch::Tensor& tensor) {
  const torch::Tensor values = tensor.to(torch::kInt64).contiguous();
  return {values.data_ptr<std::int64_t>(), values.data_ptr<std::int64_t>() + values.numel()};
}

// Everything a batch holds, by value.
struct Content {
  std::vector<std::int64_t> ids, target;
  std::vector<float> x;
  bool operator==(const Content&) const = default;
};

// What Catch prints of one.
std::ostream& operator<<(std::ostream& out, const Content& batch) { return out << "batch of samples " << batch.ids; }

Content content(const Batch& batch) {
  const torch::Tensor x = batch.input("x").contiguous();
  return {to_vector(batch.ids), to_vector(batch.target), {x.data_ptr<float>(), x.data_ptr<float>() + x.numel()}};
}

std::vector<Content> read_epoch(DataLoader& loader, std::int64_t epoch, std::int64_t first_batch = 0) {
  std::vector<Content> contents;
  for (Batch& batch : loader.epoch(epoch, first_batch)) contents.push_back(content(batch));
  return contents;
}

std::vector<std::vector<std::int64_t>> ids_of(const std::vector<Content>& contents) {
  std::vector<std::vector<std::int64_t>> ids;
  for (const Content& batch : contents) ids.push_back(batch.ids);
  return ids;
}

// Lets `pass` threads through; the others wait.
class Gate {
 public:
  void wait() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void wait_for_arrivals(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return arrived_ >= count; });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  bool open_ = false;
};

// Waits until `condition` holds, up to a generous time.
bool eventually(const std::function<bool()>& condition) {
  for (int attempt = 0; attempt < 2000 && !condition(); ++attempt) std::this_thread::sleep_for(5ms);
  return condition();
}

}  // namespace

static_assert(std::input_iterator<DataLoader::Iterator>);
static_assert(std::ranges::input_range<DataLoader::Epoch>);

TEST_CASE("a sequential sampler counts up in every epoch", "[data][sampler]") {
  const SequentialSampler sampler(4);
  CHECK(sampler.size() == 4);
  CHECK(sampler.indices(0) == std::vector<std::int64_t>{0, 1, 2, 3});
  CHECK(sampler.indices(7) == sampler.indices(0));
  CHECK(SequentialSampler(0).indices(0).empty());
  CHECK_THROWS_AS(SequentialSampler(-1), ConfigError);
}

TEST_CASE("a random sampler gives another permutation each epoch, named by seed and epoch alone", "[data][sampler]") {
  const RandomSampler sampler(100, 3);
  const auto first = sampler.indices(0), second = sampler.indices(1);
  CHECK(first != second);
  CHECK(RandomSampler(100, 3).indices(1) == second);
  CHECK(RandomSampler(100, 4).indices(0) != first);
  auto sorted = first;
  std::sort(sorted.begin(), sorted.end());
  CHECK(sorted == SequentialSampler(100).indices(0));
}

TEST_CASE("a random sampler gives every permutation equally often", "[data][sampler]") {
  std::map<std::vector<std::int64_t>, int> seen;
  const RandomSampler sampler(4, 11);
  const int epochs = 24000;
  for (int epoch = 0; epoch < epochs; ++epoch) ++seen[sampler.indices(epoch)];
  REQUIRE(seen.size() == 24);
  double chi_square = 0;
  for (const auto& [order, count] : seen) chi_square += std::pow(count - epochs / 24.0, 2) / (epochs / 24.0);
  CHECK(chi_square < 49.7);  // 99.9 % quantile, 23 degrees of freedom
}

TEST_CASE("a weighted sampler draws with replacement in proportion to the weights", "[data][sampler]") {
  const WeightedSampler sampler({0.0, 1.0, 0.0, 3.0, 0.0}, 40000, 5);
  std::vector<int> counts(5);
  for (const std::int64_t index : sampler.indices(2)) ++counts.at(static_cast<std::size_t>(index));
  CHECK(counts[0] + counts[2] + counts[4] == 0);
  CHECK(std::abs(counts[1] - 10000) < 350);  // four standard deviations
  CHECK(sampler.indices(2) == sampler.indices(2));
  CHECK(sampler.indices(2) != sampler.indices(3));
  CHECK(sampler.size() == 40000);
  CHECK_THROWS_AS(WeightedSampler({1.0, -1.0}, 2, 0), ConfigError);
  CHECK_THROWS_AS(WeightedSampler({1.0, std::nan("")}, 2, 0), ConfigError);
  CHECK_THROWS_AS(WeightedSampler({0.0, 0.0}, 2, 0), ConfigError);
  CHECK_THROWS_AS(WeightedSampler({}, 1, 0), ConfigError);
}

TEST_CASE("a subset sampler keeps to its indices, shuffled or not", "[data][sampler]") {
  const std::vector<std::int64_t> subset{5, 2, 9, 7, 30, 31, 32, 33};
  CHECK(SubsetSampler(subset, false).indices(3) == subset);
  const SubsetSampler shuffled(subset, true, 1);
  CHECK(shuffled.indices(0) != shuffled.indices(1));
  CHECK(std::ranges::is_permutation(shuffled.indices(0), subset));
  CHECK_THROWS_AS(SubsetSampler({0, -1}, false), ConfigError);
}

TEST_CASE("the ranks' shares are the epoch's order together, and its beginning at every moment", "[data][sampler]") {
  const auto subset = std::vector<std::int64_t>{40, 10, 30, 20, 70, 60, 80, 50, 90, 11, 12};
  const std::vector<std::shared_ptr<const Sampler>> orders{
      std::make_shared<RandomSampler>(23, 5), std::make_shared<RandomSampler>(24, 5),
      std::make_shared<WeightedSampler>(std::vector<double>{1, 0, 3, 2}, 17, 9),
      std::make_shared<SubsetSampler>(subset, true, 2), std::make_shared<SequentialSampler>(2)};
  for (const auto& order : orders) {
    for (const std::int64_t ranks : {1, 2, 3, 4, 7}) {
      for (const std::int64_t epoch : {0, 3}) {
        CAPTURE(order->size(), ranks, epoch);
        const std::vector<std::int64_t> whole = order->indices(epoch);
        std::vector<std::vector<std::int64_t>> shares;
        std::int64_t real = 0;
        for (std::int64_t rank = 0; rank < ranks; ++rank) {
          const DistributedSampler sampler(order, rank, ranks);
          shares.push_back(sampler.indices(epoch));
          CHECK(sampler.size() == (order->size() + ranks - 1) / ranks);
          CHECK(static_cast<std::int64_t>(shares.back().size()) == sampler.size());
          CHECK(sampler.padded() + sampler.real_size() == sampler.size());
          real += sampler.real_size();
        }
        CHECK(real == order->size());
        std::vector<std::int64_t> joined;
        for (std::size_t i = 0; i < shares[0].size(); ++i) {
          for (const auto& share : shares) joined.push_back(share[i]);
        }
        for (std::size_t i = 0; i < joined.size(); ++i) CHECK(joined[i] == whole[i % whole.size()]);
      }
    }
  }
}

TEST_CASE("of the ranks' shares exactly the padding is not their own", "[data][sampler]") {
  for (std::int64_t rank = 0; rank < 4; ++rank) {
    const DistributedSampler odd(std::make_shared<SequentialSampler>(10), rank, 4);
    CHECK(odd.size() == 3);
    CHECK(odd.padded() == (rank < 2 ? 0 : 1));
    CHECK(odd.indices(0).back() == (rank < 2 ? 8 + rank : rank - 2));
    const DistributedSampler few(std::make_shared<SequentialSampler>(2), rank, 4);
    CHECK(few.indices(0) == std::vector<std::int64_t>{rank % 2});
    CHECK(few.real_size() == (rank < 2 ? 1 : 0));
    CHECK(DistributedSampler(std::make_shared<SequentialSampler>(0), rank, 4).indices(0).empty());
  }
}

TEST_CASE("a distributed sampler can drop the tail instead of padding", "[data][sampler]") {
  for (std::int64_t rank = 0; rank < 4; ++rank) {
    const DistributedSampler sampler(std::make_shared<SequentialSampler>(11), rank, 4, /*drop=*/true);
    CHECK(sampler.indices(0) == std::vector<std::int64_t>{rank, rank + 4});
    CHECK(sampler.real_size() == 2);
    CHECK(sampler.padded() == 0);
  }
  CHECK_THROWS_AS(DistributedSampler(std::make_shared<SequentialSampler>(3), 0, 4, true), ConfigError);
  CHECK_THROWS_AS(DistributedSampler(std::make_shared<SequentialSampler>(3), 4, 4), ConfigError);
  CHECK_THROWS_AS(DistributedSampler(std::make_shared<SequentialSampler>(3), -1, 4), ConfigError);
  CHECK_THROWS_AS(DistributedSampler(std::make_shared<SequentialSampler>(3), 0, 0), ConfigError);
  CHECK_THROWS_AS(DistributedSampler(nullptr, 0, 1), ConfigError);
}

TEST_CASE("the same seed gives the same batches, bit for bit, with any number of workers", "[data][loader]") {
  const std::int64_t size = 103;
  const auto jitter = [](std::int64_t index) { std::this_thread::sleep_for((index * 7919 % 5) * 100us); };
  const auto sampler = std::make_shared<RandomSampler>(size, 1);
  DataLoader reference(numbers(size), sampler, {.batch_size = 8, .seed = 9});
  const auto first = read_epoch(reference, 0), second = read_epoch(reference, 1);
  REQUIRE(first.size() == 13);
  CHECK(first.back().ids.size() == 7);
  CHECK(first != second);
  for (const int workers : {1, 2, 3, 8}) {
    CAPTURE(workers);
    DataLoader loader(numbers(size, jitter), sampler, {.batch_size = 8, .num_workers = workers, .seed = 9});
    CHECK(read_epoch(loader, 0) == first);
    CHECK(read_epoch(loader, 1) == second);
    CHECK(read_epoch(loader, 0) == first);
  }
}

TEST_CASE("a sample's random numbers depend on seed, epoch and index, not on its place", "[data][loader]") {
  const auto number = [](std::uint64_t seed, std::int64_t epoch, std::vector<std::int64_t> order) {
    const auto size = static_cast<std::int64_t>(order.size());
    DataLoader loader(numbers(10), std::make_shared<SubsetSampler>(order, false), {.batch_size = size, .seed = seed});
    const Content only = read_epoch(loader, epoch).at(0);
    const auto place = std::find(only.ids.begin(), only.ids.end(), 4) - only.ids.begin();
    return only.x[static_cast<std::size_t>(2 * place + 1)];
  };
  CHECK(number(1, 0, {4, 5}) == number(1, 0, {7, 8, 4}));
  CHECK(number(1, 0, {4}) != number(2, 0, {4}));
  CHECK(number(1, 0, {4}) != number(1, 1, {4}));
}

TEST_CASE("a batch holds the spec's tensors, the target and the sample indices", "[data][loader]") {
  DataLoader loader(numbers(5), in_order(5), {.batch_size = 3});
  auto epoch = loader.epoch(0);
  Batch& batch = *epoch.begin();
  CHECK(batch.size() == 3);
  CHECK(batch.inputs.keys() == std::vector<std::string>{"x", "i"});
  CHECK(batch.input("x").sizes() == torch::IntArrayRef{3, 2});
  CHECK(batch.input("i").scalar_type() == torch::kInt32);
  CHECK(to_vector(batch.input("i")) == std::vector<std::int64_t>{0, 1, 2});
  CHECK(to_vector(batch.target) == std::vector<std::int64_t>{0, 10, 20});
  CHECK(to_vector(batch.ids) == std::vector<std::int64_t>{0, 1, 2});
  CHECK_FALSE(batch.weights.defined());
}

TEST_CASE("the last batch is shorter, or left out with drop_last", "[data][loader]") {
  const int workers = GENERATE(0, 2);
  DataLoader all(numbers(10), in_order(10), {.batch_size = 4, .num_workers = workers});
  CHECK(all.size() == 3);
  CHECK(ids_of(read_epoch(all, 0)).back() == std::vector<std::int64_t>{8, 9});
  DataLoader whole(numbers(10), in_order(10), {.batch_size = 4, .num_workers = workers, .drop_last = true});
  CHECK(whole.size() == 2);
  CHECK(ids_of(read_epoch(whole, 0)).back() == std::vector<std::int64_t>{4, 5, 6, 7});
  DataLoader none(numbers(3), in_order(3), {.batch_size = 4, .num_workers = workers, .drop_last = true});
  CHECK(none.size() == 0);
  CHECK(read_epoch(none, 0).empty());
  DataLoader empty(numbers(0), in_order(0), {.batch_size = 4, .num_workers = workers});
  CHECK(read_epoch(empty, 0).empty());
}

TEST_CASE("an epoch left early is followed by a whole one", "[data][loader]") {
  const int workers = GENERATE(0, 1, 3);
  DataLoader loader(numbers(40), in_order(40), {.batch_size = 2, .num_workers = workers});
  const auto whole = read_epoch(loader, 0);
  for (int round = 0; round < 20; ++round) {
    int seen = 0;
    for (Batch& batch : loader.epoch(0)) {
      CHECK(content(batch) == whole[static_cast<std::size_t>(seen)]);
      if (++seen > round % 4) break;
    }
  }
  CHECK(read_epoch(loader, 0) == whole);
}

TEST_CASE("a new epoch ends the open one", "[data][loader]") {
  const int workers = GENERATE(0, 2);
  DataLoader loader(numbers(20), in_order(20), {.batch_size = 2, .num_workers = workers});
  auto first = loader.epoch(0), second = loader.epoch(1);
  auto abandoned = first.begin();
  ++abandoned;
  auto current = second.begin();
  CHECK(abandoned == first.end());
  CHECK_THROWS_AS(*abandoned, ConfigError);
  ++abandoned;
  CHECK((*current).ids[0].item<std::int64_t>() == 0);
  std::int64_t batches = 0;
  for (; current != second.end(); ++current) ++batches;
  CHECK(batches == 10);
  CHECK_THROWS_AS(*current, ConfigError);
}

TEST_CASE("an epoch is a range that algorithms can shorten", "[data][loader]") {
  DataLoader loader(numbers(20), in_order(20), {.batch_size = 2, .num_workers = 1});
  std::vector<std::int64_t> first_ids;
  for (Batch& batch : loader.epoch(0) | std::views::take(3)) first_ids.push_back(batch.ids[0].item<std::int64_t>());
  CHECK(first_ids == std::vector<std::int64_t>{0, 2, 4});
}

TEST_CASE("an epoch can be resumed at any batch", "[data][loader]") {
  const int workers = GENERATE(0, 3);
  const auto sampler = std::make_shared<RandomSampler>(50, 2);
  DataLoader loader(numbers(50), sampler, {.batch_size = 4, .num_workers = workers, .seed = 1});
  const auto whole = read_epoch(loader, 6);
  auto batches = loader.epoch(6);
  auto batch = batches.begin();
  for (int step = 0; step < 4; ++step) ++batch;
  CHECK(loader.next_batch() == 5);
  CHECK(read_epoch(loader, 6, loader.next_batch()) == std::vector<Content>(whole.begin() + 5, whole.end()));
  CHECK(read_epoch(loader, 6, 13).empty());
  CHECK(read_epoch(loader, 6, 99).empty());
}

TEST_CASE("a bad sample throws at its batch, named, and the pass goes on behind it", "[data][loader]") {
  const int workers = GENERATE(0, 1, 3);
  DataLoader loader(numbers(20, bad_at({9, 10})), in_order(20), {.batch_size = 4, .num_workers = workers});
  for (int round = 0; round < 2; ++round) {
    std::vector<std::int64_t> good, failed;
    auto epoch = loader.epoch(round);
    std::int64_t number = 0;
    for (auto batch = epoch.begin(); batch != epoch.end(); ++batch, ++number) {
      try {
        good.push_back((*batch).ids[0].item<std::int64_t>());
      } catch (const DataError& error) {
        failed.push_back(number);
        CHECK_THAT(error.what(), Contains("sample 9") && Contains("file9") && Contains("is torn"));
        CHECK_THROWS_AS(*batch, DataError);
      }
    }
    CHECK(good == std::vector<std::int64_t>{0, 4, 12, 16});
    CHECK(failed == std::vector<std::int64_t>{2});
  }
  CHECK(loader.errors().empty());
}

TEST_CASE("an epoch ended by a bad sample is followed by a good one", "[data][loader]") {
  const int workers = GENERATE(0, 2);
  std::atomic<bool> broken{true};
  const auto hook = [&](std::int64_t index) {
    if (broken && index == 5) throw DataError("is torn");
  };
  DataLoader loader(numbers(12, hook), in_order(12), {.batch_size = 2, .num_workers = workers});
  CHECK_THROWS_AS(read_epoch(loader, 0), DataError);
  broken = false;
  CHECK(read_epoch(loader, 0).size() == 6);
}

TEST_CASE("skipped samples make their batch shorter, shift no other, and are listed once", "[data][loader]") {
  const int workers = GENERATE(0, 1, 3);
  DataLoader loader(numbers(12, bad_at({0, 5, 7})), in_order(12),
                    {.batch_size = 4, .num_workers = workers, .bad_samples = BadSamplePolicy::skip});
  for (int epoch = 0; epoch < 2; ++epoch) {
    const auto batches = read_epoch(loader, epoch);
    CHECK(ids_of(batches) == std::vector<std::vector<std::int64_t>>{{1, 2, 3}, {4, 6}, {8, 9, 10, 11}});
    CHECK(batches[1].target == std::vector<std::int64_t>{40, 60});
    CHECK(batches[1].x[2] == 6);
  }
  const auto errors = loader.errors();
  REQUIRE(errors.size() == 3);
  CHECK(errors[1].index == 5);
  CHECK(errors[1].path == "file5");
  CHECK(errors[1].reason == "is torn");
}

TEST_CASE("errors are listed when their batch is reached, however far the workers are", "[data][loader]") {
  std::atomic<int> read{0};
  const auto hook = [&](std::int64_t index) {
    ++read;
    bad_at({3})(index);
  };
  DataLoader loader(numbers(20, hook), in_order(20),
                    {.batch_size = 2, .num_workers = 2, .bad_samples = BadSamplePolicy::skip});
  auto epoch = loader.epoch(0);
  auto batch = epoch.begin();
  REQUIRE(eventually([&] { return read >= 8; }));
  CHECK(loader.errors().empty());
  ++batch;
  CHECK(loader.errors().size() == 1);
}

TEST_CASE("a batch without a good sample is left out, an epoch without one is an error", "[data][loader]") {
  const int workers = GENERATE(0, 2);
  const auto skip = BadSamplePolicy::skip;
  DataLoader some(numbers(8, bad_at({2, 3})), in_order(8),
                  {.batch_size = 2, .num_workers = workers, .bad_samples = skip});
  CHECK(ids_of(read_epoch(some, 0)) == std::vector<std::vector<std::int64_t>>{{0, 1}, {4, 5}, {6, 7}});
  auto epoch = some.epoch(0);
  auto batch = epoch.begin();
  CHECK(some.next_batch() == 1);
  ++batch;
  CHECK(some.next_batch() == 3);

  DataLoader none(numbers(3, bad_at({0, 1, 2})), in_order(3),
                  {.batch_size = 2, .num_workers = workers, .bad_samples = skip});
  auto bad_epoch = none.epoch(0);
  auto bad = bad_epoch.begin();
  REQUIRE(bad != bad_epoch.end());
  CHECK_THROWS_WITH(*bad, Contains("not one of the 3 samples") && Contains("file0") && Contains("is torn"));
  ++bad;
  CHECK(bad == bad_epoch.end());
  CHECK(none.errors().size() == 3);
}

TEST_CASE("a split without a readable sample is found before training", "[data]") {
  CHECK_NOTHROW(require_readable(numbers(5, bad_at({0, 1, 2})), "val"));
  CHECK_THROWS_WITH(require_readable(numbers(3, bad_at({0, 1, 2})), "val"), Contains("val split") && Contains("file0"));
  CHECK_THROWS_AS(require_readable(numbers(0), "val"), DataError);
  CHECK_THROWS_AS(require_readable(numbers(1, [](std::int64_t) { throw std::bad_alloc(); }), "val"), std::bad_alloc);
}

TEST_CASE("what is not a bad sample is never skipped: it surfaces at its batch", "[data][loader]") {
  const int workers = GENERATE(0, 2);
  const auto policy = GENERATE(BadSamplePolicy::throw_error, BadSamplePolicy::skip);
  const auto hook = [](std::int64_t index) {
    if (index == 4) throw std::bad_alloc();
    if (index == 6) throw std::runtime_error("a fault of the program");
  };
  DataLoader loader(numbers(10, hook), in_order(10), {.batch_size = 2, .num_workers = workers, .bad_samples = policy});
  auto epoch = loader.epoch(0);
  auto batch = epoch.begin();
  ++ ++batch;
  CHECK_THROWS_AS(*batch, std::bad_alloc);
  ++batch;
  CHECK_THROWS_WITH(*batch, "a fault of the program");
  ++batch;
  CHECK((*batch).ids[0].item<std::int64_t>() == 8);
  CHECK(loader.errors().empty());
}

TEST_CASE("workers persist between epochs, and none of them is the caller", "[data][loader]") {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  const auto hook = [&](std::int64_t) {
    std::this_thread::sleep_for(200us);
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
  };
  DataLoader loader(numbers(64, hook), in_order(64), {.batch_size = 2, .num_workers = 3});
  CHECK(threads.empty());
  for (int epoch = 0; epoch < 5; ++epoch) read_epoch(loader, epoch);
  CHECK(threads.size() == 3);
  CHECK_FALSE(threads.contains(std::this_thread::get_id()));
  threads.clear();
  DataLoader direct(numbers(8, hook), in_order(8), {.batch_size = 2});
  read_epoch(direct, 0);
  CHECK(threads == std::set{std::this_thread::get_id()});
}

TEST_CASE("workers read ahead as far as prefetch_factor says, and not a batch further", "[data][loader]") {
  const int workers = GENERATE(1, 2, 3), factor = GENERATE(1, 2, 4);
  std::atomic<std::int64_t> started{0};
  DataLoader loader(numbers(60, [&](std::int64_t) { ++started; }), in_order(60),
                    {.num_workers = workers, .prefetch_factor = factor});
  const std::int64_t bound = workers * factor;
  std::int64_t taken = 0;
  for (Batch& batch : loader.epoch(0)) {
    CHECK(batch.size() == 1);
    ++taken;
    const std::int64_t expected = std::min<std::int64_t>(taken + bound, 60);
    REQUIRE(eventually([&] { return started == expected; }));
    if (taken % 10 == 0) {
      std::this_thread::sleep_for(5ms);
      CHECK(started == expected);
    }
  }
}

TEST_CASE("a loader can be destroyed in any state", "[data][loader]") {
  const int workers = GENERATE(0, 1, 4);
  const DataLoaderOptions options{.batch_size = 2, .num_workers = workers};
  SECTION("not started") { DataLoader loader(numbers(20), in_order(20), options); }
  SECTION("never iterated") {
    DataLoader loader(numbers(20), in_order(20), options);
    loader.epoch(0);
  }
  SECTION("in the middle of an epoch") {
    for (int round = 0; round < 50; ++round) {
      DataLoader loader(numbers(200), in_order(200), options);
      auto epoch = loader.epoch(0);
      auto batch = epoch.begin();
      for (int step = 0; step < round % 7; ++step) ++batch;
    }
  }
  SECTION("with a full queue") {
    std::atomic<int> read{0};
    DataLoader loader(numbers(100, [&](std::int64_t) { ++read; }), in_order(100), options);
    auto epoch = loader.epoch(0);
    epoch.begin();
    REQUIRE(eventually([&] { return read == 2 + 2 * 2 * workers; }));
  }
  SECTION("at the end of an epoch") {
    DataLoader loader(numbers(20), in_order(20), options);
    read_epoch(loader, 0);
  }
  SECTION("after an error") {
    DataLoader loader(numbers(20, bad_at({3})), in_order(20), options);
    CHECK_THROWS_AS(read_epoch(loader, 0), DataError);
  }
}

TEST_CASE("a loader waits for the sample being read when it is destroyed, and for no other", "[data][loader]") {
  Gate gate;
  std::atomic<int> read{0};
  const auto hook = [&](std::int64_t index) {
    ++read;
    if (index >= 2) gate.wait();
  };
  auto loader = std::make_unique<DataLoader>(numbers(100, hook), in_order(100),
                                             DataLoaderOptions{.batch_size = 2, .num_workers = 2});
  auto epoch = loader->epoch(0);
  epoch.begin();
  gate.wait_for_arrivals(2);
  auto destroyed = std::async(std::launch::async, [&] { loader.reset(); });
  CHECK(destroyed.wait_for(20ms) == std::future_status::timeout);
  gate.open();
  destroyed.get();
  CHECK(read == 4);
}

TEST_CASE("a new epoch does not wait for samples of the abandoned one", "[data][loader]") {
  Gate gate;
  std::atomic<int> epochs{0};
  const auto hook = [&](std::int64_t index) {
    if (epochs == 0 && index == 3) gate.wait();
  };
  DataLoader loader(numbers(20, hook), in_order(20), {.batch_size = 1, .num_workers = 2});
  auto abandoned = loader.epoch(0);
  abandoned.begin();
  gate.wait_for_arrivals(1);
  epochs = 1;
  CHECK(read_epoch(loader, 1).size() == 20);
  gate.open();
  CHECK(read_epoch(loader, 2).size() == 20);
}

TEST_CASE("the time the consumer waits is measured", "[data][loader]") {
  const int workers = GENERATE(0, 1);
  DataLoader slow(numbers(10, [](std::int64_t) { std::this_thread::sleep_for(10ms); }), in_order(10),
                  {.num_workers = workers});
  CHECK(slow.wait_seconds() == 0);
  read_epoch(slow, 0);
  CHECK(slow.wait_seconds() > 0.08);
  read_epoch(slow, 0, 9);
  CHECK(slow.wait_seconds() < 0.08);
}

TEST_CASE("a consumer slower than the workers hardly waits", "[data][loader]") {
  DataLoader loader(numbers(20), in_order(20), {.num_workers = 2});
  for (Batch& batch : loader.epoch(0)) {
    CHECK(batch.size() == 1);
    std::this_thread::sleep_for(10ms);
  }
  CHECK(loader.wait_seconds() < 0.1);
}

TEST_CASE("memory of a batch is used again once its last tensor is gone, and never before", "[data][loader]") {
  const int workers = GENERATE(0, 2);
  DataLoader loader(numbers(400), in_order(400), {.batch_size = 2, .num_workers = workers});
  std::set<void*> addresses;
  torch::Tensor kept;
  std::vector<float> kept_values;
  std::int64_t count = 0;
  for (Batch& batch : loader.epoch(0)) {
    const torch::Tensor x = batch.input("x");
    if (kept.defined()) REQUIRE(x.data_ptr() != kept.data_ptr());
    if (count == 3) {
      kept = x.view({4}).narrow(0, 0, 4);
      kept_values.assign(kept.data_ptr<float>(), kept.data_ptr<float>() + 4);
    }
    addresses.insert(x.data_ptr());
    ++count;
  }
  CHECK(count == 200);
  CHECK(addresses.size() <= static_cast<std::size_t>(2 * workers + workers + 3));
  CHECK(std::equal(kept_values.begin(), kept_values.end(), kept.data_ptr<float>()));
}

TEST_CASE("batches may be kept, also beyond the loader", "[data][loader]") {
  const int workers = GENERATE(0, 2);
  std::vector<Batch> kept;
  {
    DataLoader loader(numbers(20), in_order(20), {.batch_size = 2, .num_workers = workers});
    for (Batch& batch : loader.epoch(0)) kept.push_back(std::move(batch));
  }
  REQUIRE(kept.size() == 10);
  for (std::int64_t number = 0; number < 10; ++number) {
    const Batch& batch = kept[static_cast<std::size_t>(number)];
    CHECK(to_vector(batch.target) == std::vector<std::int64_t>{20 * number, 20 * number + 10});
    CHECK(batch.input("x")[1][0].item<float>() == static_cast<float>(2 * number + 1));
  }
}

TEST_CASE("workers run ATen with one thread, and the caller's threads stay as they are", "[data][loader][threads]") {
  const int before = at::get_num_threads();
  at::set_num_threads(4);
  const int workers = GENERATE(0, 2);
  std::mutex mutex;
  std::set<int> settings;
  std::set<std::thread::id> helpers;
  const auto hook = [&](std::int64_t) {
    const auto own = std::this_thread::get_id();
    at::parallel_for(0, 64, 1, [&](std::int64_t, std::int64_t) {
      const std::lock_guard lock(mutex);
      if (std::this_thread::get_id() != own) helpers.insert(std::this_thread::get_id());
    });
    // LibTorch's own loops, too, which keep their setting in another library.
    torch::ones({100000}).sum();
    const std::lock_guard lock(mutex);
    settings.insert(at::get_num_threads());
  };
  DataLoader loader(numbers(8, hook), in_order(8), {.batch_size = 2, .num_workers = workers});
  read_epoch(loader, 0);
  CHECK(settings == std::set{1});
  CHECK(helpers.empty());
  CHECK(at::get_num_threads() == 4);
  at::set_num_threads(before);
}

namespace {

// Sample i has 1 + i % 4 frames of two numbers, all i, and a target as long.
class Clips : public SampleDataset {
 public:
  DatasetSpec spec() const override {
    return {{{"frames", {-1, 2}}, {"id", {}, torch::kInt64}}, {"labels", {-1}, torch::kInt64}};
  }
  std::int64_t size() const override { return 8; }
  Sample get(std::int64_t index) const override {
    const std::int64_t length = 1 + index % 4;
    Sample sample;
    sample.inputs.insert("id", torch::tensor(index));
    sample.inputs.insert("frames", torch::full({length, 2}, static_cast<float>(index), torch::requires_grad()) * 1);
    sample.target = torch::full({length}, index);
    return sample;
  }
};

// One tensor `x` and a target, whatever they are; sample 1 may differ.
class Loose : public SampleDataset {
 public:
  Loose(TensorSpec x, torch::Tensor usual, torch::Tensor odd)
      : x_(std::move(x)), usual_(std::move(usual)), odd_(std::move(odd)) {}
  DatasetSpec spec() const override { return {{x_}, {"", {}}}; }
  std::int64_t size() const override { return 3; }
  Sample get(std::int64_t index) const override {
    Sample sample;
    const torch::Tensor& x = index == 1 ? odd_ : usual_;
    if (x.defined()) sample.inputs.insert("x", x);
    return sample;
  }

 private:
  TensorSpec x_;
  torch::Tensor usual_, odd_;
};

}  // namespace

TEST_CASE("samples of different lengths are padded with zeros and their lengths added", "[data][loader][collate]") {
  const int workers = GENERATE(0, 2);
  DataLoader loader(std::make_shared<Clips>(), in_order(8), {.batch_size = 3, .num_workers = workers});
  std::vector<Batch> batches;
  for (Batch& batch : loader.epoch(0)) batches.push_back(batch);
  REQUIRE(batches.size() == 3);
  const Batch& batch = batches[1];  // samples 3, 4, 5 of lengths 4, 1, 2
  CHECK(batch.inputs.keys() == std::vector<std::string>{"frames", "id", "frames_lengths", "labels_lengths"});
  CHECK(to_vector(batch.input("frames_lengths")) == std::vector<std::int64_t>{4, 1, 2});
  CHECK(to_vector(batch.input("labels_lengths")) == std::vector<std::int64_t>{4, 1, 2});
  CHECK(to_vector(batch.input("frames")) ==
        std::vector<std::int64_t>{3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 0, 0, 0, 0, 0, 0, 5, 5, 5, 5, 0, 0, 0, 0});
  CHECK(batch.input("frames").sizes() == torch::IntArrayRef{3, 4, 2});
  CHECK(to_vector(batch.input("id")) == std::vector<std::int64_t>{3, 4, 5});
  CHECK(to_vector(batch.target) == std::vector<std::int64_t>{3, 3, 3, 3, 4, 0, 0, 0, 5, 5, 0, 0});
  CHECK(to_vector(batch.ids) == std::vector<std::int64_t>{3, 4, 5});
  CHECK_FALSE(batch.input("frames").requires_grad());
}

TEST_CASE("lengths of several dimensions come side by side", "[data][collate]") {
  DataLoader loader(
      std::make_shared<Loose>(TensorSpec{"x", {-1, 2, -1}}, torch::ones({1, 2, 3}), torch::ones({4, 2, 1})),
      in_order(3), {.batch_size = 3});
  auto epoch = loader.epoch(0);
  const Batch& batch = *epoch.begin();
  CHECK(batch.input("x").sizes() == torch::IntArrayRef{3, 4, 2, 3});
  CHECK(batch.input("x").sum().item<float>() == 6 + 8 + 6);
  CHECK(batch.input("x_lengths").sizes() == torch::IntArrayRef{3, 2});
  CHECK(to_vector(batch.input("x_lengths")) == std::vector<std::int64_t>{1, 3, 4, 1, 1, 3});
  CHECK_FALSE(batch.target.defined());
}

TEST_CASE("a sample of another shape is a bad sample, one of another type a fault of the program", "[data][collate]") {
  const std::int64_t length = GENERATE(2, -1);  // both ways of making batches
  const TensorSpec spec{"x", {length, 2}};
  const auto usual = torch::ones({2, 2});
  const auto load = [&](const torch::Tensor& odd) {
    DataLoader loader(std::make_shared<Loose>(spec, usual, odd), in_order(3),
                      {.batch_size = 3, .bad_samples = BadSamplePolicy::skip});
    auto epoch = loader.epoch(0);
    const Batch& batch = *epoch.begin();
    CHECK(to_vector(batch.ids) == std::vector<std::int64_t>{0, 2});
    return loader.errors().at(0).reason;
  };
  CHECK_THAT(load(torch::ones({2, 3})), Contains("[2,3]"));
  CHECK_THAT(load(torch::ones({2})), Contains("[2]"));
  CHECK_THROWS_AS(load(torch::ones({2, 2}, torch::kInt64)), ConfigError);
  CHECK_THROWS_AS(load(torch::Tensor()), ConfigError);
}

TEST_CASE("samples given as tensors of fixed shape are copied whatever their strides", "[data][collate]") {
  const auto values = torch::arange(6, torch::kFloat32).view({2, 3});
  DataLoader loader(std::make_shared<Loose>(TensorSpec{"x", {3, 2}}, values.t(), values.t()), in_order(3),
                    {.batch_size = 3});
  auto epoch = loader.epoch(0);
  CHECK(to_vector((*epoch.begin()).input("x")[1]) == std::vector<std::int64_t>{0, 3, 1, 4, 2, 5});
}

TEST_CASE("class counts follow the labels", "[data]") {
  class Labelled : public Numbers {
   public:
    using Numbers::Numbers;
    std::vector<std::string> class_names() const override { return {"a", "b", "c", "d"}; }
    std::vector<std::int64_t> labels() const override { return {0, 2, 2, 1, 2}; }
  };
  CHECK(class_counts(Labelled(5)) == std::vector<std::int64_t>{1, 1, 3, 0});
  CHECK(class_counts(Numbers(5)).empty());
}

TEST_CASE("options out of range and stray samplers are refused", "[data][loader]") {
  const auto make = [](DataLoaderOptions options) { DataLoader(numbers(4), in_order(4), options); };
  CHECK_THROWS_WITH(make({.batch_size = 0}), Contains("batch_size must be positive, got 0"));
  CHECK_THROWS_AS(make({.num_workers = -1}), ConfigError);
  CHECK_THROWS_AS(make({.prefetch_factor = 0}), ConfigError);
  CHECK_THROWS_AS(make({.prefetch_device = torch::Device(torch::kCPU)}), ConfigError);
  CHECK_THROWS_AS(DataLoader(nullptr, in_order(4), {}), ConfigError);
  CHECK_THROWS_AS(DataLoader(numbers(4), nullptr, {}), ConfigError);
  CHECK_THROWS_AS(DataLoader(std::make_shared<Clips>(), in_order(8), {}).epoch(-1).begin(), ConfigError);
  DataLoader stray(numbers(4), in_order(5), {});
  CHECK_THROWS_WITH(stray.epoch(0).begin(), Contains("sample 4") && Contains("has 4"));

  class Varying : public Numbers {
   public:
    using Numbers::Numbers;
    DatasetSpec spec() const override { return {{{"x", {-1}}}}; }
  };
  CHECK_THROWS_WITH(DataLoader(std::make_shared<Varying>(4), in_order(4), {}), Contains("SampleDataset"));
}

TEST_CASE("page-locked memory and a CUDA device are refused where there is none", "[data][loader][cuda]") {
  if (torch::cuda::is_available()) return;
  CHECK_THROWS_AS(DataLoader(numbers(4), in_order(4), {.pin_memory = true}), DeviceError);
  CHECK_THROWS_AS(DataLoader(numbers(4), in_order(4), {.prefetch_device = torch::Device(torch::kCUDA, 0)}),
                  DeviceError);
}

TEST_CASE("batches prefetched to a device are those of the host", "[data][loader][cuda]") {
  if (!torch::cuda::is_available()) return;
  const int workers = GENERATE(0, 3);
  const auto sampler = std::make_shared<RandomSampler>(1001, 1);
  const auto hook = bad_at({17, 40, 41});
  DataLoader host(numbers(1001, hook), sampler, {.batch_size = 16, .bad_samples = BadSamplePolicy::skip});
  DataLoader pinned(
      numbers(1001, hook), sampler,
      {.batch_size = 16, .num_workers = workers, .pin_memory = true, .bad_samples = BadSamplePolicy::skip});
  DataLoader device(numbers(1001, hook), sampler,
                    {.batch_size = 16,
                     .num_workers = workers,
                     .prefetch_device = torch::Device(torch::kCUDA),
                     .bad_samples = BadSamplePolicy::skip});
  CHECK_THROWS_AS(DataLoader(numbers(4), in_order(4), {.prefetch_device = torch::Device(torch::kCUDA, 99)}),
                  DeviceError);
  for (int epoch = 0; epoch < 3; ++epoch) {
    const auto expected = read_epoch(host, epoch);
    std::vector<Content> from_pinned, from_device;
    for (Batch& batch : pinned.epoch(epoch)) {
      CHECK(batch.input("x").is_pinned());
      CHECK(batch.ids.is_pinned());
      from_pinned.push_back(content(batch));
    }
    for (Batch& batch : device.epoch(epoch)) {
      CHECK(batch.input("x").is_cuda());
      // Work on the consumer's stream that the next copy must not overtake.
      const torch::Tensor kept = batch.input("x") * 1;
      from_device.push_back(content(batch.to(torch::kCPU)));
      CHECK(torch::equal(kept, batch.input("x")));
    }
    CHECK(from_pinned == expected);
    CHECK(from_device == expected);
  }
}
