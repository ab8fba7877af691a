#include "mmtrain/core/version.h"

#include <torch/version.h>

namespace mmtrain {

std::string version() { return MMTRAIN_VERSION; }

std::string torch_version() { return TORCH_VERSION; }

}  // namespace mmtrain
