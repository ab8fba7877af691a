#include "mmtrain/data/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>
#include <utility>

#include "mmtrain/core/error.h"
#include "mmtrain/core/random.h"

namespace mmtrain {
namespace {

std::int64_t checked_size(std::string_view who, std::int64_t size) {
  if (size < 0) throw ConfigError(fmt::format("[{}] the number of samples must not be negative, got {}", who, size));
  return size;
}

std::vector<std::int64_t> ascending(std::int64_t size) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(size));
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

RandomStream stream(std::uint64_t seed, std::int64_t epoch) {
  return RandomStream(seed, RandomDomain::sampler, static_cast<std::uint64_t>(epoch));
}

// Fisher-Yates: every permutation is equally likely.
void shuffle(std::vector<std::int64_t>& indices, RandomStream random) {
  for (std::size_t left = indices.size(); left > 1; --left) {
    const auto pick = static_cast<std::size_t>(random.uniform_int(static_cast<std::int64_t>(left)));
    std::swap(indices[left - 1], indices[pick]);
  }
}

const Sampler& checked_order(const std::shared_ptr<const Sampler>& order, std::int64_t rank, std::int64_t ranks) {
  if (order == nullptr) throw ConfigError("[DistributedSampler] there must be a sampler to share, got null");
  if (rank < 0 || rank >= ranks) {
    throw ConfigError(
        fmt::format("[DistributedSampler] the rank must be one of the {} from 0 on, got {}", ranks, rank));
  }
  return *order;
}

}  // namespace

SequentialSampler::SequentialSampler(std::int64_t size) : size_(checked_size("SequentialSampler", size)) {}

std::vector<std::int64_t> SequentialSampler::indices(std::int64_t) const { return ascending(size_); }

RandomSampler::RandomSampler(std::int64_t size, std::uint64_t seed)
    : size_(checked_size("RandomSampler", size)), seed_(seed) {}

std::vector<std::int64_t> RandomSampler::indices(std::int64_t epoch) const {
  std::vector<std::int64_t> indices = ascending(size_);
  shuffle(indices, stream(seed_, epoch));
  return indices;
}

WeightedSampler::WeightedSampler(std::vector<double> weights, std::int64_t count, std::uint64_t seed)
    : cumulative_(std::move(weights)), count_(checked_size("WeightedSampler", count)), seed_(seed) {
  double total = 0;
  for (std::size_t index = 0; index < cumulative_.size(); ++index) {
    const double weight = cumulative_[index];
    if (!(weight >= 0) || !std::isfinite(weight)) {
      throw ConfigError(
          fmt::format("[WeightedSampler] weights must be finite and not negative, number {} is {}", index, weight));
    }
    cumulative_[index] = total += weight;
  }
  if (count_ > 0 && !(total > 0 && std::isfinite(total))) {
    throw ConfigError(fmt::format("[WeightedSampler] the weights must have a positive, finite sum, got {}", total));
  }
}

std::vector<std::int64_t> WeightedSampler::indices(std::int64_t epoch) const {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count_));
  if (indices.empty()) return indices;
  RandomStream random = stream(seed_, epoch);
  // Rounding must not carry a draw up to the total itself, which lies behind the last sample.
  const double total = cumulative_.back(), limit = std::nextafter(total, 0.0);
  for (std::int64_t& index : indices) {
    const double draw = std::min(total * random.uniform(), limit);
    index = std::upper_bound(cumulative_.begin(), cumulative_.end(), draw) - cumulative_.begin();
  }
  return indices;
}

SubsetSampler::SubsetSampler(std::vector<std::int64_t> subset, bool shuffle, std::uint64_t seed)
    : subset_(std::move(subset)), shuffle_(shuffle), seed_(seed) {
  const auto negative = std::find_if(subset_.begin(), subset_.end(), [](std::int64_t index) { return index < 0; });
  if (negative != subset_.end()) {
    throw ConfigError(fmt::format("[SubsetSampler] sample indices must not be negative, got {}", *negative));
  }
}

std::vector<std::int64_t> SubsetSampler::indices(std::int64_t epoch) const {
  std::vector<std::int64_t> indices = subset_;
  if (shuffle_) shuffle(indices, stream(seed_, epoch));
  return indices;
}

DistributedSampler::DistributedSampler(std::shared_ptr<const Sampler> order, std::int64_t rank, std::int64_t ranks,
                                       bool drop)
    : order_(std::move(order)), rank_(rank), ranks_(ranks) {
  const std::int64_t samples = checked_order(order_, rank, ranks).size();
  size_ = drop ? samples / ranks : (samples + ranks - 1) / ranks;
  if (samples > 0 && size_ == 0) {
    throw ConfigError(fmt::format(
        "[DistributedSampler] {} samples for {} ranks: dropping the tail leaves nothing; pad, or use fewer ranks",
        samples, ranks));
  }
}

std::vector<std::int64_t> DistributedSampler::indices(std::int64_t epoch) const {
  const std::vector<std::int64_t> order = order_->indices(epoch);
  std::vector<std::int64_t> own(static_cast<std::size_t>(size_));
  for (std::size_t i = 0; i < own.size(); ++i) {
    own[i] = order[(static_cast<std::size_t>(rank_) + i * static_cast<std::size_t>(ranks_)) % order.size()];
  }
  return own;
}

std::int64_t DistributedSampler::real_size() const {
  return std::min(size_, (order_->size() - rank_ + ranks_ - 1) / ranks_);
}

}  // namespace mmtrain
