#include "bench/loading.h"

#include <chrono>
#include <iterator>
#include <thread>

#include "bench/measure.h"

namespace mmtrain::bench {
namespace {

// Takes batches from one epoch after another.
class EndlessBatches {
 public:
  explicit EndlessBatches(DataLoader& loader) : loader_(loader), position_(loader.epoch(0).begin()) {}

  std::int64_t next() {
    if (position_ == std::default_sentinel) {
      waited_ += loader_.wait_seconds();
      position_ = loader_.epoch(++epoch_).begin();
    }
    const std::int64_t rows = (*position_).size();
    ++position_;
    return rows;
  }
  double waited() const { return waited_ + loader_.wait_seconds(); }

 private:
  DataLoader& loader_;
  std::int64_t epoch_ = 0;
  double waited_ = 0;
  DataLoader::Iterator position_;
};

}  // namespace

LoadingRates measure_loading(DataLoader& loader, std::int64_t samples, double seconds, double consume_rate) {
  EndlessBatches batches(loader);
  for (std::int64_t rows = 0; rows < samples;) rows += batches.next();

  LoadingRates measured;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const Clock::time_point start = Clock::now();
    const double waited = batches.waited();
    std::int64_t rows = 0;
    while (seconds_since(start) < seconds / kRepeats) {
      rows += batches.next();
      if (consume_rate > 0) {
        std::this_thread::sleep_until(start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
                                                  static_cast<double>(rows) / consume_rate)));
      }
    }
    const double elapsed = seconds_since(start);
    measured.rates.push_back(static_cast<double>(rows) / elapsed);
    measured.waits.push_back(100 * (batches.waited() - waited) / elapsed);
  }
  return measured;
}

}  // namespace mmtrain::bench
