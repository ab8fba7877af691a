#pragma once

#include <stdexcept>
#include <string>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// Base of every error the library throws on purpose. The text names who, the rule, the value and the
/// remedy: `[Trainer] batch_size must be positive, got 0`. LibTorch's own `c10::Error` passes through.
class MMTRAIN_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Wrong use: flags, configuration files, options, unwritable output directory. Programs exit with 2.
class MMTRAIN_API ConfigError : public Error {
 public:
  using Error::Error;
};

/// Missing or broken input data, weights or checkpoints. Programs exit with 2.
class MMTRAIN_API DataError : public Error {
 public:
  using Error::Error;
};

/// A demanded device does not exist or cannot be used. Programs exit with 2.
class MMTRAIN_API DeviceError : public Error {
 public:
  using Error::Error;
};

/// A rank failed, timed out or disagreed with the others. Programs exit with 1.
class MMTRAIN_API DistributedError : public Error {
 public:
  using Error::Error;
};

}  // namespace mmtrain
