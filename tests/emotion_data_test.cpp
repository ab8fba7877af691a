#include <torch/torch.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "catch.h"
#include "data_fixtures.h"
#include "datasets/meld_index.h"
#include "mmtrain/core/error.h"
#include "mmtrain/data/data_loader.h"
#include "mmtrain/data/decode_cache.h"
#include "mmtrain/datasets/clips.h"
#include "mmtrain/datasets/generate_emotion.h"
#include "mmtrain/datasets/iemocap.h"
#include "mmtrain/datasets/meld.h"
#include "mmtrain/datasets/meld_annotations.h"
#include "mmtrain/media/video_writer.h"

using namespace mmtrain;
using namespace mmtrain::datasets;
using Catch::Matchers::Contains;
using fixtures::LogCapture;
using fixtures::read_text;
using fixtures::TempDir;
using fixtures::write_text;
namespace fs = std::filesystem;

namespace {

constexpr GenerateEmotionOptions kSmall{
    .seed = 5, .train = 14, .dev = 7, .test = 7, .train_speakers = 3, .dev_speakers = 2, .test_speakers = 2};
constexpr ClipOptions kClips{.frames = 2, .image_size = 32, .mel_bins = 32, .mel_frames = 160};

GenerateEmotionOptions with_quirks() {
  GenerateEmotionOptions options = kSmall;
  options.quirks = true;
  return options;
}

MeldAnnotations parse(const std::string& text) {
  return parse_meld_annotations(std::as_bytes(std::span(text)), "notes.csv");
}

// All files below a directory by name.
std::map<std::string, std::string> files_of(const fs::path& root) {
  std::map<std::string, std::string> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root)) {
    if (entry.is_regular_file()) files[fs::relative(entry.path(), root).string()] = read_text(entry.path());
  }
  return files;
}

// One pass over a split; bad samples land in `errors()`.
struct Pass {
  std::vector<std::int64_t> ids;
  std::vector<SampleError> errors;
  std::int64_t batches = 0;
};

Pass read_all(const std::shared_ptr<const Dataset>& data, int workers = 0) {
  DataLoader loader(data, std::make_shared<SequentialSampler>(data->size()),
                    {.batch_size = 4, .num_workers = workers, .bad_samples = BadSamplePolicy::skip});
  Pass pass;
  for (int epoch = 0; epoch < 2; ++epoch) {
    pass.ids.clear();
    for (const Batch& batch : loader.epoch(epoch)) {
      for (std::int64_t row = 0; row < batch.size(); ++row) pass.ids.push_back(batch.ids[row].item<std::int64_t>());
      ++pass.batches;
    }
  }
  pass.errors = loader.errors();
  return pass;
}

std::vector<std::vector<std::byte>> fields_of(const SampleSource& source, std::int64_t index) {
  SampleSource::Scratch scratch;
  std::vector<std::vector<std::byte>> fields;
  for (const auto& field : source.read(index, scratch)) fields.emplace_back(field.begin(), field.end());
  return fields;
}

std::int32_t mel_length(const SampleSource& source, std::int64_t index) {
  std::int32_t length = 0;
  std::memcpy(&length, fields_of(source, index)[2].data(), sizeof(length));
  return length;
}

// A wav file of 16-bit samples at 16 kHz.
void write_wav(const fs::path& path, const std::vector<float>& samples) {
  const auto bytes = static_cast<std::uint32_t>(2 * samples.size());
  std::string text;
  const auto number = [&](std::uint32_t value, int size) {
    for (int k = 0; k < size; ++k) text += static_cast<char>(value >> (8 * k));
  };
  text += "RIFF";
  number(36 + bytes, 4);
  text += "WAVEfmt ";
  number(16, 4);
  number(1, 2);
  number(1, 2);
  number(16000, 4);
  number(32000, 4);
  number(2, 2);
  number(16, 2);
  text += "data";
  number(bytes, 4);
  for (const float sample : samples) number(static_cast<std::uint16_t>(std::lround(sample * 32000)), 2);
  write_text(path, text);
}

std::vector<float> tone(double seconds) {
  std::vector<float> samples(static_cast<std::size_t>(16000 * seconds));
  for (std::size_t n = 0; n < samples.size(); ++n) samples[n] = 0.3F * std::sin(0.2F * static_cast<float>(n));
  return samples;
}

// `count` frames whose left half is red and whose right half is blue.
std::vector<media::Image> halves(int count) {
  media::Image image{48, 96, {}};
  for (int pixel = 0; pixel < 48 * 96; ++pixel) {
    const bool left = pixel % 96 < 48;
    for (const int value : {left ? 220 : 20, 20, left ? 20 : 220}) {
      image.pixels.push_back(static_cast<std::uint8_t>(value));
    }
  }
  return std::vector<media::Image>(static_cast<std::size_t>(count), image);
}

}  // namespace

TEST_CASE("MELD's annotations are read with quotes, CRLF, either encoding and columns in any order", "[meld]") {
  const MeldAnnotations notes = parse(
      "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\r\n"
      "1,\"Well, \"\"fine\"\", I\x92m off\",Ross,Neutral ,neutral,3,0,8,21,\"00:16:16,059\",\"0:16:21,731\"\r\n"
      "7,Oh,Joey,joy,positive,3,12,8,21,\"00:16:21,940\",\"00:16:21,940\"\r\n");
  REQUIRE(notes.utterances.size() == 2);
  CHECK(notes.left_out.empty());
  CHECK(notes.utterances[0].text == "Well, \"fine\", I\xE2\x80\x99m off");
  CHECK(notes.utterances[0].emotion == 0);
  CHECK(notes.utterances[0].speaker == "Ross");
  CHECK(notes.utterances[0].start == Approx(976.059));
  CHECK(notes.utterances[0].end == Approx(981.731));
  CHECK(notes.utterances[1].dialogue == 3);
  CHECK(notes.utterances[1].utterance == 12);
  CHECK(meld_emotions()[static_cast<std::size_t>(notes.utterances[1].emotion)] == "joy");

  const MeldAnnotations other = parse("Utterance_ID,emotion,Dialogue_ID\n5,anger,2\n");
  REQUIRE(other.utterances.size() == 1);
  CHECK(other.utterances[0].dialogue == 2);
  CHECK(other.utterances[0].utterance == 5);
}

TEST_CASE("Rows of MELD's annotations that cannot be used are left out with their lines", "[meld]") {
  const MeldAnnotations notes =
      parse("Emotion,Dialogue_ID,Utterance_ID\nbored,1,1\njoy,one,1\njoy,1,-2\njoy,1\nfear,1,3\n");
  REQUIRE(notes.utterances.size() == 1);
  CHECK(notes.utterances[0].utterance == 3);
  REQUIRE(notes.left_out.size() == 4);
  CHECK(notes.left_out[0].line == 2);
  CHECK_THAT(notes.left_out[0].reason, Contains("'bored'"));
  CHECK(notes.left_out[3].line == 5);
  CHECK_THROWS_WITH(parse("Emotion,Dialogue_ID\njoy,1\n"), Contains("Utterance_ID") && Contains("notes.csv"));
}

TEST_CASE("Clip names of MELD are told from other files", "[meld]") {
  const auto name = datasets::detail::parse_meld_clip_name;
  CHECK(name("dia12_utt3.mp4")->dialogue == 12);
  CHECK(name("dia12_utt3.mp4")->utterance == 3);
  CHECK_FALSE(name("dia12_utt3.mp4")->corrected);
  CHECK(name("final_videos_testdia0_utt14.MP4")->corrected);
  for (const char* other : {"._dia1_utt2.mp4", "dia1_utt2.txt", "dia1_utt.mp4", "dia_utt2.mp4", "dia1_utt2_x.mp4",
                            "dia99999999999_utt1.mp4", "xdia1_utt2.mp4", ""}) {
    INFO(other);
    CHECK_FALSE(name(other));
  }
}

TEST_CASE("Generated emotion data is the same for the same seed and has MELD's shares", "[generate_emotion]") {
  const TempDir dir;
  const GeneratedEmotion made = generate_emotion(dir.path() / "a", kSmall);
  generate_emotion(dir.path() / "b", kSmall);
  GenerateEmotionOptions other_seed = kSmall;
  other_seed.seed = 6;
  generate_emotion(dir.path() / "c", other_seed);
  const auto a = files_of(dir.path() / "a"), b = files_of(dir.path() / "b"), c = files_of(dir.path() / "c");
  CHECK(a == b);
  CHECK(a.at("train_splits/dia0_utt0.mp4") != c.at("train_splits/dia0_utt0.mp4"));
  CHECK(made.train == 14);
  CHECK(made.bad_train + made.bad_dev + made.bad_test == 0);

  std::set<std::string> seen;
  for (const auto& [split, speakers] : {std::pair("train", 3U), std::pair("dev", 2U), std::pair("test", 2U)}) {
    const MeldAnnotations notes = read_meld_annotations(dir.path() / "a" / (std::string(split) + "_sent_emo.csv"));
    std::set<std::string> here;
    std::map<int, int> rows;
    for (const MeldUtterance& one : notes.utterances) {
      here.insert(one.speaker);
      ++rows[one.emotion];
    }
    CHECK(rows.size() == 7);  // every emotion
    CHECK(here.size() <= speakers);
    for (const std::string& speaker : here) CHECK(seen.insert(speaker).second);
  }
  std::size_t bytes = 0;
  for (const auto& [name, content] : a) bytes += content.size();
  CHECK(bytes / 28 < 24'000);  // 420 clips take less than 10 MB

  CHECK_THROWS_WITH(generate_emotion(dir.path() / "a", kSmall), Contains("not empty"));
  CHECK_THROWS_AS(generate_emotion(dir.path() / "d", {.train = 3}), ConfigError);
  CHECK_FALSE(fs::exists(dir.path() / "d"));
}

TEST_CASE("The shares of emotions in the default demo are those of MELD", "[generate_emotion]") {
  // 4710, 1205, 268, 683, 1743, 271, 1109 of 9989: half is neutral.
  const TempDir dir;
  GenerateEmotionOptions options = kSmall;
  options.train = 100;
  generate_emotion(dir.path() / "a", options);
  std::vector<int> rows(7);
  for (const MeldUtterance& one : read_meld_annotations(dir.path() / "a/train_sent_emo.csv").utterances) {
    ++rows[static_cast<std::size_t>(one.emotion)];
  }
  CHECK(rows == std::vector<int>{50, 12, 2, 6, 17, 2, 11});
}

TEST_CASE("A split of MELD becomes batches of frames and spectrograms", "[meld]") {
  const TempDir dir;
  generate_emotion(dir.path() / "data", kSmall);
  REQUIRE(is_meld(dir.path() / "data"));
  CHECK_FALSE(is_meld(dir.path() / "nowhere"));
  const auto train = meld(dir.path() / "data", "train", {}, kClips);
  CHECK(train->size() == 14);
  CHECK(train->class_names() == meld_emotions());
  DataLoader loader(train, std::make_shared<SequentialSampler>(14), {.batch_size = 3, .num_workers = 2});
  for (const Batch& batch : loader.epoch(0)) {
    CHECK(batch.input("image").sizes() == torch::IntArrayRef({batch.size(), 2, 3, 32, 32}));
    CHECK(batch.input("mel").sizes() == torch::IntArrayRef({batch.size(), 32, 160}));
    CHECK(batch.input("mel").min().item<float>() >= -3);
    CHECK(batch.input("mel").std().item<float>() > 0.3);
    CHECK(batch.input("image").std().item<float>() > 0.3);
    break;
  }
  // One frame has no dimension of its own; an input that is not wanted is left out.
  ClipOptions single = kClips;
  single.frames = 1;
  const DatasetSpec spec = meld(dir.path() / "data", "dev", {.audio = false}, single)->spec();
  REQUIRE(spec.inputs.size() == 1);
  CHECK(spec.inputs[0].shape == std::vector<std::int64_t>{3, 32, 32});
}

TEST_CASE("The same clip is augmented alike in all frames, and otherwise in the next epoch", "[clips]") {
  const TempDir dir;
  write_text(dir.path() / "x", "");
  media::write_clip(dir.path() / "still.mp4", halves(8), 8, {16000, 1, tone(1.0)});
  const auto source = std::make_shared<ClipFiles>(std::vector<ClipFile>{{dir.path() / "still.mp4"}}, kClips);
  const ClipDatasetOptions augment{.image = media::ImageTransform({media::RandomResizedCrop{32, 32},
                                                                   media::RandomHorizontalFlip{}, media::Normalize{}}),
                                   .mel = {.time_shift = 20, .gain = 3, .time_mask = 20, .frequency_mask = 8}};
  const auto data = std::make_shared<ClipDataset>(source, std::vector<std::int64_t>{0}, meld_emotions(), augment);
  DataLoader loader(data, std::make_shared<SequentialSampler>(1), {});
  const auto batch_of = [&](std::int64_t epoch) { return *loader.epoch(epoch).begin(); };
  const Batch first = batch_of(0), again = batch_of(0), next = batch_of(1);
  CHECK(torch::equal(first.input("image"), again.input("image")));
  CHECK(torch::equal(first.input("mel"), again.input("mel")));
  CHECK_FALSE(torch::equal(first.input("image"), next.input("image")));
  CHECK_FALSE(torch::equal(first.input("mel"), next.input("mel")));
  const torch::Tensor frames = first.input("image")[0];
  CHECK((frames[0] - frames[1]).abs().mean().item<float>() < 0.1);  // up to the video codec
}

TEST_CASE("Every fault of the real collection is met: bad clips are named once, the rest is as without", "[meld]") {
  const TempDir dir;
  generate_emotion(dir.path() / "plain", kSmall);
  const GeneratedEmotion made = generate_emotion(dir.path() / "odd", with_quirks());
  CHECK(made.bad_train == 2);
  CHECK(made.bad_dev == 1);
  CHECK(made.bad_test == 1);
  const std::map<std::string, std::pair<std::int64_t, std::int64_t>> counts{
      {"train", {made.train, made.bad_train}}, {"dev", {made.dev, made.bad_dev}}, {"test", {made.test, made.bad_test}}};
  for (const auto& [split, count] : counts) {
    INFO(split);
    const LogCapture log;
    const auto plain = meld(dir.path() / "plain", split, {}, kClips), odd = meld(dir.path() / "odd", split, {}, kClips);
    CHECK(log.text().empty());  // no row is left out
    CHECK(odd->size() == count.first);
    const Pass pass = read_all(odd), parallel = read_all(odd, 3);
    CHECK(static_cast<std::int64_t>(pass.errors.size()) == count.second);
    CHECK(static_cast<std::int64_t>(pass.ids.size()) == count.first - count.second);
    CHECK(parallel.ids == pass.ids);
    CHECK(parallel.errors.size() == pass.errors.size());
    for (const SampleError& error : pass.errors) CHECK_FALSE(error.reason.empty());
    // The classes and the clips that were there before are the same.
    for (std::int64_t k = 0; k < plain->size(); ++k) {
      INFO(k);
      CHECK(odd->labels()[static_cast<std::size_t>(k)] == plain->labels()[static_cast<std::size_t>(k)]);
      const auto before = fields_of(plain->source(), k), now = fields_of(odd->source(), k);
      CHECK((now[0] == before[0]));
      if (split != "train" || k != 2) CHECK((now[1] == before[1]));  // but the sound of the one with 5.1 channels
      CHECK((now[2] == before[2]));
    }
  }
  const auto reasons = [&](const std::string& split) {
    std::string text;
    for (const SampleError& error : read_all(meld(dir.path() / "odd", split, {}, kClips)).errors) {
      text += error.path + ": " + error.reason + "\n";
    }
    return text;
  };
  CHECK_THAT(reasons("train"), Contains("dia2_utt0.mp4") && Contains("dia3_utt0.mp4: it has no sound"));
  CHECK_THAT(reasons("dev"), Contains("dia1_utt0.mp4") && Contains("there is no such clip"));
  CHECK_THAT(reasons("test"), Contains("dia1_utt0.mp4"));
}

TEST_CASE("A clip without sound serves where sound is not asked for", "[meld]") {
  const TempDir dir;
  generate_emotion(dir.path() / "odd", with_quirks());
  CHECK(read_all(meld(dir.path() / "odd", "train", {.audio = false}, kClips)).errors.size() == 1);
  CHECK(read_all(meld(dir.path() / "odd", "train", {.visual = false}, kClips)).errors.size() == 2);
}

TEST_CASE("Of two test clips of one name the corrected one is taken", "[meld]") {
  const TempDir dir;
  generate_emotion(dir.path() / "odd", with_quirks());
  const auto test = meld(dir.path() / "odd", "test", {}, kClips);
  CHECK_THAT(test->sample_name(0), Catch::EndsWith("final_videos_testdia0_utt0.mp4"));
  CHECK_THAT(test->sample_name(1), Catch::EndsWith("/dia0_utt1.mp4"));
}

TEST_CASE("Long clips are looked at in their first seconds only", "[clips]") {
  const TempDir dir;
  generate_emotion(dir.path() / "odd", with_quirks());
  const auto test = meld(dir.path() / "odd", "test", {}, kClips);
  const std::int64_t longest = test->size() - 1;
  CHECK(mel_length(test->source(), longest) == 160);
  ClipOptions brief = kClips, whole = kClips;
  brief.max_seconds = 1;
  whole.max_seconds = 40;
  const auto one = meld(dir.path() / "odd", "test", {}, brief), all = meld(dir.path() / "odd", "test", {}, whole);
  CHECK(mel_length(one->source(), longest) <= 102);
  CHECK(mel_length(one->source(), longest) >= 98);
  CHECK((fields_of(one->source(), longest)[0] != fields_of(all->source(), longest)[0]));
}

TEST_CASE("Silence of digital zeros is no sound", "[clips]") {
  const TempDir dir;
  media::write_clip(dir.path() / "silent.mp4", halves(8), 8, {16000, 1, std::vector<float>(16000)});
  const auto source = std::make_shared<ClipFiles>(std::vector<ClipFile>{{dir.path() / "silent.mp4"}}, kClips);
  const ClipDataset data(source, {0}, meld_emotions());
  CHECK(mel_length(*source, 0) == -1);
  const Pass pass = [&] {
    try {
      return read_all(std::make_shared<ClipDataset>(data));
    } catch (const DataError& error) {  // an epoch without a good sample
      return Pass{{}, {{0, "", error.what()}}};
    }
  }();
  CHECK_FALSE(pass.errors.empty());
}

TEST_CASE("Clips of the cache are those of the files", "[meld][cache]") {
  const TempDir dir;
  generate_emotion(dir.path() / "odd", with_quirks());
  const ClipCacheOptions cache{.cache = (dir.path() / "cache").string(), .num_workers = 2};
  const LogCapture log;
  const auto files = meld(dir.path() / "odd", "train", {}, kClips),
             cached = meld(dir.path() / "odd", "train", {}, kClips, cache);
  const auto again = meld(dir.path() / "odd", "train", {}, kClips, cache);
  CHECK(dynamic_cast<const DecodeCache*>(&again->source()) != nullptr);
  for (std::int64_t k = 0; k < 14; ++k) CHECK((fields_of(files->source(), k) == fields_of(again->source(), k)));
  const Pass from_files = read_all(files), from_cache = read_all(again);
  CHECK(from_cache.ids == from_files.ids);
  REQUIRE(from_cache.errors.size() == from_files.errors.size());
  for (std::size_t k = 0; k < from_cache.errors.size(); ++k) {
    CHECK(from_cache.errors[k].path == from_files.errors[k].path);
    CHECK(from_cache.errors[k].reason == from_files.errors[k].reason);
  }
}

TEST_CASE("What is missing of MELD is named", "[meld]") {
  const TempDir dir;
  CHECK_THROWS_WITH(meld(dir.path() / "nowhere", "train"), Contains("nowhere"));
  CHECK_THROWS_WITH(meld(dir.path(), "train"), Contains("train_sent_emo.csv"));
  write_text(dir.path() / "train_sent_emo.csv", "Emotion,Dialogue_ID,Utterance_ID\njoy,0,0\n");
  CHECK_THROWS_WITH(meld(dir.path(), "train"), Contains("diaD_uttU.mp4"));
  CHECK_THROWS_AS(meld(dir.path(), "validation"), ConfigError);
  write_text(dir.path() / "clips/TRAIN/dia0_utt0.mp4", "no clip");
  CHECK(meld(dir.path(), "train", {}, kClips)->size() == 1);
  write_text(dir.path() / "train_sent_emo.csv", "Emotion,Dialogue_ID,Utterance_ID\nbored,0,0\n");
  const LogCapture log;
  CHECK_THROWS_WITH(meld(dir.path(), "train"), Contains("no row"));
  CHECK_THAT(log.text(), Contains("line 2") && Contains("bored"));
}

TEST_CASE("Options of clips out of range are refused", "[clips]") {
  CHECK_THROWS_WITH(ClipFiles({}, {.frames = 0}), Contains("frames must be positive"));
  CHECK_THROWS_WITH(ClipFiles({}, {.max_seconds = 0}), Contains("max_seconds"));
  const auto source = std::make_shared<ClipFiles>(std::vector<ClipFile>(2), kClips);
  CHECK_THROWS_WITH(ClipDataset(source, {0}, meld_emotions()), Contains("2 clips"));
  CHECK_THROWS_AS(ClipDataset(source, {0, 1}, meld_emotions(), {.visual = false, .audio = false}), ConfigError);
}

TEST_CASE("IEMOCAP's sessions become splits of utterances, cut from the dialog by time and side", "[iemocap]") {
  const TempDir dir;
  const fs::path root = dir.path() / "IEMOCAP_full_release";
  for (int session = 1; session <= 5; ++session) {
    const std::string name = "Ses0" + std::to_string(session) + "F_impro01";
    const fs::path folder = root / ("Session" + std::to_string(session));
    fs::create_directories(folder / "dialog/avi/DivX");
    media::write_clip(dir.path() / "dialog.mp4", halves(32), 8, {16000, 1, tone(4)});
    fs::rename(dir.path() / "dialog.mp4", folder / "dialog/avi/DivX" / (name + ".avi"));
    write_text(folder / "dialog/EmoEvaluation" / (name + ".txt"),
               "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
               "[0.5000 - 1.5000]\t" +
                   name +
                   "_F000\tneu\t[2.5000, 2.5000, 2.5000]\r\n"
                   "C-E2:\tNeutral;\t()\n"
                   "[1.5000 - 2.5000]\t" +
                   name +
                   "_M000\texc\t[2.5, 2.5, 2.5]\n"
                   "[2.5000 - 3.0000]\t" +
                   name +
                   "_M001\txxx\t[2.5, 2.5, 2.5]\n"
                   "[3.0000 - 3.5000]\t" +
                   name + "_F001\tang\t[2.5, 2.5, 2.5]\n");
    write_text(folder / "dialog/EmoEvaluation" / ("._" + name + ".txt"), "junk");
    for (const char* turn : {"_F000", "_M000"})
      write_wav(folder / "sentences/wav" / name / (name + turn + ".wav"), tone(1));
  }
  REQUIRE(is_iemocap(dir.path()));
  const auto train = iemocap(dir.path(), "train", {.test_session = 1}, {}, kClips);
  const auto dev = iemocap(dir.path(), "dev", {.test_session = 1}, {}, kClips);
  const auto test = iemocap(dir.path(), "test", {.test_session = 1}, {}, kClips);
  CHECK(train->size() == 9);
  CHECK_THAT(train->sample_name(0), Contains("Ses02F"));
  CHECK_THAT(dev->sample_name(0), Contains("Ses05F"));
  CHECK(test->labels() == std::vector<std::int64_t>{0, 1, 3});
  CHECK(test->class_names() == iemocap_emotions());

  // Who wears the markers is on the left.
  const auto red = [&](std::int64_t index) {
    const auto frames = fields_of(test->source(), index)[0];
    return static_cast<int>(frames[3 * (16 * 32 + 16)]) > static_cast<int>(frames[3 * (16 * 32 + 16) + 2]);
  };
  CHECK(red(0));
  CHECK_FALSE(red(1));
  CHECK(mel_length(test->source(), 0) == 101);

  const Pass pass = read_all(test);
  REQUIRE(pass.errors.size() == 1);
  CHECK(pass.errors[0].path == "Ses01F_impro01_F001");
  CHECK_THAT(pass.errors[0].reason, Contains("no sound"));
  CHECK_THROWS_AS(iemocap(dir.path(), "train", {.test_session = 6}), ConfigError);
  CHECK_THROWS_WITH(iemocap(dir.path() / "nowhere", "train"), Contains("EmoEvaluation"));
}
