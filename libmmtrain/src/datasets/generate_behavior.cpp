#include "mmtrain/datasets/generate_behavior.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/parallel_for.h"
#include "datasets/behavior_signal.h"
#include "datasets/new_directory.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/random.h"

namespace mmtrain::datasets {
namespace fs = std::filesystem;
namespace {

using detail::BehaviorClip;
using detail::BehaviorEvents;
using detail::BehaviorPerson;
using detail::BehaviorRow;
using nlohmann::ordered_json;

constexpr const char* kColumns = "绿光---红外光---红光---X轴---Y轴---Z轴";
// 耳道 ear, 喉咙 throat and 咳嗽 cough in GBK, as old systems write file names.
constexpr const char* kGbkEar = "\xB6\xFA\xB5\xC0";
constexpr const char* kGbkThroat = "\xBA\xED\xC1\xFC";
constexpr const char* kGbkCoughing = "-\xBF\xC8\xCB\xD4\xB9\xB2";  // and 共 in all

// What a recording shall show: `every` and `lasting` seconds, `%` in the name stands for the length of the recording.
struct Session {
  const char* behavior;
  const char* name;
  double every, lasting;
};

constexpr std::array kSessions{
    Session{"chew", "咀嚼共%秒持续5秒间隔8秒", 8, 5},
    Session{"chew", "咀嚼共%秒", 0, 0},
    Session{"cough", "咳嗽每5秒一次共%秒", 5, 3},
    Session{"cough", "咳嗽共%秒间隔10秒", 10, 3},
    Session{"swallow", "吞咽每5秒一次共%秒", 5, 3},
    Session{"swallow", "吞咽共%秒间隔10秒", 10, 3},
    Session{"rest", "静息共%秒", 0, 0},
    Session{"rest", "静息第2次共%秒", 0, 0},
    Session{"drink", "喝水每5秒一次共%秒", 5, 3},
    Session{"talk", "说话共%秒持续5秒间隔10秒", 10, 5},
};

void write_file(const fs::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) throw Error(fmt::format("[generate_behavior] cannot write '{}': is the disk full?", path.string()));
}

std::string with_seconds(std::string name, double seconds) {
  const std::size_t at = name.find('%');
  return at == name.npos ? name : name.replace(at, 1, fmt::format("{:g}", seconds));
}

// The event file counts what happens all the time as events that follow one another.
BehaviorEvents draw_events(const Session& session, double seconds, RandomStream& random) {
  BehaviorEvents events{session.behavior, {}, session.lasting};
  if (session.every == 0) {
    events.seconds = 5;
    for (double start = 0; start + events.seconds <= seconds; start += events.seconds) events.starts.push_back(start);
    return events;
  }
  for (double start = random.uniform(0.5, 1.5); start + session.lasting <= seconds; start += session.every) {
    events.starts.push_back(std::round(10 * (start + random.uniform(-0.3, 0.3))) / 10);
  }
  return events;
}

std::string to_text(const std::vector<BehaviorRow>& rows, int day) {
  std::string text = fmt::format("2025-08-{:02} 01:59:29    {}\n", day, kColumns);
  for (const BehaviorRow& row : rows) {
    fmt::format_to(std::back_inserter(text), "{} {} {} {} {} {}\n", row[0], row[1], row[2], row[3], row[4], row[5]);
  }
  return text;
}

// Writes the recordings of one person.
class PersonFolder {
 public:
  PersonFolder(fs::path folder, int number, const GenerateBehaviorOptions& options)
      : folder_(std::move(folder)), number_(number), options_(options) {
    RandomStream random = stream(1000);
    person_ = detail::draw_person(random);
  }

  void write() {
    fs::create_directories(folder_);
    for (std::size_t k = 0; k < kSessions.size(); ++k) write_pair(kSessions[k], static_cast<int>(k));
    if (options_.quirks && number_ == 0) plant_quirks();
    const ordered_json events = {
        {"version", 2}, {"allowed_labels", {"rest", "chew", "cough", "swallow", "drink", "talk"}}, {"files", files_}};
    write_file(folder_ / "events_config.json", events.dump(1) + "\n");
  }

  std::int64_t recordings() const { return recordings_; }
  std::int64_t bad() const { return bad_; }

 private:
  RandomStream stream(int session) const {
    return RandomStream(options_.seed, RandomDomain::generator, 100 + static_cast<std::uint64_t>(session),
                        static_cast<std::uint64_t>(number_));
  }

  std::vector<BehaviorRow> rows_of(const BehaviorEvents& events, double rate, bool throat, int session) const {
    RandomStream random = stream(2 * session + (throat ? 501 : 500));
    return draw_behavior(person_, events, {.seconds = options_.seconds, .rate = rate, .throat = throat}, random);
  }

  void list(const std::string& file, const std::string& label, const BehaviorEvents& events, std::size_t rows) {
    files_.push_back({{"file", file},
                      {"label", label},
                      {"event_starts_sec", events.starts},
                      {"event_duration_sec", events.seconds},
                      {"total_duration_sec", options_.seconds},
                      {"rows_detected", rows}});
  }

  void write_pair(const Session& session, int index) {
    RandomStream random = stream(index);
    const BehaviorEvents events = draw_events(session, options_.seconds, random);
    const double rate = random.uniform(46, 50);
    for (const bool throat : {false, true}) {
      const std::string name =
          fmt::format("{}-{}.txt", throat ? "喉咙" : "耳道", with_seconds(session.name, options_.seconds));
      const std::vector<BehaviorRow> rows = rows_of(events, rate, throat, index);
      write_file(folder_ / name, to_text(rows, 1 + (number_ + index) % 28));
      list(name, session.behavior, events, rows.size());
      ++recordings_;
    }
  }

  void plant(const std::string& name, const std::string& bytes, bool bad) {
    write_file(folder_ / name, bytes);
    ++recordings_;
    bad_ += bad;
  }

  void plant_quirks() {
    RandomStream random = stream(2000);
    const BehaviorEvents coughs = draw_events(kSessions[2], options_.seconds, random);
    const std::vector<BehaviorRow> ear = rows_of(coughs, 48, false, 100), throat = rows_of(coughs, 48, true, 100);
    // A pair whose names and headers are GBK.
    const std::string gbk_name = fmt::format("{}{:g}\xC3\xEB.txt", kGbkCoughing, options_.seconds);
    const auto in_gbk = [](const std::vector<BehaviorRow>& rows) {
      std::string text = to_text(rows, 1);
      return "2025-08-24 01:59:29    \xC2\xCC\xB9\xE2---\xBA\xEC\xCD\xE2\xB9\xE2" + text.substr(text.find('\n'));
    };
    plant(kGbkEar + gbk_name, in_gbk(ear), false);
    plant(kGbkThroat + gbk_name, in_gbk(throat), false);
    plant(fmt::format("耳道-咳嗽每4秒一次共{:g}秒.txt", options_.seconds), broken_lines(ear), false);
    plant("耳道-吞咽五列.txt", "2025-08-24\n" + five_columns(ear), true);
    plant("耳道-咀嚼空.txt", "", true);
    plant("耳道-咀嚼头.txt", to_text({}, 3), true);
    plant("喉咙-咳嗽孤立.txt", to_text(throat, 4), true);
    std::vector<BehaviorRow> dead = ear;
    for (BehaviorRow& row : dead) row[1] = 262143;
    plant(fmt::format("耳道-咳嗽每6秒一次共{:g}秒.txt", options_.seconds), to_text(dead, 5), false);
    write_file(folder_ / "._耳道-咳嗽.txt", "Mac OS X");
    write_file(folder_ / "notes.md", "not a recording\n");
    list("耳道-没有.txt", "cough", coughs, 2400);
    list("耳道-咳嗽每4秒一次共60秒.txt", "sneeze", coughs, 2400);
    BehaviorEvents odd = coughs;
    odd.starts = {-3, 1e6, 5};
    list("耳道-咳嗽每6秒一次共60秒.txt", "cough", odd, 2400);
  }

  static std::string five_columns(const std::vector<BehaviorRow>& rows) {
    std::string text;
    for (const BehaviorRow& row : rows) {
      fmt::format_to(std::back_inserter(text), "{} {} {} {} {}\n", row[0], row[1], row[2], row[3], row[4]);
    }
    return text;
  }

  // Everything that is skipped or taken all the same, and 5 lines that are malformed.
  static std::string broken_lines(const std::vector<BehaviorRow>& rows) {
    std::string text = to_text({}, 2);
    for (std::size_t k = 0; k < rows.size(); ++k) {
      const BehaviorRow& row = rows[k];
      if (k == 100) text += "# a comment\n\n";
      if (k == 200) text += "24136 177396 195613\n";
      if (k == 300) text += "connection lost, trying again\n";
      if (k == 400) text += "24136 177396 x 1 2 3\n1 2 3 4 5 6 7 8\n";
      const char* blank = k % 10 == 5 ? "　" : " ";
      const char* end = k % 10 == 7 ? "\r\n" : "\n";
      const char* fraction = k % 10 == 3 ? ",5" : "";
      fmt::format_to(std::back_inserter(text), "{}{}{}{}{}{}{}{}{}{}{}{}{}", row[0], fraction, blank, row[1], blank,
                     row[2], blank, row[3], blank, row[4], blank, row[5], end);
    }
    return text + "24136 1773";
  }

  fs::path folder_;
  int number_;
  const GenerateBehaviorOptions& options_;
  BehaviorPerson person_;
  ordered_json files_ = ordered_json::array();
  std::int64_t recordings_ = 0, bad_ = 0;
};

}  // namespace

GeneratedBehavior generate_behavior(const fs::path& directory, const GenerateBehaviorOptions& options) {
  if (options.people < 1 || options.people > 1000) {
    throw ConfigError(fmt::format("[generate_behavior] people must be 1..1000, got {}", options.people));
  }
  if (!(options.seconds >= 20 && options.seconds <= 3600)) {
    throw ConfigError(fmt::format("[generate_behavior] seconds must be 20..3600, got {}", options.seconds));
  }
  GeneratedBehavior made;
  detail::make_directory("generate_behavior", directory, [&](const fs::path& growing) {
    std::vector<PersonFolder> people;
    for (int k = 0; k < options.people; ++k) {
      people.emplace_back(growing / fmt::format("p{}_data", k + 1), k, options);
    }
    mmtrain::detail::parallel_for(mmtrain::detail::machine_threads(), options.people,
                                  [&](std::int64_t k) { people[static_cast<std::size_t>(k)].write(); });
    for (const PersonFolder& person : people) {
      made.recordings += person.recordings();
      made.bad += person.bad();
    }
  });
  return made;
}

}  // namespace mmtrain::datasets
