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

}  // namespace mmtrain
