#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// The order in which samples are visited: a pure function of the epoch, so that any epoch can be replayed or
/// resumed in its middle without saved state.
class MMTRAIN_API Sampler {
 public:
  virtual ~Sampler() = default;
  /// Sample indices of `epoch`, in order.
  virtual std::vector<std::int64_t> indices(std::int64_t epoch) const = 0;
  /// Number of indices in every epoch.
  virtual std::int64_t size() const = 0;
};

/// 0, 1, ..., size - 1.
class MMTRAIN_API SequentialSampler final : public Sampler {
 public:
  explicit SequentialSampler(std::int64_t size);
  std::vector<std::int64_t> indices(std::int64_t epoch) const override;
  std::int64_t size() const override { return size_; }

 private:
  std::int64_t size_;
};

/// A fresh permutation each epoch (Fisher-Yates on counter-based random numbers).
class MMTRAIN_API RandomSampler final : public Sampler {
 public:
  RandomSampler(std::int64_t size, std::uint64_t seed);
  std::vector<std::int64_t> indices(std::int64_t epoch) const override;
  std::int64_t size() const override { return size_; }

 private:
  std::int64_t size_;
  std::uint64_t seed_;
};

/// `count` draws with replacement, index i with probability proportional to weights[i] (not negative, not all 0).
class MMTRAIN_API WeightedSampler final : public Sampler {
 public:
  WeightedSampler(std::vector<double> weights, std::int64_t count, std::uint64_t seed);
  std::vector<std::int64_t> indices(std::int64_t epoch) const override;
  std::int64_t size() const override { return count_; }

 private:
  std::vector<double> cumulative_;
  std::int64_t count_;
  std::uint64_t seed_;
};

/// The given indices, shuffled each epoch or in the given order.
class MMTRAIN_API SubsetSampler final : public Sampler {
 public:
  SubsetSampler(std::vector<std::int64_t> subset, bool shuffle, std::uint64_t seed = 0);
  std::vector<std::int64_t> indices(std::int64_t epoch) const override;
  std::int64_t size() const override { return static_cast<std::int64_t>(subset_.size()); }

 private:
  std::vector<std::int64_t> subset_;
  bool shuffle_;
  std::uint64_t seed_;
};

/// One rank's share of another sampler's order: of `ranks` ranks, rank r takes entries r, r + ranks, r + 2 ranks, ...
/// of every epoch. At each moment the ranks have read the beginning of the epoch's order together, so that a run may go
/// on with another number of ranks. What varies from epoch to epoch does so as in the order: every rank wraps an equal
/// sampler.
///
/// All ranks get equally many. Where the samples do not divide evenly, entries from the beginning of the order are
/// repeated (over and over if there are fewer samples than ranks), so that some ranks end with one `padded` entry,
/// which metrics must not count; with `drop`, the tail of the order is left out.
class MMTRAIN_API DistributedSampler final : public Sampler {
 public:
  /// Throws `ConfigError` unless 0 <= rank < ranks, and if `drop` would leave nothing of samples that there are.
  DistributedSampler(std::shared_ptr<const Sampler> order, std::int64_t rank, std::int64_t ranks, bool drop = false);
  std::vector<std::int64_t> indices(std::int64_t epoch) const override;
  std::int64_t size() const override { return size_; }

  /// How many of the last entries of this rank repeat what others read already: 0 or 1.
  std::int64_t padded() const { return size_ - real_size(); }
  /// How many of the first entries of this rank are its own; of all ranks together, those of the order.
  std::int64_t real_size() const;

 private:
  std::shared_ptr<const Sampler> order_;
  std::int64_t rank_, ranks_, size_;
};

}  // namespace mmtrain
