#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

namespace mmtrain::parallel {

// The first line of what LibTorch or Gloo threw, without stack traces.
inline std::string error_text(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

inline std::string error_text(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& known) {
    return error_text(known);
  } catch (...) {
    return "unknown error";
  }
}

}  // namespace mmtrain::parallel
