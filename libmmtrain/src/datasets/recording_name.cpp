#include "datasets/recording_name.h"

#include <array>
#include <charconv>
#include <optional>

namespace mmtrain::datasets::detail {
namespace {

struct Word {
  std::string_view text, meaning;
};

constexpr std::array kBehaviors{
    Word{"咳嗽", "cough"}, Word{"吞咽", "swallow"}, Word{"咀嚼", "chew"},   Word{"喝水", "drink"},
    Word{"说话", "talk"},  Word{"静息", "rest"},    Word{"cough", "cough"}, Word{"swallow", "swallow"},
    Word{"chew", "chew"},  Word{"drink", "drink"},  Word{"talk", "talk"},   Word{"rest", "rest"},
};

struct PlaceWord {
  std::string_view text;
  SensorPlace place;
};

constexpr std::array kPlaces{PlaceWord{"耳道", SensorPlace::ear}, PlaceWord{"喉咙", SensorPlace::throat},
                             PlaceWord{"ear-", SensorPlace::ear}, PlaceWord{"throat-", SensorPlace::throat}};

constexpr double kLongest = 86400;  // no recording lasts longer than a day

// The number between `before` and `after`, as 31 in `共31秒`, wherever that stands.
std::optional<double> number_between(std::string_view text, std::string_view before, std::string_view after) {
  for (std::size_t at = text.find(before); at != text.npos; at = text.find(before, at + 1)) {
    const char* const begin = text.data() + at + before.size();
    const char* const end = text.data() + text.size();
    double value = 0;
    const auto [stop, error] = std::from_chars(begin, end, value, std::chars_format::fixed);
    if (error != std::errc() || !(value > 0) || value > kLongest) continue;
    if (std::string_view(stop, static_cast<std::size_t>(end - stop)).starts_with(after)) return value;
  }
  return std::nullopt;
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// English words have to stand alone: there is a rest in forest.
bool has_word(std::string_view text, std::string_view word) {
  const std::size_t at = text.find(word);
  if (at == text.npos) return false;
  const bool begins = at > 0 && is_letter(text[at - 1]) && is_letter(word.front());
  const bool goes_on = at + word.size() < text.size() && is_letter(text[at + word.size()]) && is_letter(word.back());
  return !begins && !goes_on;
}

}  // namespace

RecordingName parse_recording_name(std::string_view stem) {
  RecordingName name;
  name.session = stem;
  std::size_t first = stem.npos;
  std::string_view place;
  for (const PlaceWord& word : kPlaces) {
    const std::size_t at = stem.find(word.text);
    if (at >= first) continue;
    first = at;
    place = word.text;
    name.place = word.place;
  }
  if (first != stem.npos) name.session.erase(first, place.size());
  for (const Word& word : kBehaviors) {
    if (!has_word(stem, word.text)) continue;
    name.behavior = word.meaning;
    break;
  }
  name.total_seconds = number_between(stem, "共", "秒").value_or(0);
  name.event_seconds = number_between(stem, "持续", "秒").value_or(0);
  name.every_seconds = number_between(stem, "每", "秒").value_or(0);
  if (name.every_seconds == 0) {
    const double pause = number_between(stem, "间隔", "秒").value_or(0);
    name.every_seconds = pause;  // from beginning to beginning, as the recordings show
  }
  return name;
}

}  // namespace mmtrain::datasets::detail
