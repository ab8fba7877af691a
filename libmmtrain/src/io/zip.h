#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace mmtrain::detail {

// What is wrong with an archive.
struct ZipError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A file in an archive: its bytes as they are.
struct ZipEntry {
  std::string name;
  std::span<const std::byte> data;
};

// The files of the zip archive (PKWARE's APPNOTE 6.3.9, with zip64) that `archive` holds, in the order of its
// directory. Only stored files of one volume are known, as PyTorch writes them. Every span lies inside `archive`,
// whatever it holds; checksums are not compared, as PyTorch may leave them out. Throws `ZipError`.
std::vector<ZipEntry> read_zip(std::span<const std::byte> archive);

}  // namespace mmtrain::detail
