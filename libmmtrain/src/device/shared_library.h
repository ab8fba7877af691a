#pragma once

#include <dlfcn.h>

namespace mmtrain {

// A library that may be absent, looked up at run time. It stays loaded for good: drivers do not survive unloading.
class SharedLibrary {
 public:
  explicit SharedLibrary(const char* name) : handle_(dlopen(name, RTLD_NOW | RTLD_LOCAL)) {}

  explicit operator bool() const { return handle_ != nullptr; }

  // Points `function` at the symbol `name`; false (and null) if there is none.
  template <class Function>
  bool load(const char* name, Function*& function) const {
    function = handle_ ? reinterpret_cast<Function*>(dlsym(handle_, name)) : nullptr;
    return function != nullptr;
  }

 private:
  void* handle_;
};

}  // namespace mmtrain
