#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <numbers>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "catch.h"
#include "mmtrain/core/error.h"
#include "mmtrain/datasets/event_file.h"
#include "mmtrain/datasets/generate_behavior.h"
#include "mmtrain/datasets/sensor_features.h"
#include "mmtrain/datasets/sensor_folders.h"
#include "mmtrain/datasets/sensor_split.h"
#include "sensor_fixtures.h"

using namespace mmtrain;
using namespace mmtrain::datasets;
using Catch::Matchers::Contains;
using fixtures::csv;
using fixtures::read_text;
using fixtures::TempDir;
using fixtures::write_people;
using fixtures::write_text;
namespace fs = std::filesystem;

namespace {

constexpr double kTau = 2 * std::numbers::pi;
const std::string kHeader = "2025-08-24 01:59:29    绿光---红外光---红光---X轴---Y轴---Z轴\n";

// Rows whose channels swing; between `loud` seconds they swing more.
std::string recording(int rows, double rate = 100, std::vector<std::pair<double, double>> loud = {}) {
  std::string text = kHeader;
  for (int row = 0; row < rows; ++row) {
    const double t = row / rate;
    const bool now =
        std::any_of(loud.begin(), loud.end(), [&](auto span) { return t >= span.first && t < span.second; });
    const double swing = (now ? 3000 : 30) * std::sin(kTau * 4 * t);
    const auto add = [&](double value) { text += std::to_string(std::lround(value)) + " "; };
    for (const double base : {30000.0, 240000.0, 260000.0}) add(base + 100 * std::sin(kTau * 1.2 * t) + swing / 10);
    for (const double base : {-15000.0, 5000.0, 2000.0}) add(base + swing + 10 * std::sin(kTau * 2 * t));
    text.back() = '\n';
  }
  return text;
}

bool mentions(const SensorData& data, const std::string& path, const std::string& reason) {
  return std::any_of(data.problems.begin(), data.problems.end(), [&](const SensorProblem& problem) {
    return problem.path.find(path) != std::string::npos && problem.reason.find(reason) != std::string::npos;
  });
}

std::map<std::string, std::int64_t> windows_of_classes(const SensorData& data) {
  std::map<std::string, std::int64_t> counts;
  for (const SensorWindow& window : data.windows) ++counts[data.class_names[static_cast<std::size_t>(window.label)]];
  return counts;
}

std::set<std::string> people_of(const SensorData& data, const std::vector<std::int64_t>& windows) {
  std::set<std::string> people;
  for (const std::int64_t index : windows) {
    const auto recording = static_cast<std::size_t>(data.windows[static_cast<std::size_t>(index)].recording);
    people.insert(data.recordings[recording].person);
  }
  return people;
}

}  // namespace

TEST_CASE("An event file says when things happen, and what of it cannot be used", "[sensors][events]") {
  const EventFile events = parse_events(R"({"version": 2, "allowed_labels": ["cough", "chew"], "more": 1, "files": [
    {"file": "a/b.txt", "label": "cough", "event_starts_sec": [10, 20.5], "event_duration_sec": 2.0,
     "total_duration_sec": 60, "rows_detected": 2772},
    {"file": "c.txt", "label": "sneeze", "event_starts_sec": [1], "event_duration_sec": 2, "total_duration_sec": 60},
    {"file": "d_denoise.txt", "label": "chew", "event_starts_sec": [-1, 5, null, "7"], "event_duration_sec": 2,
     "total_duration_sec": 60},
    {"file": "b.txt", "label": "chew", "event_starts_sec": [], "event_duration_sec": 2, "total_duration_sec": 60},
    {"file": "e.txt", "label": "chew", "event_starts_sec": [1], "event_duration_sec": 0, "total_duration_sec": 60},
    {"label": "chew"}, 7]})",
                                        "events.json");
  REQUIRE(events.recordings.size() == 2);
  CHECK(events.recordings[0].file == "b.txt");
  CHECK(events.recordings[0].starts == std::vector<double>{10, 20.5});
  CHECK(events.recordings[0].rows == 2772);
  CHECK(events.recordings[1].starts == std::vector<double>{5});
  REQUIRE(events.problems.size() == 6);
  CHECK_THAT(events.problems[0], Contains("c.txt") && Contains("sneeze"));
  CHECK_THAT(events.problems[1], Contains("d_denoise.txt") && Contains("3 events"));
  CHECK_THAT(events.problems[2], Contains("b.txt") && Contains("twice"));
  CHECK_THAT(events.problems[3], Contains("e.txt") && Contains("event_duration_sec"));
  CHECK_THAT(events.problems[4], Contains("recording 6") && Contains("no file"));
  CHECK_THAT(events.problems[5], Contains("recording 7"));
  CHECK(events.find("b.txt") == &events.recordings[0]);
  CHECK(events.find("b_denoise.txt") == &events.recordings[0]);
  CHECK(events.find("d.txt") == &events.recordings[1]);
  CHECK(events.find("x.txt") == nullptr);
}

TEST_CASE("What is no event file is refused with its place", "[sensors][events]") {
  const auto refused = [](const std::string& text, const std::string& words) {
    CHECK_THROWS_WITH(parse_events(text, "events.json"), Contains("events.json") && Contains(words));
    CHECK_THROWS_AS(parse_events(text, "events.json"), DataError);
  };
  refused("{\"files\": [,]}", ":1:12");
  refused("", "");
  refused("[]", "JSON object");
  refused("{}", "\"files\"");
  refused(R"({"version": 3, "files": []})", "version 3");
  refused(std::string(200, '['), "");
  refused(R"({"files": [{"file": "a", "label": "b", "event_starts_sec": [1e999]}]})", "overflow");
  CHECK_THROWS_WITH(read_events("/nope/events.json"), Contains("/nope/events.json"));
}

TEST_CASE("Text recordings become windows of their names' behavior", "[sensors]") {
  const TempDir dir;
  write_text(dir.path() / "hyx_data/耳道-咳嗽共15秒.txt", recording(1500));
  write_text(dir.path() / "hyx_data/deep/耳道-静息共15秒.txt", recording(1500));
  write_text(dir.path() / "lhr_data/耳道-喝水共15秒.txt", recording(720, 48));
  write_text(dir.path() / "lhr_data/耳道-说话共15秒.txt", recording(720));
  write_text(dir.path() / "lhr_data/notes.md", "nothing");
  const SensorData data = read_sensor_folders({dir.path()});
  CHECK(data.class_names == std::vector<std::string>{"rest", "chew", "cough", "swallow"});
  CHECK(data.rate == 100);
  CHECK(data.window_rows == 500);
  CHECK(data.num_channels() == 6);
  CHECK(data.cleaned);
  // 15 s hold five half overlapping windows of 5 s, at whatever rate; drinking counts as swallowing.
  CHECK(windows_of_classes(data) == std::map<std::string, std::int64_t>{{"cough", 5}, {"rest", 5}, {"swallow", 5}});
  CHECK(mentions(data, "说话", "'talk' is none of the classes"));
  CHECK(data.skipped_files == 1);
  REQUIRE(data.recordings.size() == 3);
  CHECK(data.recordings[0].person == "hyx");
  CHECK(data.recordings[2].person == "lhr");
  CHECK(data.recordings[2].rows == 1500);  // 48 rows a second brought to 100
  CHECK(data.windows[1].begin == Approx(2.5));
  for (const SensorRecording& one : data.recordings) {
    CHECK(std::all_of(one.samples.begin(), one.samples.end(), [](float value) { return std::isfinite(value); }));
  }
  const SensorData other = read_sensor_folders({dir.path()}, {.class_names = {"talk", "drink"}});
  CHECK(windows_of_classes(other) == std::map<std::string, std::int64_t>{{"drink", 5}, {"talk", 5}});
}

TEST_CASE("The throat's recording says when something happens", "[sensors]") {
  const TempDir dir;
  const fs::path folder = dir.path() / "a_data";
  write_text(folder / "耳道-咳嗽共40秒.txt", recording(4000));
  write_text(folder / "喉咙-咳嗽共40秒.txt", recording(4000, 100, {{10, 20}}));
  write_text(folder / "喉咙-吞咽共40秒.txt", recording(4000));
  const SensorData data = read_sensor_folders({dir.path()});
  for (const SensorWindow& window : data.windows) {
    const double covered = std::min(window.end, 20.0) - std::max(window.begin, 10.0);
    if (std::abs(covered - 2.5) < 0.6) continue;  // half a window: either
    CHECK(data.class_names[static_cast<std::size_t>(window.label)] == (covered > 2.5 ? "cough" : "rest"));
  }
  CHECK(windows_of_classes(data)["cough"] >= 3);
  CHECK(mentions(data, "喉咙-吞咽", "no recording of the ear"));

  write_text(folder / "喉咙-咳嗽共40秒.txt", "nothing\n");
  const SensorData alone = read_sensor_folders({dir.path()});
  CHECK(windows_of_classes(alone).count("rest") == 0);
  CHECK(mentions(alone, "喉咙-咳嗽", "left out"));
}

TEST_CASE("Broken recordings are counted and named, the others are used", "[sensors][hostile]") {
  const TempDir dir;
  const fs::path folder = dir.path() / "q_data";
  write_text(folder / "耳道-咳嗽共10秒.txt", recording(1000));
  std::string torn = recording(1000) + "24136 1773";
  torn.insert(torn.find('\n', 2000) + 1, "24136 177396 195613\nconnection lost\n# comment\n\n1 2 3 4 5 6 7\n");
  write_text(folder / "耳道-咀嚼共10秒.txt", torn);
  write_text(folder / "耳道-吞咽共10秒.txt", "head\n1 2 3 4 5\n1 2 3 4 5\n");
  write_text(folder / "耳道-静息共10秒.txt", "");
  write_text(folder / "耳道-静息短.txt", recording(60));
  write_text(folder / "耳道-静息两行.txt", recording(2));
  std::string odd = kHeader;
  for (int row = 0; row < 1000; ++row) {
    const int wave = row % 50;
    odd += std::to_string(20000 + wave) + " 262143 " + (row % 7 == 0 ? "nan" : std::to_string(1000 + wave)) + " " +
           (row % 2 == 0 ? "32767" : std::to_string(wave * 300)) + " 5 " + std::to_string(-wave) + "\n";
  }
  write_text(folder / "耳道-咳嗽2共10秒.txt", odd);
  // GBK: 耳道-咳嗽共10秒
  write_text(folder / "\xB6\xFA\xB5\xC0-\xBF\xC8\xCB\xD4\xB9\xB2\x31\x30\xC3\xEB.txt", recording(1000));
  fs::create_directory(folder / "耳道-咳嗽folder.txt");
  write_text(folder / "training_results_20260101_000000" / "classification_report.txt", "left by a run");
  fs::create_symlink(folder, folder / "loop");
  REQUIRE(::mkfifo((folder / "耳道-咳嗽3.txt").c_str(), 0600) == 0);
  write_text(folder / "耳道-咳嗽4.txt", "");
  fs::resize_file(folder / "耳道-咳嗽4.txt", std::uintmax_t{2} << 30);  // 2 GB that take no room

  const SensorData data = read_sensor_folders({dir.path()});
  CHECK(mentions(data, "咀嚼", "4 malformed lines"));
  CHECK(mentions(data, "吞咽", "left out: 2 malformed lines"));
  CHECK(mentions(data, "静息共10秒", "left out: no row of six numbers"));
  CHECK(mentions(data, "静息短", "left out"));
  CHECK(mentions(data, "静息两行", "left out"));
  CHECK(mentions(data, "咳嗽2", "channel ppg_infrared never changes"));
  CHECK(mentions(data, "咳嗽2", "channel imu_x is saturated"));
  CHECK(mentions(data, "咳嗽2", "rows without a number"));
  CHECK(mentions(data, "咳嗽3", "no regular file"));
  CHECK(mentions(data, "咳嗽4", "left out: no row of six numbers"));
  CHECK_FALSE(mentions(data, "classification_report", ""));
  CHECK(data.skipped_files == 6);
  CHECK(data.malformed_lines == 4 + 143);
  CHECK(data.recordings.size() == 4);
  CHECK(std::count_if(data.recordings.begin(), data.recordings.end(), [](const SensorRecording& one) {
          return one.path.find("耳道-咳嗽共10秒.txt") != std::string::npos;  // its GBK twin reads the same
        }) == 2);
  for (const SensorRecording& one : data.recordings) {
    CHECK(std::all_of(one.samples.begin(), one.samples.end(), [](float value) { return std::isfinite(value); }));
  }
}

TEST_CASE("Of a long recording the beginning is read", "[sensors][hostile]") {
  const TempDir dir;
  const std::string text = recording(4800, 48);
  write_text(dir.path() / "a_data/耳道-咳嗽共100秒.txt", text);
  const std::uintmax_t limit = text.size() * 3 / 10;
  const SensorData data = read_sensor_folders({dir.path()}, {.max_file_bytes = limit});
  CHECK(mentions(data, "咳嗽", "of which the first"));
  CHECK(data.skipped_files == 0);
  CHECK(data.malformed_lines == 0);  // none is torn
  REQUIRE(data.recordings.size() == 1);
  // The name speaks of the whole file, and so does the rate.
  CHECK(data.file_rate == Approx(48).epsilon(0.02));
  CHECK(static_cast<double>(data.recordings[0].rows) == Approx(3000).epsilon(0.02));
  CHECK(read_sensor_folders({dir.path()}, {.max_file_bytes = text.size()}).recordings[0].rows == 10000);

  const std::string csv_text = csv(1000, "ax,ay,az");
  write_text(dir.path() / "csv/s1_data/UP_1.csv", csv_text);
  const SensorData cut =
      read_sensor_folders({dir.path() / "csv"}, {.window_seconds = 1, .max_file_bytes = csv_text.size() / 2});
  CHECK(static_cast<double>(cut.recordings[0].rows) == Approx(500).epsilon(0.05));
  CHECK(cut.malformed_lines == 0);
}

TEST_CASE("Folders without anything usable are an error that says why", "[sensors][hostile]") {
  const TempDir dir;
  CHECK_THROWS_WITH(read_sensor_folders({dir.path() / "nope"}), Contains("there is no folder"));
  CHECK_THROWS_WITH(read_sensor_folders({dir.path()}), Contains("neither a .txt nor a .csv"));
  write_text(dir.path() / "耳道-咳嗽.txt", "x\n1 2 3\n");
  CHECK_THROWS_WITH(read_sensor_folders({dir.path()}), Contains("耳道-咳嗽.txt") && Contains("malformed"));
  CHECK_THROWS_AS(read_sensor_folders({}), ConfigError);
  CHECK_THROWS_AS(read_sensor_folders({dir.path()}, {.overlap = 1}), ConfigError);
  CHECK_THROWS_AS(read_sensor_folders({dir.path()}, {.window_seconds = std::nan("")}), ConfigError);
  CHECK_THROWS_WITH(glob_folders((dir.path() / "*_data").string()), Contains("*_data"));
  if (::geteuid() == 0) return;  // root may read everything
  write_text(dir.path() / "ok_data/耳道-咳嗽共10秒.txt", recording(1000));
  write_text(dir.path() / "locked_data/耳道-咳嗽共10秒.txt", recording(1000));
  fs::permissions(dir.path() / "locked_data", fs::perms::none);
  const SensorData data = read_sensor_folders({dir.path()});
  fs::permissions(dir.path() / "locked_data", fs::perms::owner_all);
  CHECK(mentions(data, "locked_data", "cannot read"));
}

TEST_CASE("Events are the windows where an event file is asked for", "[sensors][events]") {
  const TempDir dir;
  const fs::path folder = dir.path() / "a_data";
  write_text(folder / "耳道-咳嗽.txt", recording(2400));
  write_text(folder / "耳道-喝水_denoise.txt", recording(2400));
  write_text(folder / "耳道-静息.txt", recording(2400));
  write_text(folder / "events_config.json", R"({"version": 2, "files": [
    {"file": "耳道-咳嗽.txt", "label": "cough", "event_starts_sec": [1, 20, 48.5, 70, -2], "event_duration_sec": 2,
     "total_duration_sec": 50, "rows_detected": 2400},
    {"file": "耳道-喝水.txt", "label": "drink", "event_starts_sec": [5, 6, 7], "event_duration_sec": 3,
     "total_duration_sec": 60, "rows_detected": 1000},
    {"file": "gone.txt", "label": "chew", "event_starts_sec": [5], "event_duration_sec": 3, "total_duration_sec": 60}]})");
  const SensorData data = read_sensor_folders({dir.path()}, {.events = "auto"});
  CHECK(data.class_names == std::vector<std::string>{"chew", "drink", "cough", "swallow", "talk", "other"});
  CHECK(windows_of_classes(data) == std::map<std::string, std::int64_t>{{"cough", 3}, {"drink", 3}});
  CHECK(data.window_rows == 120);  // 96 and 72 rows at 48 Hz, 120 at 40 Hz
  std::map<double, SensorWindow> by_begin;
  for (const SensorWindow& window : data.windows) by_begin[window.begin] = window;
  CHECK(by_begin[20].rows == 96);
  CHECK(by_begin[20].first_row == 960);
  CHECK(by_begin[48.5].rows == 72);
  CHECK(by_begin[48.5].end == 50);
  CHECK(by_begin[5].rows == 120);
  CHECK(mentions(data, "events_config", "negative times"));
  CHECK(mentions(data, "events_config", "gone.txt: there is no such recording"));
  CHECK(mentions(data, "耳道-咳嗽", "1 events begin behind its end"));
  CHECK(mentions(data, "耳道-喝水_denoise", "counts 1000 rows, it has 2400"));
  CHECK(mentions(data, "耳道-静息", "does not list it"));

  // A shorter event has zeros on both sides.
  std::vector<float> values(static_cast<std::size_t>(data.window_rows * 6));
  copy_window(data, by_begin[20], 0, values);
  CHECK(values[0] == 0);
  CHECK(values[12 * 6 - 1] == 0);
  CHECK(values[12 * 6] == data.recordings[static_cast<std::size_t>(by_begin[20].recording)].samples[960 * 6]);
  CHECK(values.back() == 0);

  // Asked for names, the event file tells the rate: 2400 rows are 50 s.
  const SensorData names = read_sensor_folders({dir.path()});
  CHECK(names.recordings[0].rows == 5000);
  CHECK_THROWS_WITH(read_sensor_folders({dir.path()}, {.events = "/nope.json"}), Contains("/nope.json"));
  write_text(folder / "events_config.json", "{");
  CHECK_THROWS_WITH(read_sensor_folders({dir.path()}, {.events = "auto"}), Contains("events_config.json:1:"));
  CHECK(mentions(read_sensor_folders({dir.path()}), "events_config.json", "1:"));
}

TEST_CASE("CSV files are labelled by name, column or folder", "[sensors][csv]") {
  const TempDir dir;
  write_text(dir.path() / "name/s1_data/UP_0.csv", csv(300, "ax,ay,az"));
  write_text(dir.path() / "name/s1_data/DOWN_STAIRS_12.csv", csv(300, "ax,ay,az"));
  write_text(dir.path() / "name/s2_data/UP_1.csv", csv(300, "gx,gy,gz"));
  write_text(dir.path() / "name/s3_data/walk/recording.csv", csv(300, "ax,ay,az"));
  const SensorData named = read_sensor_folders({dir.path() / "name"}, {.window_seconds = 2, .rate = 50});
  CHECK(named.class_names == std::vector<std::string>{"DOWN_STAIRS", "UP", "walk"});
  CHECK(named.channels == std::vector<std::string>{"ax", "ay", "az"});
  CHECK(named.window_rows == 100);
  CHECK(windows_of_classes(named) == std::map<std::string, std::int64_t>{{"DOWN_STAIRS", 5}, {"UP", 5}, {"walk", 5}});
  CHECK(mentions(named, "UP_1", "channels are not those of most"));
  CHECK_FALSE(named.cleaned);

  std::string text = "time,Label,subject,x,y\n";
  for (int row = 0; row < 400; ++row) {
    text += std::to_string(0.05 * row) + "," + (row % 200 < 100 ? "sit" : "run") + "," + (row < 200 ? "anna" : "ben") +
            "," + std::to_string(row) + ",1.5\n";
  }
  write_text(dir.path() / "column/all.csv", text);
  const SensorData column = read_sensor_folders({dir.path() / "column"}, {.window_seconds = 2.5});
  CHECK(column.channels == std::vector<std::string>{"x", "y"});
  CHECK(column.rate == Approx(20));
  CHECK(column.window_rows == 50);
  REQUIRE(column.recordings.size() == 2);
  CHECK(column.recordings[0].person == "anna");
  CHECK(column.recordings[1].person == "ben");
  CHECK(column.class_names == std::vector<std::string>{"run", "sit"});
  for (const SensorWindow& window : column.windows) {
    const double middle = (window.begin + window.end) / 2;
    if (std::abs(middle - 5) < 0.1) continue;  // half of each
    CHECK(column.class_names[static_cast<std::size_t>(window.label)] == (middle < 5 ? "sit" : "run"));
  }
  CHECK(mentions(column, "all.csv", "channel y never changes"));
}

TEST_CASE("UCI HAR is read as it is published", "[sensors][har]") {
  const TempDir dir;
  const fs::path root = dir.path() / "UCI HAR Dataset";
  const auto write_part = [&](const std::string& part, const std::vector<int>& people, const std::string& labels) {
    for (const char* channel : {"body_acc_x", "body_acc_y", "body_acc_z", "body_gyro_x", "body_gyro_y", "body_gyro_z",
                                "total_acc_x", "total_acc_y", "total_acc_z"}) {
      std::string text;
      for (std::size_t k = 0; k < people.size(); ++k) {
        for (int t = 0; t < 128; ++t) text += "  " + std::to_string(0.001 * t + static_cast<double>(k));
        text += "\n";
      }
      write_text(root / part / "Inertial Signals" / (std::string(channel) + "_" + part + ".txt"), text);
    }
    std::string subjects;
    for (const int person : people) subjects += std::to_string(person) + "\n";
    write_text(root / part / ("subject_" + part + ".txt"), subjects);
    write_text(root / part / ("y_" + part + ".txt"), labels);
  };
  // The labels of train in UTF-16 with its mark, as some copies have them.
  const char16_t* wide = u"\uFEFF1\r\n6\r\n2\r\n3\r\n";
  std::string utf16;
  for (const char16_t* at = wide; *at != 0; ++at) {
    utf16 += static_cast<char>(*at & 0xFF);
    utf16 += static_cast<char>(*at >> 8);
  }
  write_part("train", {1, 1, 3, 4}, utf16);
  write_part("test", {2, 2}, "5\n4\n");
  const SensorData data = read_sensor_folders({dir.path()});
  CHECK(data.windows.size() == 6);
  CHECK(data.recordings.size() == 4);
  CHECK(data.rate == 50);
  CHECK(data.window_rows == 128);
  CHECK(data.num_channels() == 9);
  CHECK(data.windows[1].label == 5);
  CHECK(data.windows[1].first_row == 128);
  CHECK(data.recordings[0].samples[128 * 9] == Approx(1));
  const SensorSplit split = split_windows(data, {.by = SplitBy::file, .val_size = 0.3});
  CHECK(people_of(data, split.test) == std::set<std::string>{"02"});
  CHECK(split.train.size() + split.val.size() == 4);

  write_text(root / "train/y_train.txt", "1\n2\n9\n3\n");
  CHECK_THROWS_WITH(read_sensor_folders({dir.path()}), Contains("label 3") && Contains("9"));
  write_text(root / "train/y_train.txt", "1\n2\n");
  CHECK_THROWS_WITH(read_sensor_folders({dir.path()}), Contains("4 windows") && Contains("2 labels"));
}

TEST_CASE("Splits never part what belongs together", "[sensors][split]") {
  const TempDir dir;
  write_people(dir.path(), 6, 3);
  const SensorData data = read_sensor_folders({dir.path()}, {.window_seconds = 1});
  for (const SplitBy by : {SplitBy::person, SplitBy::file, SplitBy::window}) {
    const SensorSplit split = split_windows(data, {.by = by, .test_size = 0.25, .val_size = 0.15, .seed = 5});
    std::vector<std::int64_t> all;
    for (const auto* part : {&split.train, &split.val, &split.test}) {
      CHECK_FALSE(part->empty());
      all.insert(all.end(), part->begin(), part->end());
    }
    std::sort(all.begin(), all.end());
    std::vector<std::int64_t> expected(data.windows.size());
    std::iota(expected.begin(), expected.end(), 0);
    CHECK(all == expected);
    const auto key = [&](std::int64_t index) {
      const std::int64_t recording = data.windows[static_cast<std::size_t>(index)].recording;
      return by == SplitBy::person ? data.recordings[static_cast<std::size_t>(recording)].person
             : by == SplitBy::file ? std::to_string(recording)
                                   : std::to_string(index);
    };
    std::map<std::string, int> part_of;
    int number = 0;
    for (const auto* part : {&split.train, &split.val, &split.test}) {
      for (const std::int64_t index : *part) CHECK(part_of.try_emplace(key(index), number).first->second == number);
      ++number;
    }
    // Both classes are as many in each part.
    double up = 0;
    for (const std::int64_t index : split.test)
      up += static_cast<double>(data.windows[static_cast<std::size_t>(index)].label);
    CHECK(up / static_cast<double>(split.test.size()) == Approx(0.5).margin(0.15));
    CHECK(static_cast<double>(split.test.size()) / static_cast<double>(data.windows.size()) ==
          Approx(0.25).margin(0.1));
    CHECK(split_windows(data, {.by = by, .test_size = 0.25, .val_size = 0.15, .seed = 5}).test == split.test);
  }
  const auto folds = sensor_folds(data, SplitBy::person, 6, 1);
  std::set<std::string> tested;
  for (const auto& fold : folds) {
    CHECK(people_of(data, fold).size() == 1);
    tested.merge(people_of(data, fold));
  }
  CHECK(tested.size() == 6);
  CHECK_THROWS_WITH(sensor_folds(data, SplitBy::person, 7, 1), Contains("people") && Contains("there are 6"));
  CHECK_THROWS_AS(sensor_folds(data, SplitBy::person, 1, 1), ConfigError);
  CHECK_THROWS_AS(split_windows(data, {.test_size = 0.9, .val_size = 0.2}), ConfigError);
  CHECK_THROWS_AS(parse_split("folder"), ConfigError);
}

TEST_CASE("Cleaning takes out drift and power line and keeps what moves", "[sensors][features]") {
  constexpr int kRows = 4000;
  constexpr double kRate = 200;
  std::vector<float> samples;
  const auto at = [](int row, double hertz) { return std::sin(kTau * hertz * row / kRate); };
  for (int row = 0; row < kRows; ++row) {
    for (int channel = 0; channel < 6; ++channel) {
      const double kept = at(row, channel < 3 ? 1.5 : 5);
      const double removed = channel < 3 ? at(row, 50) : at(row, 40);
      samples.push_back(static_cast<float>(1e4 + kept + 5 * at(row, 0.01) + removed));
    }
  }
  clean_sensors(samples, kRate);
  for (int channel = 0; channel < 6; ++channel) {
    double worst = 0;
    for (int row = 1500; row < 2500; ++row) {
      const double kept = at(row, channel < 3 ? 1.5 : 5);
      worst = std::max(worst, std::abs(samples[static_cast<std::size_t>(row * 6 + channel)] - kept));
    }
    CHECK(worst < 0.15);
  }

  // A recording of 200 samples a second is cleaned before it is brought to 100, where 50 Hz would be something else.
  const TempDir dir;
  std::string text = kHeader;
  for (int row = 0; row < kRows; ++row) {
    for (int channel = 0; channel < 6; ++channel) {
      const double hertz = channel < 3 ? 50 : 40;
      text += std::to_string(std::lround(30000 + 1000 * std::sin(kTau * hertz * row / kRate + 0.5))) + " ";
    }
    text.back() = '\n';
  }
  write_text(dir.path() / "a_data/耳道-静息共20秒.txt", text);
  const SensorData data = read_sensor_folders({dir.path()});
  CHECK(data.file_rate == Approx(200));
  CHECK(data.without_notch == 0);
  REQUIRE(data.recordings[0].rows == 2000);
  const std::vector<float>& rows = data.recordings[0].samples;
  CHECK(std::all_of(rows.begin() + 6 * 800, rows.begin() + 6 * 1200, [](float value) { return std::abs(value) < 30; }));
  write_text(dir.path() / "a_data/耳道-静息共40秒.txt", text);
  CHECK(read_sensor_folders({dir.path()}).without_notch == 1);  // exactly 100 samples a second hold no 50 Hz

  std::vector<float> few(6 * 5, 1.0F);
  CHECK_THROWS_AS(clean_sensors(few, 100), DataError);
  CHECK_THROWS_AS(clean_sensors(few, 0), ConfigError);
}

TEST_CASE("Generated recordings are the same for the same seed, and are read back whole", "[sensors][generate]") {
  const TempDir dir;
  const GeneratedBehavior made =
      generate_behavior(dir.path() / "one", {.seed = 7, .people = 2, .seconds = 20, .quirks = true});
  generate_behavior(dir.path() / "two", {.seed = 7, .people = 2, .seconds = 20, .quirks = true});
  generate_behavior(dir.path() / "other", {.seed = 8, .people = 2, .seconds = 20, .quirks = true});
  std::int64_t files = 0, different = 0;
  for (const auto& entry : fs::recursive_directory_iterator(dir.path() / "one")) {
    if (!entry.is_regular_file()) continue;
    const fs::path name = fs::relative(entry.path(), dir.path() / "one");
    CHECK(read_text(entry.path()) == read_text(dir.path() / "two" / name));
    different += read_text(entry.path()) != read_text(dir.path() / "other" / name);
    ++files;
  }
  CHECK(files == made.recordings + 4);  // two event files, a hidden file, notes
  CHECK(different > 40);
  const SensorData data = read_sensor_folders({dir.path() / "one"});
  CHECK(data.skipped_files == made.bad + 2);  // talk is none of the four classes
  CHECK(windows_of_classes(data).size() == 4);
  CHECK(people_of(data, split_windows(data, {.by = SplitBy::file}).train).size() == 2);
  CHECK(data.file_rate == Approx(48).margin(2.5));
  CHECK_THROWS_WITH(generate_behavior(dir.path() / "one"), Contains("not empty"));
  CHECK_THROWS_AS(generate_behavior(dir.path() / "x", {.people = 0}), ConfigError);
  CHECK_THROWS_AS(generate_behavior(dir.path() / "x", {.seconds = 1}), ConfigError);
}
