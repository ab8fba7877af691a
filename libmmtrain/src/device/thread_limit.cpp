#include "mmtrain/device/thread_limit.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>

namespace mmtrain {
namespace {

using SetOpenMpThreads = void (*)(int);
using SetMklThreads = int (*)(int);  // returns the former limit of this thread, 0 for none

// The function of the runtime that LibTorch itself uses: linking OpenMP on our own could bring in a second one, whose
// setting ATen would never see.
template <class Function>
Function find_function(const char* name) {
  if (void* found = ::dlsym(RTLD_DEFAULT, name)) return reinterpret_cast<Function>(found);
  // A host that loaded LibTorch privately (a plugin, Python) hides it from the default search.
  void* torch = ::dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  return torch == nullptr ? nullptr : reinterpret_cast<Function>(::dlsym(torch, name));
}

void set_openmp_threads(int threads) {
  static const auto set = find_function<SetOpenMpThreads>("omp_set_num_threads");
  if (set != nullptr) set(threads);
}

int set_mkl_threads(int threads) {
  static const auto set = find_function<SetMklThreads>("MKL_Set_Num_Threads_Local");
  return set == nullptr ? 0 : set(threads);
}

// ATen sets a thread's number of threads at its first parallel operation, and would undo the limit then. It keeps the
// note that this is done once in its own library and once in ours (the flag is inline and hidden): do both now.
int openmp_threads() {
  at::internal::lazy_init_num_threads();
  return at::get_num_threads();
}

}  // namespace

ThreadLimit::ThreadLimit(int threads) : openmp_before_(openmp_threads()), mkl_before_(set_mkl_threads(threads)) {
  set_openmp_threads(threads);
}

ThreadLimit::~ThreadLimit() {
  set_openmp_threads(openmp_before_);
  set_mkl_threads(mkl_before_);
}

}  // namespace mmtrain
