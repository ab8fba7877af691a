#pragma once

#include "device/nvml.h"

namespace mmtrain {

// Free and total memory of a GPU that exists.
DeviceMemory cuda_memory(int index);

}  // namespace mmtrain
