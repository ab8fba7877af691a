#pragma once

#include "mmtrain/core/export.h"

namespace mmtrain {

/// Limits the threads that ATen, OpenMP and MKL start for operations of the calling thread, as long as the object
/// lives; other threads keep their setting. (`at::set_num_threads` would change MKL for the whole process.) Destroy it
/// on the thread that made it. Does nothing where LibTorch was built without OpenMP.
class MMTRAIN_API ThreadLimit {
 public:
  explicit ThreadLimit(int threads);
  ~ThreadLimit();
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;

 private:
  int openmp_before_, mkl_before_;
};

}  // namespace mmtrain
