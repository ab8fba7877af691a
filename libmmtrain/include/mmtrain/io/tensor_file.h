#pragma once

#include <filesystem>

#include "mmtrain/core/export.h"
#include "mmtrain/io/safetensors.h"
#include "mmtrain/io/state_dict.h"

namespace mmtrain {

/// How `load_safetensors` provides the tensors' memory.
enum class TensorLoad {
  copy,  ///< ordinary CPU tensors, independent of the file
  map,   ///< tensors over the mapped file, read when touched; writing into them never reaches the file. The mapping
         ///< lives as long as any of the tensors; the file must not be changed in place meanwhile
};

/// Tensors of a safetensors file, on the CPU, in the order of their bytes. Metadata:
/// `SafetensorsFile(path).metadata()`. Throws `DataError` as `SafetensorsFile` does.
MMTRAIN_API StateDict load_safetensors(const std::filesystem::path& path, TensorLoad load = TensorLoad::copy);

/// Writes `tensors`, of any device and layout in memory, through an `AtomicFile`; device tensors pass through the host
/// one at a time. Tensors that share memory are written once each. Throws `DataError` naming the tensor for undefined
/// or sparse ones and for types the format lacks (complex128, quantized), `Error` where the file cannot be written.
MMTRAIN_API void save_safetensors(const std::filesystem::path& path, const StateDict& tensors,
                                  const SafetensorsMetadata& metadata = {});

}  // namespace mmtrain
