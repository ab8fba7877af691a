#include "mmtrain/datasets/meld_annotations.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "datasets/words.h"
#include "mmtrain/media/csv.h"

namespace mmtrain::datasets {
namespace {

using detail::lower_trimmed;
using media::CsvReader;

std::optional<int> whole_number(std::string_view text) {
  text = detail::trimmed(text);
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

constexpr double kMostOfAPart = 1e6;  // hours, minutes or seconds; also refuses inf and nan

// `HH:MM:SS,mmm`, hours of one or two digits, with a comma or a dot; 0 for anything else.
double seconds(std::string_view text) {
  double total = 0;
  std::string word(detail::trimmed(text));
  std::replace(word.begin(), word.end(), ',', '.');
  const char* at = word.data();
  const char* const end = at + word.size();
  for (int part = 0; part < 3; ++part) {
    double value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc() || !(value >= 0 && value < kMostOfAPart)) return 0;
    total = 60 * total + value;
    if (part == 2) return next == end ? total : 0;
    if (next == end || *next != ':') return 0;
    at = next + 1;
  }
  return total;
}

class Columns {
 public:
  explicit Columns(const CsvReader& reader) : names_(reader.names()) {
    for (std::string& name : names_) name = lower_trimmed(name);
    dialogue = needed(reader, "Dialogue_ID");
    utterance = needed(reader, "Utterance_ID");
    emotion = needed(reader, "Emotion");
    speaker = find("speaker");
    text = find("utterance");
    start = find("starttime");
    end = find("endtime");
  }

  std::size_t dialogue, utterance, emotion;
  std::optional<std::size_t> speaker, text, start, end;

 private:
  std::optional<std::size_t> find(std::string_view name) const {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) return std::nullopt;
    return static_cast<std::size_t>(found - names_.begin());
  }
  std::size_t needed(const CsvReader& reader, std::string_view name) const {
    if (const auto found = find(lower_trimmed(name))) return *found;
    return reader.column(name);  // throws
  }

  std::vector<std::string> names_;
};

std::string field(const std::vector<std::string>& fields, const std::optional<std::size_t>& column) {
  return column ? fields[*column] : std::string();
}

MeldAnnotations read(CsvReader& reader) {
  const Columns columns(reader);
  const std::vector<std::string>& emotions = meld_emotions();
  MeldAnnotations result;
  while (reader.next()) {
    const std::vector<std::string>& fields = reader.fields();
    const std::optional<int> dialogue = whole_number(fields[columns.dialogue]),
                             utterance = whole_number(fields[columns.utterance]);
    const auto emotion = std::find(emotions.begin(), emotions.end(), lower_trimmed(fields[columns.emotion]));
    if (emotion == emotions.end()) {
      result.left_out.push_back({reader.line(), fmt::format("the emotion '{}' is none of {}", fields[columns.emotion],
                                                            fmt::join(emotions, ", "))});
    } else if (!dialogue || !utterance) {
      result.left_out.push_back({reader.line(), fmt::format("'{}' and '{}' are no numbers of dialogue and utterance",
                                                            fields[columns.dialogue], fields[columns.utterance])});
    } else {
      result.utterances.push_back({*dialogue, *utterance, static_cast<int>(emotion - emotions.begin()),
                                   field(fields, columns.speaker), field(fields, columns.text),
                                   seconds(field(fields, columns.start)), seconds(field(fields, columns.end))});
    }
  }
  result.left_out.insert(result.left_out.end(), reader.malformed().begin(), reader.malformed().end());
  std::sort(result.left_out.begin(), result.left_out.end(),
            [](const auto& a, const auto& b) { return a.line < b.line; });
  return result;
}

}  // namespace

const std::vector<std::string>& meld_emotions() {
  static const std::vector<std::string> names{"neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"};
  return names;
}

MeldAnnotations read_meld_annotations(const std::filesystem::path& path) {
  CsvReader reader(path);
  return read(reader);
}

MeldAnnotations parse_meld_annotations(std::span<const std::byte> text, const std::string& name) {
  CsvReader reader(text, name);
  return read(reader);
}

}  // namespace mmtrain::datasets
