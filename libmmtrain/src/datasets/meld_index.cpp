#include "datasets/meld_index.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <string_view>
#include <utility>

#include "datasets/directory.h"
#include "datasets/words.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/datasets/meld_annotations.h"

namespace mmtrain::datasets::detail {
namespace fs = std::filesystem;
namespace {

// The archives lie one in the other: MELD.Raw/train/train_splits.
constexpr int kDepth = 3;
constexpr std::string_view kCorrected = "final_videos_test";
constexpr std::size_t kNamedRows = 5;

// Takes `word` from the beginning of `text`.
bool take(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

std::optional<int> take_number(std::string_view& text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

// The split that a name speaks of: "dev_splits_complete", "output_repeated_splits_test", "train_sent_emo.csv".
std::string split_in(const std::string& name) {
  const std::string word = lower(name);
  const auto has = [&](std::string_view part) { return word.find(part) != word.npos; };
  if (has("train")) return "train";
  if (has("dev") || has("val")) return "dev";
  if (has("test")) return "test";
  return {};
}

// All folders from `root` down, the higher ones first, with the split that they or the nearest folder above name.
struct Folder {
  fs::path path;
  std::string split;
  DirectoryListing listing;
};

std::vector<Folder> folders_below(const fs::path& root) {
  std::vector<Folder> found{{root, {}, list_directory(root)}};
  std::size_t begin = 0;
  for (int depth = 0; depth < kDepth; ++depth) {
    const std::size_t end = found.size();
    for (std::size_t k = begin; k < end; ++k) {
      const std::vector<std::string> names = found[k].listing.folders;
      for (const std::string& name : names) {
        const std::string own = split_in(name);
        const fs::path path = found[k].path / name;
        found.push_back({path, own.empty() ? found[k].split : own, list_directory(path)});
      }
    }
    begin = end;
  }
  return found;
}

std::optional<fs::path> find_annotations(const std::vector<Folder>& folders, const std::string& split) {
  const std::string wanted = split + "_sent_emo.csv";
  for (const Folder& folder : folders) {
    for (const std::string& file : folder.listing.files) {
      if (lower(file) == wanted) return folder.path / file;
    }
  }
  return std::nullopt;
}

using ClipKey = std::pair<int, int>;

struct ClipFolder {
  fs::path path;
  std::map<ClipKey, std::string> clips;
};

std::map<ClipKey, std::string> clips_in(const Folder& folder) {
  std::map<ClipKey, std::string> clips;
  for (const std::string& file : folder.listing.files) {
    const std::optional<MeldClipName> name = parse_meld_clip_name(file);
    if (!name) continue;
    std::string& clip = clips[{name->dialogue, name->utterance}];
    if (clip.empty() || name->corrected) clip = file;
  }
  return clips;
}

// The folder of the split with most clips.
ClipFolder find_clips(const std::vector<Folder>& folders, const std::string& split) {
  ClipFolder best;
  for (const Folder& folder : folders) {
    if (folder.split != split) continue;
    std::map<ClipKey, std::string> clips = clips_in(folder);
    if (clips.size() > best.clips.size()) best = {folder.path, std::move(clips)};
  }
  return best;
}

void report_left_out(const fs::path& file, const std::vector<media::MalformedLine>& rows) {
  if (rows.empty()) return;
  std::string text = fmt::format("{}: {} rows are left out", file.string(), rows.size());
  for (std::size_t k = 0; k < std::min(rows.size(), kNamedRows); ++k) {
    text += fmt::format("\n  line {}: {}", rows[k].line, rows[k].reason);
  }
  log::warning(text);
}

}  // namespace

std::optional<MeldClipName> parse_meld_clip_name(const std::string& file) {
  constexpr std::array<std::string_view, 7> kExtensions{".mp4", ".avi", ".mkv", ".mov", ".mpg", ".mpeg", ".webm"};
  const std::string word = lower(file);
  std::string_view rest = word;
  MeldClipName name;
  name.corrected = take(rest, kCorrected);
  if (!take(rest, "dia")) return std::nullopt;
  const std::optional<int> dialogue = take_number(rest);
  if (!dialogue || !take(rest, "_utt")) return std::nullopt;
  const std::optional<int> utterance = take_number(rest);
  if (!utterance || std::find(kExtensions.begin(), kExtensions.end(), rest) == kExtensions.end()) return std::nullopt;
  name.dialogue = *dialogue;
  name.utterance = *utterance;
  return name;
}

bool has_meld_annotations(const fs::path& directory) {
  return find_annotations(folders_below(directory), "train").has_value();
}

MeldIndex index_meld(const fs::path& directory, const std::string& split) {
  if (split != "train" && split != "dev" && split != "test") {
    throw ConfigError(fmt::format("[MELD] the split must be train, dev or test, got '{}'", split));
  }
  std::error_code code;
  if (!fs::is_directory(directory, code)) {
    throw DataError(fmt::format("[MELD] there is no directory '{}'", directory.string()));
  }
  const std::vector<Folder> folders = folders_below(directory);
  const std::optional<fs::path> annotations = find_annotations(folders, split);
  if (!annotations) {
    throw DataError(
        fmt::format("[MELD] there is no {}_sent_emo.csv in '{}' nor {} folders below: give the directory "
                    "that holds MELD's annotations and clips",
                    split, directory.string(), kDepth));
  }
  const ClipFolder folder = find_clips(folders, split);
  if (folder.clips.empty()) {
    throw DataError(
        fmt::format("[MELD] there is no folder with clips diaD_uttU.mp4 of the {} split in '{}': its name "
                    "or that of a folder above has to speak of '{}'",
                    split, directory.string(), split));
  }
  const MeldAnnotations rows = read_meld_annotations(*annotations);
  report_left_out(*annotations, rows.left_out);
  if (rows.utterances.empty()) {
    throw DataError(fmt::format("[MELD] {} has no row that can be used", annotations->string()));
  }
  MeldIndex index{*annotations, folder.path, {}, {}, {}};
  for (const MeldUtterance& row : rows.utterances) {
    const auto clip = folder.clips.find({row.dialogue, row.utterance});
    const bool missing = clip == folder.clips.end();
    index.clips.push_back(folder.path /
                          (missing ? fmt::format("dia{}_utt{}.mp4", row.dialogue, row.utterance) : clip->second));
    index.missing.push_back(missing);
    index.labels.push_back(row.emotion);
  }
  return index;
}

}  // namespace mmtrain::datasets::detail
