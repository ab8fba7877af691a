#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

namespace mmtrain::datasets::detail {

// Makes `directory` by filling it under another name: it appears complete or not at all. Throws `ConfigError` if it is
// there and not empty, or cannot be made, and `Error` on a full disk; `who` names the caller in messages.
void make_directory(std::string_view who, const std::filesystem::path& directory,
                    const std::function<void(const std::filesystem::path& growing)>& fill);

}  // namespace mmtrain::datasets::detail
