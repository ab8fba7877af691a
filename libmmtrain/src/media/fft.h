#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace mmtrain::media::detail {

/// Boundary of memory that transforms read and write.
inline constexpr std::size_t kFftAlignment = 64;

/// Zeros on such a boundary.
template <class T>
class AlignedArray {
 public:
  AlignedArray() = default;
  explicit AlignedArray(std::size_t size) : size_(size) {
    const std::size_t bytes = (size * sizeof(T) + kFftAlignment - 1) / kFftAlignment * kFftAlignment;
    values_.reset(static_cast<T*>(std::aligned_alloc(kFftAlignment, bytes)));
    if (values_ == nullptr) throw std::bad_alloc();
    for (std::size_t i = 0; i < size; ++i) values_[i] = T{};
  }

  T* data() const { return values_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(T* values) const { std::free(values); }
  };
  std::unique_ptr<T[], Free> values_;
  std::size_t size_ = 0;
};

/// The discrete Fourier transform of `size` complex numbers (real and imaginary parts in turn), not normalised; `T` is
/// float or double. FFTW's plans are made under a lock, chosen without measuring (so each run computes the same bits),
/// and kept for the process.
template <class T>
class Fft {
 public:
  explicit Fft(int size);

  /// Both arrays lie on `kFftAlignment` and do not overlap. Any number of threads at once.
  void operator()(const T* in, T* out) const;

 private:
  void* plan_;
};

extern template class Fft<float>;
extern template class Fft<double>;

}  // namespace mmtrain::media::detail
