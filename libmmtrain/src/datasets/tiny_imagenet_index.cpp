#include "datasets/tiny_imagenet_index.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "datasets/directory.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"

namespace mmtrain::datasets::detail {
namespace fs = std::filesystem;
namespace {

constexpr const char* kBlanks = "\t ";
constexpr std::size_t kNamed = 5;  // how many of a list a message names

using ClassIndex = std::unordered_map<std::string, std::int64_t>;

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw DataError("[TinyImageNet] " + fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  log::warning("[TinyImageNet] " + fmt::format(format, std::forward<Args>(args)...));
}

std::string first_of(const std::vector<std::string>& names) {
  const auto shown = std::min(names.size(), kNamed);
  return fmt::format("{}{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
                     names.size() > shown ? ", ..." : "");
}

// The lines of a text file, whatever their ends; blank ones are kept so that numbers count. Empty if there is none.
class Lines {
 public:
  explicit Lines(const fs::path& path) : path_(path.string()) {
    std::ifstream file(path, std::ios::binary);
    exists_ = file.is_open();
    text_.assign(std::istreambuf_iterator<char>(file), {});
    if (text_.starts_with("\xEF\xBB\xBF")) text_.erase(0, 3);
  }

  bool exists() const { return exists_; }

  // Calls `use(line, place)` for each line that is not blank; `place` is `file:line` for messages.
  template <class Use>
  void for_each(Use use) const {
    std::string_view rest = text_;
    for (std::size_t number = 1; !rest.empty(); ++number) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      const std::size_t last = line.find_last_not_of("\r\t ");
      if (last == line.npos) continue;
      line = line.substr(0, last + 1);
      use(line, [&] { return fmt::format("{}:{}", path_, number); });
    }
  }

 private:
  std::string path_, text_;
  bool exists_ = false;
};

bool has_layout(const fs::path& directory) {
  std::error_code error;
  return fs::is_regular_file(directory / "wnids.txt", error) || fs::is_directory(directory / "train", error);
}

fs::path checked_root(const fs::path& directory) {
  std::error_code error;
  if (!fs::exists(directory, error)) fail("there is no directory '{}'", directory.string());
  if (!fs::is_directory(directory, error)) fail("'{}' is not a directory", directory.string());
  if (auto root = find_tiny_imagenet(directory)) return *std::move(root);
  fail("'{}' has neither wnids.txt nor train/: expected wnids.txt, train/<wnid>/images/*.JPEG and val/",
       directory.string());
}

std::vector<std::string> read_wnids(const fs::path& root) {
  const fs::path path = root / "wnids.txt";
  const Lines lines(path);
  if (!lines.exists()) {
    std::vector<std::string> folders = list_directory(root / "train").folders;
    if (folders.empty()) fail("'{}' is missing, and train/ has no class folders", path.string());
    warn("'{}' is missing: the {} folders of train/ are the classes, in alphabetical order", path.string(),
         folders.size());
    return folders;
  }
  std::vector<std::string> wnids;
  std::unordered_set<std::string_view> seen;
  lines.for_each([&](std::string_view line, auto place) {
    if (line.find_first_of("\t /") != line.npos) fail("{}: expected one class, got '{}'", place(), line);
    if (!seen.insert(line).second) fail("{}: class '{}' is listed twice", place(), line);
    wnids.emplace_back(line);
  });
  if (wnids.empty()) fail("'{}' lists no classes", path.string());
  return wnids;
}

ClassIndex class_index(const std::vector<std::string>& wnids) {
  ClassIndex index;
  for (const std::string& wnid : wnids) index.emplace(wnid, static_cast<std::int64_t>(index.size()));
  return index;
}

std::vector<std::string> read_class_names(const fs::path& root, const std::vector<std::string>& wnids) {
  std::vector<std::string> names = wnids;
  const ClassIndex classes = class_index(wnids);
  Lines(root / "words.txt").for_each([&](std::string_view line, auto) {
    const std::size_t tab = line.find('\t');
    const auto found = classes.find(std::string(line.substr(0, tab)));
    if (tab == line.npos || found == classes.end()) return;
    const std::string_view words = line.substr(tab + 1);
    names[static_cast<std::size_t>(found->second)] = words.substr(0, words.find(','));
  });
  std::unordered_map<std::string, int> uses;
  for (const std::string& name : names) ++uses[name];
  for (std::size_t k = 0; k < names.size(); ++k) {
    if (uses[names[k]] > 1) names[k] += fmt::format(" ({})", wnids[k]);
  }
  return names;
}

std::vector<std::string> jpegs_in(const fs::path& directory) {
  std::vector<std::string> files = list_directory(directory).files;
  std::erase_if(files, [](const std::string& name) { return !has_jpeg_name(name); });
  return files;
}

// Images in one folder a class: <split>/<wnid>/images, or without the last part.
void add_class_folders(TinyImageNetIndex& index, const std::string& split) {
  std::vector<std::string> without_images;
  for (std::size_t k = 0; k < index.wnids.size(); ++k) {
    std::string folder = split + '/' + index.wnids[k] + "/images/";
    std::vector<std::string> names = jpegs_in(index.root / folder);
    if (names.empty()) {
      folder = split + '/' + index.wnids[k] + '/';
      names = jpegs_in(index.root / folder);
    }
    if (names.empty()) without_images.push_back(index.wnids[k]);
    for (const std::string& name : names) index.files.push_back(folder + name);
    index.labels.resize(index.files.size(), static_cast<std::int64_t>(k));
  }
  if (index.files.empty()) fail("'{}' has no images: expected <wnid>/images/*.JPEG", (index.root / split).string());
  if (!without_images.empty()) {
    warn("{} of {} classes have no images in {}/: {}", without_images.size(), index.wnids.size(), split,
         first_of(without_images));
  }
}

void warn_of_unlisted_folders(const TinyImageNetIndex& index, const std::string& split) {
  std::vector<std::string> unlisted = list_directory(index.root / split).folders;
  const ClassIndex classes = class_index(index.wnids);
  std::erase_if(unlisted, [&](const std::string& name) { return classes.contains(name); });
  if (unlisted.empty()) return;
  warn("{} folders of {}/ are not in wnids.txt and are left out: {}", unlisted.size(), split, first_of(unlisted));
}

void add_train(TinyImageNetIndex& index) {
  std::error_code error;
  if (!fs::is_directory(index.root / "train", error)) fail("'{}' is missing", (index.root / "train").string());
  add_class_folders(index, "train");
  warn_of_unlisted_folders(index, "train");
}

// All images in val/images, their classes in val_annotations.txt.
void add_annotated(TinyImageNetIndex& index, const Lines& annotations, const std::vector<std::string>& present) {
  const ClassIndex classes = class_index(index.wnids);
  std::unordered_set<std::string_view> annotated;
  annotations.for_each([&](std::string_view line, auto place) {
    const std::size_t name_end = line.find_first_of(kBlanks), label = line.find_first_not_of(kBlanks, name_end);
    if (name_end == 0 || label == line.npos) fail("{}: expected a file and its class, got '{}'", place(), line);
    const std::string wnid(line.substr(label, line.find_first_of(kBlanks, label) - label));
    const auto found = classes.find(wnid);
    if (found == classes.end()) {
      fail("{}: '{}' is not one of the {} classes of wnids.txt", place(), wnid, classes.size());
    }
    annotated.insert(line.substr(0, name_end));
    index.files.push_back("val/images/" + std::string(line.substr(0, name_end)));
    index.labels.push_back(found->second);
  });
  if (index.files.empty()) fail("'{}' names no images", (index.root / "val/val_annotations.txt").string());
  const auto unlabelled =
      std::count_if(present.begin(), present.end(), [&](const std::string& name) { return !annotated.contains(name); });
  if (unlabelled > 0) warn("{} files of val/images/ are not in val_annotations.txt and are left out", unlabelled);
}

void add_val(TinyImageNetIndex& index) {
  const fs::path val = index.root / "val";
  std::error_code error;
  if (!fs::is_directory(val, error)) fail("'{}' is missing", val.string());
  const Lines annotations(val / "val_annotations.txt");
  const std::vector<std::string> present = jpegs_in(val / "images");
  if (annotations.exists() && !present.empty()) return add_annotated(index, annotations, present);
  if (!present.empty())
    fail("'{}' is missing: it names the classes of val/images/", (val / "val_annotations.txt").string());
  add_class_folders(index, "val");
}

}  // namespace

std::optional<fs::path> find_tiny_imagenet(const fs::path& directory) {
  if (has_layout(directory)) return directory;
  std::vector<std::string> inside = list_directory(directory).folders;
  std::erase_if(inside, [&](const std::string& name) {
    return !name.starts_with("tiny-imagenet") || !has_layout(directory / name);
  });
  if (inside.size() != 1) return std::nullopt;
  return directory / inside[0];
}

TinyImageNetIndex index_tiny_imagenet(const fs::path& directory, const std::string& split) {
  if (split != "train" && split != "val") {
    throw ConfigError(fmt::format("[TinyImageNet] split must be train or val, got '{}'", split));
  }
  TinyImageNetIndex index;
  index.root = checked_root(directory);
  index.wnids = read_wnids(index.root);
  index.class_names = read_class_names(index.root, index.wnids);
  split == "train" ? add_train(index) : add_val(index);
  return index;
}

}  // namespace mmtrain::datasets::detail
