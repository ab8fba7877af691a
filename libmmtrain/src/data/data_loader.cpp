#include "mmtrain/data/data_loader.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <stop_token>
#include <system_error>
#include <thread>
#include <unordered_set>
#include <utility>

#include "data/batch_reader.h"
#include "data/device_copy.h"
#include "data/ordered_queue.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/device/thread_limit.h"

namespace mmtrain {
namespace {

using detail::ReadResult;

// One run through an epoch, shared by the workers that are at it. An abandoned one ends with its last worker.
class Pass {
 public:
  Pass(std::int64_t epoch, std::vector<std::int64_t> indices, std::int64_t batch_size, std::int64_t first,
       std::int64_t end, std::size_t bound)
      : queue(first, end, bound), end_(end), epoch_(epoch), batch_size_(batch_size), indices_(std::move(indices)) {}

  std::int64_t end() const { return end_; }

  ReadResult read(const detail::BatchReader& reader, std::int64_t number) const {
    const auto begin = static_cast<std::size_t>(number * batch_size_);
    const std::size_t count = std::min(static_cast<std::size_t>(batch_size_), indices_.size() - begin);
    return reader.read(std::span(indices_).subspan(begin, count), epoch_, stop_.get_token());
  }

  void cancel() {
    stop_.request_stop();
    queue.cancel();
  }

  detail::OrderedQueue<ReadResult> queue;

 private:
  const std::int64_t end_, epoch_, batch_size_;
  const std::vector<std::int64_t> indices_;
  std::stop_source stop_;
};

// Threads that stay, and work on the pass they were given last. Passes must be canceled before the pool is destroyed.
class WorkerPool {
 public:
  WorkerPool(const detail::BatchReader& reader, int count) : reader_(reader), count_(count) {}
  ~WorkerPool();

  // The first call starts the threads.
  void assign(std::shared_ptr<Pass> pass);

 private:
  void run(int number);
  // The next pass that this worker has not worked on; nothing when the pool ends.
  std::shared_ptr<Pass> wait_for_pass(std::uint64_t& seen);

  const detail::BatchReader& reader_;
  const int count_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Pass> pass_;
  std::uint64_t pass_number_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::assign(std::shared_ptr<Pass> pass) {
  {
    const std::lock_guard lock(mutex_);
    pass_ = std::move(pass);
    ++pass_number_;
  }
  changed_.notify_all();
  for (int number = static_cast<int>(threads_.size()); number < count_; ++number) {
    try {
      threads_.emplace_back([this, number] { run(number); });
    } catch (const std::system_error& error) {
      throw ConfigError(
          fmt::format("[DataLoader] the system starts no more than {} of num_workers {} threads ({}): "
                      "take about as many as there are cores",
                      number, count_, error.what()));
    }
  }
}

std::shared_ptr<Pass> WorkerPool::wait_for_pass(std::uint64_t& seen) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopping_ || pass_number_ != seen; });
  if (stopping_) return nullptr;
  seen = pass_number_;
  return pass_;
}

void WorkerPool::run(int number) {
  ::pthread_setname_np(::pthread_self(), fmt::format("mm-loader-{}", number).substr(0, 15).c_str());
  const ThreadLimit one_thread(1);
  std::uint64_t seen = 0;
  while (const std::shared_ptr<Pass> pass = wait_for_pass(seen)) {
    while (const std::optional<std::int64_t> batch = pass->queue.claim()) {
      pass->queue.put(*batch, pass->read(reader_, *batch));
    }
  }
}

void demand(bool holds, std::string_view option, std::string_view rule, std::int64_t value) {
  if (!holds) throw ConfigError(fmt::format("[DataLoader] {} must be {}, got {}", option, rule, value));
}

DataLoaderOptions checked(const DataLoaderOptions& options) {
  demand(options.batch_size > 0, "batch_size", "positive", options.batch_size);
  demand(options.num_workers >= 0, "num_workers", "0 or more", options.num_workers);
  demand(options.prefetch_factor > 0, "prefetch_factor", "positive", options.prefetch_factor);
  if (options.pin_memory) detail::require_cuda("pin_memory");
  return options;
}

template <class T>
std::shared_ptr<T> not_null(std::shared_ptr<T> pointer, std::string_view what) {
  if (!pointer) throw ConfigError(fmt::format("[DataLoader] needs a {}, got a null pointer", what));
  return pointer;
}

DataError bad_sample_error(const SampleError& bad) {
  return DataError(
      fmt::format("[DataLoader] sample {} ({}) cannot be read: {}; repair or remove it, or skip bad samples", bad.index,
                  bad.path, bad.reason));
}

// A batch out of the queue, perhaps on its way to the device.
struct Loaded {
  ReadResult result;
  std::optional<detail::DeviceCopier::Copy> copy = {};
};

}  // namespace

// The consumer's side: its own state, touched by no worker.
struct DataLoader::Impl {
  Impl(std::shared_ptr<const Dataset> samples, std::shared_ptr<const Sampler> order, const DataLoaderOptions& settings)
      : dataset(not_null(std::move(samples), "dataset")),
        sampler(not_null(std::move(order), "sampler")),
        options(checked(settings)),
        reader(dataset, options),
        workers(reader, options.num_workers) {
    if (options.prefetch_device) copier.emplace(*options.prefetch_device);
  }
  ~Impl() { end_pass(); }

  void begin(std::int64_t epoch, std::int64_t first_batch);
  void advance();
  void end_pass();
  std::int64_t batches() const;
  std::vector<std::int64_t> checked_indices(std::int64_t epoch) const;
  Loaded next_loaded();
  ReadResult next_result();
  void start_copy(Loaded& loaded) const;
  void look_ahead();
  void hand_out(Loaded loaded);
  void note_bad(std::vector<SampleError> bad);

  const std::shared_ptr<const Dataset> dataset;
  const std::shared_ptr<const Sampler> sampler;
  const DataLoaderOptions options;
  const detail::BatchReader reader;
  WorkerPool workers;
  std::optional<detail::DeviceCopier> copier;

  std::shared_ptr<Pass> pass;
  std::uint64_t pass_number = 0;  // tells iterators of former passes from those of this one
  std::int64_t to_load = 0;       // number of the batch that comes next out of the queue
  std::int64_t to_hand_out = 0;   // number of the batch behind the current one
  std::optional<Loaded> ahead;    // out of the queue, not yet handed out
  bool none_good = false;         // true as long as the pass began at its start and no sample of it was good
  bool at_end = true;
  Batch current;
  std::exception_ptr failure;  // why there is no current batch
  double waited = 0;
  std::vector<SampleError> bad_samples;
  std::unordered_set<std::int64_t> bad_indices;
};

std::int64_t DataLoader::Impl::batches() const {
  const std::int64_t samples = sampler->size(), whole = samples / options.batch_size;
  return whole + (samples % options.batch_size != 0 && !options.drop_last ? 1 : 0);
}

std::vector<std::int64_t> DataLoader::Impl::checked_indices(std::int64_t epoch) const {
  std::vector<std::int64_t> indices = sampler->indices(epoch);
  if (static_cast<std::int64_t>(indices.size()) != sampler->size()) {
    throw ConfigError(fmt::format("[DataLoader] the sampler promises {} indices in every epoch, got {} in epoch {}",
                                  sampler->size(), indices.size(), epoch));
  }
  const std::int64_t size = dataset->size();
  const auto stray =
      std::find_if(indices.begin(), indices.end(), [size](std::int64_t index) { return index < 0 || index >= size; });
  if (stray != indices.end()) {
    throw ConfigError(fmt::format("[DataLoader] the sampler asks for sample {}, the dataset has {}", *stray, size));
  }
  return indices;
}

void DataLoader::Impl::end_pass() {
  if (pass) pass->cancel();
  ahead.reset();
  current = Batch();
  at_end = true;
}

void DataLoader::Impl::begin(std::int64_t epoch, std::int64_t first_batch) {
  demand(epoch >= 0, "epoch", "0 or more", epoch);
  demand(first_batch >= 0, "first_batch", "0 or more", first_batch);
  end_pass();
  to_load = to_hand_out = std::min(first_batch, batches());
  none_good = to_load == 0;
  waited = 0;
  const auto bound = static_cast<std::size_t>(options.num_workers) * static_cast<std::size_t>(options.prefetch_factor);
  pass = std::make_shared<Pass>(epoch, checked_indices(epoch), options.batch_size, to_load, batches(), bound);
  ++pass_number;
  workers.assign(pass);
  at_end = false;
  advance();
}

// Goes on to the next batch that has rows or an error, or else to the end.
void DataLoader::Impl::advance() {
  current = Batch();
  failure = nullptr;
  while (to_hand_out < pass->end()) {
    Loaded loaded = next_loaded();
    ++to_hand_out;
    hand_out(std::move(loaded));
    if (failure || current.ids.defined()) {
      none_good = false;
      look_ahead();
      return;
    }
  }
  if (none_good && !bad_samples.empty()) {
    none_good = false;
    failure = std::make_exception_ptr(
        DataError(fmt::format("[DataLoader] not one of the {} samples can be read; the first, {}: {}", sampler->size(),
                              bad_samples.front().path, bad_samples.front().reason)));
    return;
  }
  at_end = true;
}

Loaded DataLoader::Impl::next_loaded() {
  if (ahead) return *std::exchange(ahead, std::nullopt);
  Loaded loaded{next_result()};
  start_copy(loaded);
  return loaded;
}

ReadResult DataLoader::Impl::next_result() {
  const auto start = std::chrono::steady_clock::now();
  ReadResult result;
  if (options.num_workers == 0) {
    // One thread here too: the order of a sum must not depend on the number of workers.
    const ThreadLimit one_thread(1);
    result = pass->read(reader, to_load);
  } else {
    result = pass->queue.take();
  }
  ++to_load;
  waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

void DataLoader::Impl::start_copy(Loaded& loaded) const {
  if (!copier || !loaded.result.batch.ids.defined()) return;
  try {
    loaded.copy = copier->start(loaded.result.batch);
  } catch (...) {
    loaded.result.failure = std::current_exception();
  }
  loaded.result.batch = Batch();
}

// If the next batch has been read, its copy to the device starts now, and runs while the current one is used.
void DataLoader::Impl::look_ahead() {
  if (!copier || options.num_workers == 0 || to_load >= pass->end()) return;
  std::optional<ReadResult> result = pass->queue.try_take();
  if (!result) return;
  ++to_load;
  ahead = Loaded{std::move(*result)};
  start_copy(*ahead);
}

// Makes `loaded` the current batch, or its error the current failure.
void DataLoader::Impl::hand_out(Loaded loaded) {
  ReadResult& result = loaded.result;
  failure = result.failure;
  if (failure && !result.failed_sample.empty()) {
    log::error(fmt::format("[DataLoader] reading sample {} threw the error that follows", result.failed_sample));
  }
  if (!failure && !result.bad.empty()) note_bad(std::move(result.bad));
  if (!failure) current = loaded.copy ? copier->finish(std::move(*loaded.copy)) : std::move(result.batch);
}

void DataLoader::Impl::note_bad(std::vector<SampleError> bad) {
  if (options.bad_samples == BadSamplePolicy::throw_error) {
    failure = std::make_exception_ptr(bad_sample_error(bad.front()));
    return;
  }
  for (SampleError& sample : bad) {
    if (bad_indices.insert(sample.index).second) bad_samples.push_back(std::move(sample));
  }
}

DataLoader::DataLoader(std::shared_ptr<const Dataset> dataset, std::shared_ptr<const Sampler> sampler,
                       DataLoaderOptions options)
    : impl_(std::make_unique<Impl>(std::move(dataset), std::move(sampler), options)) {}

DataLoader::~DataLoader() = default;

Batch& DataLoader::Iterator::operator*() const {
  const Impl& impl = *loader_->impl_;
  if (*this == std::default_sentinel) {
    throw ConfigError("[DataLoader] this pass is over, or a later one has ended it: there is no batch to use");
  }
  if (impl.failure) std::rethrow_exception(impl.failure);
  return loader_->impl_->current;
}

DataLoader::Iterator& DataLoader::Iterator::operator++() {
  if (*this != std::default_sentinel) loader_->impl_->advance();
  return *this;
}

bool DataLoader::Iterator::operator==(std::default_sentinel_t) const {
  return loader_->impl_->at_end || loader_->impl_->pass_number != pass_;
}

DataLoader::Iterator DataLoader::Epoch::begin() {
  loader_->impl_->begin(epoch_, first_batch_);
  return {loader_, loader_->impl_->pass_number};
}

DataLoader::Epoch DataLoader::epoch(std::int64_t epoch, std::int64_t first_batch) { return {this, epoch, first_batch}; }

std::int64_t DataLoader::size() const { return impl_->batches(); }

const Dataset& DataLoader::dataset() const { return *impl_->dataset; }

const Sampler& DataLoader::sampler() const { return *impl_->sampler; }

const DataLoaderOptions& DataLoader::options() const { return impl_->options; }

std::int64_t DataLoader::next_batch() const { return impl_->to_hand_out; }

double DataLoader::wait_seconds() const { return impl_->waited; }

std::vector<SampleError> DataLoader::errors() const { return impl_->bad_samples; }

void require_readable(std::shared_ptr<const Dataset> dataset, std::string_view split) {
  if (dataset->size() == 0) throw DataError(fmt::format("[data] the {} split has no samples", split));
  DataLoader loader(dataset, std::make_shared<SequentialSampler>(dataset->size()),
                    {.bad_samples = BadSamplePolicy::skip});
  auto batches = loader.epoch(0);
  const auto first = batches.begin();
  const std::vector<SampleError> bad = loader.errors();
  if (static_cast<std::int64_t>(bad.size()) == dataset->size()) {
    throw DataError(fmt::format("[data] not one of the {} samples of the {} split can be read; the first, {}: {}",
                                bad.size(), split, bad.front().path, bad.front().reason));
  }
  *first;
}

}  // namespace mmtrain
