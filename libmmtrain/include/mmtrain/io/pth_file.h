#pragma once

#include <filesystem>

#include "mmtrain/core/export.h"
#include "mmtrain/io/state_dict.h"
#include "mmtrain/io/tensor_file.h"

namespace mmtrain {

/// Whether a file begins like one of `torch.save`, of the present format or the one before PyTorch 1.6. Throws
/// `DataError` if it cannot be read.
MMTRAIN_API bool is_pth(const std::filesystem::path& path);

/// Tensors of a file that Python wrote by `torch.save(module.state_dict(), path)`, on the CPU, in the dict's order; or
/// of a checkpoint, a dict that holds the state dict as `state_dict`, `model_state_dict` or `model`. Tensors that
/// shared memory in Python share it here.
///
/// The file is data: a restricted reader knows dicts, lists, numbers, text and dense tensors, and executes nothing. It
/// throws `DataError` naming file and reason for everything else: other globals by their name, whole modules, the
/// format before PyTorch 1.6, compressed archives, other byte orders, tensors that do not lie in their storage, and
/// whatever is truncated or damaged; also for entries of the state dict that are not tensors, `_extra_state` excepted.
MMTRAIN_API StateDict load_pth(const std::filesystem::path& path, TensorLoad load = TensorLoad::copy);

}  // namespace mmtrain
