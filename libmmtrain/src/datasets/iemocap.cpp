#include "mmtrain/datasets/iemocap.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "datasets/directory.h"
#include "datasets/words.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"

namespace mmtrain::datasets {
namespace fs = std::filesystem;
namespace {

using detail::list_directory;
using detail::trimmed;

constexpr int kSessions = 5;

// One line of an evaluation.
struct Turn {
  double start = 0, end = 0;
  std::string name;  // Ses01F_impro01_F000
  int emotion = 0;
};

std::optional<double> take_number(std::string_view& text) {
  text = trimmed(text);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  text = trimmed(text);
  return value;
}

std::optional<int> emotion_of(std::string_view label) {
  if (label == "neu") return 0;
  if (label == "hap" || label == "exc") return 1;
  if (label == "sad") return 2;
  if (label == "ang") return 3;
  return std::nullopt;
}

// `[6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5000, 2.5000, 2.5000]`; nothing for other lines and labels.
std::optional<Turn> parse_turn(std::string_view line) {
  line = trimmed(line);
  if (!line.starts_with('[')) return std::nullopt;
  line.remove_prefix(1);
  Turn turn;
  const std::optional<double> start = take_number(line);
  if (!start || !line.starts_with('-')) return std::nullopt;
  line.remove_prefix(1);
  const std::optional<double> end = take_number(line);
  if (!end || !line.starts_with(']')) return std::nullopt;
  line = trimmed(line.substr(1));
  const std::size_t tab = line.find('\t');
  if (tab == line.npos) return std::nullopt;
  turn.name = trimmed(line.substr(0, tab));
  const std::string_view rest = trimmed(line.substr(tab + 1));
  const std::optional<int> emotion = emotion_of(rest.substr(0, rest.find_first_of("\t ")));
  if (!emotion) return std::nullopt;
  turn.start = *start;
  turn.end = *end;
  turn.emotion = *emotion;
  return turn;
}

std::vector<Turn> read_turns(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw DataError(fmt::format("[IEMOCAP] cannot read '{}'", path.string()));
  std::vector<Turn> turns;
  for (std::string line; std::getline(file, line);) {
    if (std::optional<Turn> turn = parse_turn(line)) turns.push_back(std::move(*turn));
  }
  return turns;
}

fs::path evaluations_of(const fs::path& root, int session) {
  return root / fmt::format("Session{}", session) / "dialog" / "EmoEvaluation";
}

// The directory with the sessions: the given one or the only folder in it that has them.
std::optional<fs::path> find_root(const fs::path& directory) {
  const auto has_sessions = [](const fs::path& root) {
    std::error_code code;
    for (int session = 1; session <= kSessions; ++session) {
      if (fs::is_directory(evaluations_of(root, session), code)) return true;
    }
    return false;
  };
  if (has_sessions(directory)) return directory;
  for (const std::string& folder : list_directory(directory).folders) {
    if (has_sessions(directory / folder)) return directory / folder;
  }
  return std::nullopt;
}

std::vector<int> sessions_of(const std::string& split, int test_session) {
  const int dev_session = test_session == 1 ? kSessions : test_session - 1;
  if (split == "test") return {test_session};
  if (split == "dev") return {dev_session};
  if (split != "train") {
    throw ConfigError(fmt::format("[IEMOCAP] the split must be train, dev or test, got '{}'", split));
  }
  std::vector<int> sessions;
  for (int session = 1; session <= kSessions; ++session) {
    if (session != test_session && session != dev_session) sessions.push_back(session);
  }
  return sessions;
}

// Letter of the speaker: F or M, in the last part of the utterance's name.
char speaker_of(const std::string& utterance) {
  const std::size_t last = utterance.rfind('_');
  return last == utterance.npos || last + 1 == utterance.size() ? '?' : utterance[last + 1];
}

// Letter of who wears the markers: the last one of the first part of the dialog's name, `Ses01F`.
char marked_of(const std::string& dialog) {
  const std::size_t first = dialog.find('_');
  return first == dialog.npos || first == 0 ? '?' : dialog[first - 1];
}

ClipFile clip_of(const fs::path& session, const std::string& dialog, const Turn& turn, bool crop_speaker) {
  ClipFile clip{.video = session / "dialog" / "avi" / "DivX" / (dialog + ".avi"),
                .audio = session / "sentences" / "wav" / dialog / (turn.name + ".wav"),
                .start = turn.start,
                .duration = turn.end - turn.start,
                .name = turn.name};
  if (crop_speaker) clip.side = speaker_of(turn.name) == marked_of(dialog) ? ClipSide::left : ClipSide::right;
  std::error_code code;
  if (!fs::exists(clip.video, code)) {
    clip.problem = fmt::format("there is no picture of its dialog, '{}'", clip.video.string());
  } else if (!fs::exists(clip.audio, code)) {
    clip.problem = fmt::format("there is no sound of it, '{}'", clip.audio.string());
  } else if (clip.duration <= 0) {
    clip.problem = fmt::format("it ends at {} s, where it begins or before", turn.end);
  }
  return clip;
}

}  // namespace

const std::vector<std::string>& iemocap_emotions() {
  static const std::vector<std::string> names{"neutral", "happy", "sad", "angry"};
  return names;
}

bool is_iemocap(const fs::path& directory) { return find_root(directory).has_value(); }

std::shared_ptr<ClipDataset> iemocap(const fs::path& directory, const std::string& split,
                                     const IemocapOptions& iemocap_options, ClipDatasetOptions transform,
                                     const ClipOptions& options, const ClipCacheOptions& cache) {
  if (iemocap_options.test_session < 1 || iemocap_options.test_session > kSessions) {
    throw ConfigError(
        fmt::format("[IEMOCAP] test_session must be 1..{}, got {}", kSessions, iemocap_options.test_session));
  }
  const std::optional<fs::path> root = find_root(directory);
  if (!root) {
    throw DataError(
        fmt::format("[IEMOCAP] there is no Session1/dialog/EmoEvaluation (to Session5) in '{}'", directory.string()));
  }
  std::vector<ClipFile> clips;
  std::vector<std::int64_t> labels;
  const std::vector<int> sessions = sessions_of(split, iemocap_options.test_session);
  for (const int session : sessions) {
    const fs::path evaluations = evaluations_of(*root, session);
    for (const std::string& file : list_directory(evaluations).files) {
      if (!file.ends_with(".txt")) continue;
      const std::string dialog = file.substr(0, file.size() - 4);
      for (const Turn& turn : read_turns(evaluations / file)) {
        const fs::path folder = *root / fmt::format("Session{}", session);
        clips.push_back(clip_of(folder, dialog, turn, iemocap_options.crop_speaker));
        labels.push_back(turn.emotion);
      }
    }
  }
  if (clips.empty()) {
    throw DataError(fmt::format("[IEMOCAP] '{}' has no utterances of the {} split: session {} is needed",
                                root->string(), split, sessions.front()));
  }
  // The split's name alone would give all test sessions one cache.
  const std::string name = fmt::format("{}-session{}", split, iemocap_options.test_session);
  return std::make_shared<ClipDataset>(cached_clips(std::move(clips), options, cache, name, *root), std::move(labels),
                                       iemocap_emotions(), std::move(transform));
}

}  // namespace mmtrain::datasets
