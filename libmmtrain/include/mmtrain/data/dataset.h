#pragma once

#include <torch/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mmtrain/batch/batch.h"
#include "mmtrain/core/export.h"
#include "mmtrain/core/random.h"

namespace mmtrain {

/// Name, shape and type of one tensor of a sample, without the batch dimension.
struct MMTRAIN_API TensorSpec {
  std::string name;
  std::vector<std::int64_t> shape;  ///< -1: the length differs between samples (`SampleDataset` only)
  torch::Dtype dtype = torch::kFloat32;

  bool fixed() const;          ///< no dimension is -1
  std::int64_t numel() const;  ///< elements of one sample; throws `ConfigError` unless the shape is fixed
  std::size_t nbytes() const;  ///< bytes of one sample; likewise
  bool operator==(const TensorSpec&) const = default;
};

/// What one sample of a dataset consists of.
struct DatasetSpec {
  std::vector<TensorSpec> inputs;
  TensorSpec target{"target", {}, torch::kInt64};  ///< an empty name: samples have no target
};

/// A sample that could not be read: a value, so that one broken file never ends a run.
struct SampleError {
  std::int64_t index = 0;
  std::string path;    ///< file or name of the sample
  std::string reason;  ///< what was wrong with it
};

/// The place of one sample inside a preallocated batch, and the random numbers that belong to it. A view: the memory
/// belongs to the batch and holds old bytes before it is written.
class MMTRAIN_API SampleSlot {
 public:
  SampleSlot(std::span<const std::span<std::byte>> inputs, std::span<std::byte> target, RandomStream random)
      : inputs_(inputs), target_(target), random_(random) {}

  /// Row-major memory of input `k` of this sample; sizes and types follow the dataset's spec.
  template <class T>
  std::span<T> input(std::size_t k) const {
    return {reinterpret_cast<T*>(inputs_[k].data()), inputs_[k].size() / sizeof(T)};
  }
  /// Memory of the target of this sample; empty if the spec has none.
  template <class T>
  std::span<T> target() const {
    return {reinterpret_cast<T*>(target_.data()), target_.size() / sizeof(T)};
  }
  /// Random numbers named by (seed, epoch, sample index): the same whatever thread loads the sample.
  RandomStream& random() { return random_; }

 private:
  std::span<const std::span<std::byte>> inputs_;
  std::span<std::byte> target_;
  RandomStream random_;
};

/// A finite set of samples, read by index from several threads at once.
class MMTRAIN_API Dataset {
 public:
  virtual ~Dataset() = default;

  virtual DatasetSpec spec() const = 0;
  virtual std::int64_t size() const = 0;

  /// Writes every byte of sample `index` into its place in a batch. Must be thread-safe. A sample that cannot be read
  /// throws `DataError` with the reason; the loader makes it a `SampleError`.
  virtual void write(std::int64_t index, SampleSlot& slot) const = 0;

  /// How messages call sample `index`: usually its path.
  virtual std::string sample_name(std::int64_t index) const { return "sample " + std::to_string(index); }

  /// Names of the classes by target value; empty where targets are not classes.
  virtual std::vector<std::string> class_names() const { return {}; }

  /// Class of each sample without reading it, for weighted sampling and class counts; empty if unknown.
  virtual std::vector<std::int64_t> labels() const { return {}; }
};

/// Samples of each class, by target value, as `labels()` has them: as many counts as there are class names, or labels.
MMTRAIN_API std::vector<std::int64_t> class_counts(const Dataset& dataset);

/// One sample as tensors, for sets where speed does not matter.
struct Sample {
  NamedTensors inputs;
  torch::Tensor target;
};

/// The simple way to write a dataset: return a sample. Dimensions given as -1 in `spec()` may differ between samples:
/// the loader pads them with zeros to the longest of the batch and adds, after the other inputs, an int64 input
/// `<name>_lengths [B]` (`[B,k]` where k dimensions of the tensor differ) with the true lengths.
class MMTRAIN_API SampleDataset : public Dataset {
 public:
  /// Reads sample `index`. Must be thread-safe; throws `DataError` with the reason if it cannot be read.
  virtual Sample get(std::int64_t index) const = 0;

  /// Copies `get(index)` into the slot (fixed shapes only). Throws `DataError` for a shape and `ConfigError` for a name
  /// or type that is not the spec's.
  void write(std::int64_t index, SampleSlot& slot) const override;
};

}  // namespace mmtrain
