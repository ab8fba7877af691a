#include "mmtrain/datasets/generate_emotion.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/parallel_for.h"
#include "datasets/new_directory.h"
#include "datasets/talking_face.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/random.h"
#include "mmtrain/datasets/meld_annotations.h"
#include "mmtrain/media/video_writer.h"

namespace mmtrain::datasets {
namespace fs = std::filesystem;
namespace {

using detail::Expression;
using detail::Tone;

constexpr int kEmotions = 7, kTurns = 7;  // of a dialogue
constexpr int kSampleRate = 16'000;
constexpr double kFrameRate = 8;
constexpr int kMostClips = 100'000, kMostSpeakers = 1'000;

// In the order of `meld_emotions()`.
struct Emotion {
  int rows;  // in MELD's training split
  Expression expression;
  Tone tone;
  const char* sentiment;
};
constexpr std::array<Emotion, kEmotions> kTable{{{4710, Expression::still, Tone::flat, "neutral"},
                                                 {1205, Expression::startled, Tone::drawn, "positive"},
                                                 {268, Expression::startled, Tone::flat, "negative"},
                                                 {683, Expression::still, Tone::drawn, "negative"},
                                                 {1743, Expression::grimace, Tone::loud, "positive"},
                                                 {271, Expression::grimace, Tone::flat, "negative"},
                                                 {1109, Expression::still, Tone::loud, "negative"}}};

constexpr std::array<const char*, 24> kNames{"Ada",   "Ben",  "Cleo", "Dan",  "Eva", "Finn", "Gina", "Hugo",
                                             "Iris",  "Jan",  "Kira", "Leo",  "Mia", "Noah", "Olga", "Paul",
                                             "Quinn", "Rosa", "Sam",  "Tara", "Udo", "Vera", "Will", "Zoe"};

// {} is the apostrophe.
constexpr std::array<const char*, 10> kSentences{"I don{}t know, maybe.",
                                                 "You said \"tomorrow\", didn{}t you?",
                                                 "Oh.",
                                                 "That{}s what I heard, too.",
                                                 "Wait, say that again!",
                                                 "Let{}s go.",
                                                 "He told me, she told him, and now it{}s everywhere...",
                                                 "What?",
                                                 "I can{}t talk about it now.",
                                                 "Well, here we are."};
constexpr std::string_view kApostrophe = "'", kCurlyUtf8 = "\xE2\x80\x99", kCurly1252 = "\x92";

struct Split {
  const char* name;      // of the annotations
  const char* folder;    // of the clips
  std::uint64_t stream;  // of random numbers
  int clips, speakers, first_speaker;
};

RandomStream stream(std::uint64_t seed, std::uint64_t kind, std::uint64_t index) {
  constexpr std::uint64_t kOwn = 100;  // beside those of the images
  return RandomStream(seed, RandomDomain::generator, kOwn + kind, index);
}
constexpr std::uint64_t kSpeakerStream = 10, kOrderStream = 11, kTextStream = 12;  // splits have 0..2

void demand(bool holds, std::string_view option, std::string_view rule, int value) {
  if (!holds) throw ConfigError(fmt::format("[generate_emotion] {} must be {}, got {}", option, rule, value));
}

void check(const GenerateEmotionOptions& options) {
  const auto clips = [](const char* name, int value) {
    demand(value >= kEmotions && value <= kMostClips, name, fmt::format("{}..{}", kEmotions, kMostClips), value);
  };
  const auto speakers = [](const char* name, int value) {
    demand(value >= 1 && value <= kMostSpeakers, name, fmt::format("1..{}", kMostSpeakers), value);
  };
  clips("train", options.train);
  clips("dev", options.dev);
  clips("test", options.test);
  speakers("train_speakers", options.train_speakers);
  speakers("dev_speakers", options.dev_speakers);
  speakers("test_speakers", options.test_speakers);
}

void write_file(const fs::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) throw Error(fmt::format("[generate_emotion] cannot write '{}': is the disk full?", path.string()));
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Emotion of each of `count` clips, by MELD's shares (each at least once), in random order.
std::vector<int> shuffled_emotions(int count, RandomStream random) {
  std::vector<int> rows(kEmotions, 1);
  const int all =
      std::accumulate(kTable.begin(), kTable.end(), 0, [](int sum, const Emotion& e) { return sum + e.rows; });
  int given = kEmotions;
  for (std::size_t k = 0; k < kTable.size(); ++k) {
    const int share = static_cast<int>(std::int64_t{count} * kTable[k].rows / all);
    given += std::max(share, 1) - rows[k];
    rows[k] = std::max(share, 1);
  }
  rows[0] += count - given;  // what rounding left, or took, is neutral
  std::vector<int> order;
  for (int emotion = 0; emotion < kEmotions; ++emotion) {
    order.insert(order.end(), static_cast<std::size_t>(std::max(rows[static_cast<std::size_t>(emotion)], 0)), emotion);
  }
  order.resize(static_cast<std::size_t>(count), 0);
  for (std::size_t left = order.size(); left > 1; --left) {
    std::swap(order[left - 1], order[static_cast<std::size_t>(random.uniform_int(static_cast<std::int64_t>(left)))]);
  }
  return order;
}

std::string time_text(double seconds) {
  const auto milliseconds = std::llround(1000 * seconds);
  return fmt::format("{:02}:{:02}:{:02},{:03}", milliseconds / 3'600'000, milliseconds / 60'000 % 60,
                     milliseconds / 1000 % 60, milliseconds % 1000);
}

// What one clip is like, before it is drawn.
struct Row {
  int dialogue, utterance, emotion, speaker;
  double seconds;
};

class Generator {
 public:
  Generator(fs::path root, const GenerateEmotionOptions& options)
      : root_(std::move(root)),
        options_(options),
        splits_{{{"train", "train_splits", 0, options.train, options.train_speakers, 0},
                 {"dev", "dev_splits_complete", 1, options.dev, options.dev_speakers, options.train_speakers},
                 {"test", "output_repeated_splits_test", 2, options.test, options.test_speakers,
                  options.train_speakers + options.dev_speakers}}} {
    const int speakers = options.train_speakers + options.dev_speakers + options.test_speakers;
    for (int k = 0; k < speakers; ++k) {
      RandomStream random = stream(options.seed, kSpeakerStream, static_cast<std::uint64_t>(k));
      speakers_.push_back(detail::random_speaker(random));
    }
  }

  GeneratedEmotion run() {
    for (const Split& split : splits_) {
      fs::create_directories(clips_of(split));
      std::vector<Row> rows = rows_of(split);
      mmtrain::detail::parallel_for(mmtrain::detail::machine_threads(), static_cast<std::int64_t>(rows.size()),
                                    [&](std::int64_t k) {
                                      const Row& row = rows[static_cast<std::size_t>(k)];
                                      write_clip(split, k, row, clips_of(split) / clip_name(row));
                                    });
      if (options_.quirks) plant(split, rows);
      write_annotations(split, rows);
    }
    return {.train = count_[0],
            .dev = count_[1],
            .test = count_[2],
            .bad_train = bad_[0],
            .bad_dev = bad_[1],
            .bad_test = bad_[2]};
  }

 private:
  // The published archives lie one in the other when they are unpacked where they are.
  fs::path top() const { return options_.quirks ? root_ / "MELD.Raw" : root_; }
  fs::path home_of(const Split& split) const { return options_.quirks && split.stream == 0 ? top() / "train" : top(); }
  fs::path clips_of(const Split& split) const { return home_of(split) / split.folder; }
  static std::string clip_name(const Row& row) { return fmt::format("dia{}_utt{}.mp4", row.dialogue, row.utterance); }

  std::vector<Row> rows_of(const Split& split) const;
  detail::TalkingFace draw(const Split& split, std::int64_t index, const Row& row) const;
  void write_clip(const Split& split, std::int64_t index, const Row& row, const fs::path& path) const;
  void plant(const Split& split, std::vector<Row>& rows);
  void plant_in_train(const Split& split, std::vector<Row>& rows);
  void plant_in_test(const Split& split, std::vector<Row>& rows);
  void write_annotations(const Split& split, const std::vector<Row>& rows);
  std::string sentence(const Split& split, std::size_t index) const;
  static Row behind(const std::vector<Row>& rows, const Row& like);

  const fs::path root_;
  const GenerateEmotionOptions options_;
  const std::array<Split, 3> splits_;
  std::vector<detail::Speaker> speakers_;
  std::array<std::int64_t, 3> count_{}, bad_{};
};

std::vector<Row> Generator::rows_of(const Split& split) const {
  RandomStream random = stream(options_.seed, kOrderStream, split.stream);
  const std::vector<int> emotions =
      shuffled_emotions(split.clips, stream(options_.seed, kOrderStream, 10 + split.stream));
  std::vector<Row> rows;
  int first = 0, second = 0;
  for (int k = 0; k < split.clips; ++k) {
    if (k % kTurns == 0) {  // a dialogue of two
      first = static_cast<int>(random.uniform_int(split.speakers));
      second = static_cast<int>(random.uniform_int(split.speakers));
    }
    rows.push_back({k / kTurns, k % kTurns, emotions[static_cast<std::size_t>(k)],
                    split.first_speaker + (k % 2 == 0 ? first : second), random.uniform(1.25, 1.75)});
  }
  return rows;
}

detail::TalkingFace Generator::draw(const Split& split, std::int64_t index, const Row& row) const {
  const Emotion& emotion = kTable[static_cast<std::size_t>(row.emotion)];
  RandomStream random = stream(options_.seed, split.stream, static_cast<std::uint64_t>(index));
  return detail::draw_talking_face(speakers_[static_cast<std::size_t>(row.speaker)],
                                   {.expression = emotion.expression, .tone = emotion.tone, .seconds = row.seconds},
                                   random);
}

void Generator::write_clip(const Split& split, std::int64_t index, const Row& row, const fs::path& path) const {
  const detail::TalkingFace clip = draw(split, index, row);
  media::write_clip(path, clip.frames, kFrameRate, {kSampleRate, 1, clip.voice});
}

// The next utterance of a dialogue of its own behind the others.
Row Generator::behind(const std::vector<Row>& rows, const Row& like) {
  Row row = like;
  row.dialogue = rows.back().dialogue + 1;
  row.utterance = 0;
  return row;
}

void Generator::plant(const Split& split, std::vector<Row>& rows) {
  const fs::path folder = clips_of(split);
  write_file(folder / fmt::format("._{}", clip_name(rows[0])), "Mac OS X");
  write_file(folder / ".DS_Store", "Bud1");
  if (split.stream == 0) plant_in_train(split, rows);
  if (split.stream == 1) {  // a row without a clip
    rows.push_back(behind(rows, rows[0]));
    bad_[1] = 1;
  }
  if (split.stream == 2) plant_in_test(split, rows);
}

void Generator::plant_in_train(const Split& split, std::vector<Row>& rows) {
  const fs::path folder = clips_of(split);
  const std::string whole = read_file(folder / clip_name(rows[0]));
  rows.push_back(behind(rows, rows[0]));
  write_file(folder / clip_name(rows.back()), std::string_view(whole).substr(0, whole.size() / 2));
  rows.push_back(behind(rows, rows[1]));
  media::write_clip(folder / clip_name(rows.back()), draw(split, 1, rows[1]).frames, kFrameRate);
  bad_[0] = 2;
  // 5.1 channels: the voice in the centre, fainter in front.
  const detail::TalkingFace clip = draw(split, 2, rows[2]);
  media::Audio surround{kSampleRate, 6, {}};
  for (const float sample : clip.voice) {
    for (const float share : {0.5F, 0.5F, 1.0F, 0.0F, 0.2F, 0.2F}) surround.samples.push_back(share * sample);
  }
  media::write_clip(folder / clip_name(rows[2]), clip.frames, kFrameRate, surround);
}

void Generator::plant_in_test(const Split& split, std::vector<Row>& rows) {
  const fs::path folder = clips_of(split);
  // The right clip has the prefix; under the plain name lies another.
  fs::rename(folder / clip_name(rows[0]), folder / ("final_videos_test" + clip_name(rows[0])));
  fs::copy_file(folder / clip_name(rows[1]), folder / clip_name(rows[0]));
  rows.push_back(behind(rows, rows[2]));
  write_file(folder / clip_name(rows.back()), "");
  bad_[2] = 1;
  // Somebody forgot to cut.
  rows.push_back(behind(rows, rows[3]));
  rows.back().seconds = 30;
  write_clip(split, 3, rows.back(), folder / clip_name(rows.back()));
}

std::string Generator::sentence(const Split& split, std::size_t index) const {
  RandomStream random = stream(options_.seed, kTextStream + split.stream, index);
  const std::string text = kSentences[static_cast<std::size_t>(random.uniform_int(kSentences.size()))];
  const std::string_view apostrophe = !options_.quirks ? kApostrophe : split.stream == 1 ? kCurly1252 : kCurlyUtf8;
  const std::size_t place = text.find("{}");
  std::string result =
      place == text.npos ? text : text.substr(0, place) + std::string(apostrophe) + text.substr(place + 2);
  if (result.find_first_of(",\"") == result.npos) return result;
  for (std::size_t at = 0; (at = result.find('"', at)) != result.npos; at += 2) result.insert(at, 1, '"');
  return '"' + result + '"';
}

void Generator::write_annotations(const Split& split, const std::vector<Row>& rows) {
  const char* end = options_.quirks ? "\r\n" : "\n";
  std::string text =
      "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime";
  text += end;
  double time = 61;
  for (std::size_t k = 0; k < rows.size(); ++k) {
    const Row& row = rows[k];
    const auto name = static_cast<std::size_t>(row.speaker);
    const bool nothing = options_.quirks && k == 1;  // a row of 0 s
    text += fmt::format("{},{},{}{},{},{},{},{},1,1,\"{}\",\"{}\"{}", k + 1, sentence(split, k),
                        kNames[name % kNames.size()], name < kNames.size() ? "" : std::to_string(name / kNames.size()),
                        meld_emotions()[static_cast<std::size_t>(row.emotion)],
                        kTable[static_cast<std::size_t>(row.emotion)].sentiment, row.dialogue, row.utterance,
                        time_text(time), time_text(time + (nothing ? 0 : row.seconds)), end);
    time += row.seconds + 0.5;
  }
  write_file(home_of(split) / fmt::format("{}_sent_emo.csv", split.name), text);
  count_[split.stream] = static_cast<std::int64_t>(rows.size());
}

}  // namespace

GeneratedEmotion generate_emotion(const fs::path& directory, const GenerateEmotionOptions& options) {
  check(options);
  GeneratedEmotion made;
  detail::make_directory("generate_emotion", directory,
                         [&](const fs::path& growing) { made = Generator(growing, options).run(); });
  return made;
}

}  // namespace mmtrain::datasets
