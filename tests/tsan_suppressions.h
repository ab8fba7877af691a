#pragma once

// What ThreadSanitizer is told to leave out. LibTorch and libstdc++ are not built with it: it does not see the atomic
// reference counts inside them, and takes the end of what threads share for a race. All of it is their own code.
#ifdef __SANITIZE_THREAD__
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:c10::intrusive_ptr<\n"                              // the end of tensors, futures and works
         "race:c10::detail::atomic_combined_refcount_decrement\n"  // and what came before it
         "race:c10::ivalue::Future::~Future\n"
         "race:c10::SmallVectorImpl<\n"  // shapes, in memory used before by what such a count ended
         "race:at::TensorIteratorBase::\n"
         "race:c10d::ProcessGroupGloo::runLoop\n"
         "race:c10d::*Async*Work::~Async*Work\n"
         "race:torch::save\n"
         "race:std::__exception_ptr::exception_ptr::_M_release\n";
}
#endif
