#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "mmtrain/core/error.h"
#include "mmtrain/media/audio.h"
#include "mmtrain/media/image.h"
#include "mmtrain/media/video.h"
#include "mmtrain/media/video_writer.h"
#include "temp_dir.h"

namespace {

using namespace mmtrain;
using namespace mmtrain::media;
using fixtures::TempDir;
namespace fs = std::filesystem;

constexpr int kSize = 64;
constexpr int kRate = 25;
constexpr int kSampleRate = 16'000;

/// An image that says its number: eight black or white stripes over moving colour.
Image numbered(int number, int size = kSize) {
  Image image{size, size, {}};
  for (int y = 0; y < size; ++y) {
    for (int x = 0; x < size; ++x) {
      const int bit = x * 8 / size;
      const bool stripe = y < size / 2;
      const int white = (number >> bit & 1) != 0 ? 235 : 20;
      for (int c = 0; c < 3; ++c) {
        const double wave = 128 + 90 * std::sin(0.13 * x * (c + 1) + 0.3 * number) * std::cos(0.11 * y - 0.2 * number);
        image.pixels.push_back(static_cast<std::uint8_t>(stripe ? white : static_cast<int>(wave)));
      }
    }
  }
  return image;
}

int number_of(const Image& image) {
  int number = 0;
  for (int bit = 0; bit < 8; ++bit) {
    const int x = (2 * bit + 1) * image.width / 16, y = image.height / 4;
    if (image.pixels[static_cast<std::size_t>(3 * (y * image.width + x))] > 128) number |= 1 << bit;
  }
  return number;
}

std::vector<int> numbers_of(const Video& video) {
  std::vector<int> numbers;
  for (const Image& frame : video.frames) numbers.push_back(number_of(frame));
  return numbers;
}

Audio sweep(double seconds, int channels = 1) {
  Audio audio{kSampleRate, channels, {}};
  for (int i = 0; i < static_cast<int>(seconds * kSampleRate); ++i) {
    const double t = static_cast<double>(i) / kSampleRate;
    for (int c = 0; c < channels; ++c) {
      audio.samples.push_back(static_cast<float>(0.4 * std::sin(6.2832 * (300 + 110 * c) * t * (1 + 0.3 * t))));
    }
  }
  return audio;
}

fs::path write_numbered(const fs::path& path, int count, const Audio& audio = {}, int size = kSize) {
  std::vector<Image> frames;
  for (int i = 0; i < count; ++i) frames.push_back(numbered(i, size));
  write_clip(path, frames, kRate, audio, {.bits_per_pixel = 0.5});
  return path;
}

double correlation(const float* a, const float* b, std::size_t count) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < count; ++i) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

std::vector<char> read_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(const fs::path& path, const std::vector<char>& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string reason(const fs::path& path, const VideoOptions& options = {}) {
  try {
    read_video(path, options);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

double resident_megabytes() {
  std::ifstream file("/proc/self/statm");
  double all = 0, resident = 0;
  file >> all >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

}  // namespace

TEST_CASE("Uniform frames are those of the stated indices, with their times", "[media][video]") {
  const TempDir folder;
  const fs::path path = write_numbered(folder / "a.mp4", 75);
  for (const int count : {1, 2, 8, 75}) {
    const Video video = read_video(path, {.frames = count});
    REQUIRE(video.frames.size() == static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
      const int wanted = (2 * i + 1) * 75 / (2 * count);
      const auto at = static_cast<std::size_t>(i);
      CHECK(number_of(video.frames[at]) == wanted);
      CHECK(video.times[at] == Approx(static_cast<double>(wanted) / kRate).margin(1e-6));
      CHECK(video.frames[at].height == kSize);
      CHECK(video.frames[at].pixels.size() == kSize * kSize * 3);
    }
    CHECK(video.duration == Approx(3.0).margin(0.001));
  }
  CHECK(read_video(path, {.frames = 0}).frames.size() == 75);
}

TEST_CASE("Skipping what is not needed does not change a pixel", "[media][video]") {
  const TempDir folder;
  const fs::path path = write_numbered(folder / "a.mp4", 60);
  const Video all = read_video(path, {.frames = 0});
  for (const int count : {1, 5, 13}) {
    const Video some = read_video(path, {.frames = count});
    for (std::size_t i = 0; i < some.frames.size(); ++i) {
      CHECK(some.frames[i].pixels == all.frames[static_cast<std::size_t>(number_of(some.frames[i]))].pixels);
    }
  }
  // Packets that do not stay in memory are read again.
  for (const std::int64_t limit : {std::int64_t{1}, std::int64_t{20'000}}) {
    const Video again = read_video(path, {.frames = 5, .memory_limit = limit});
    for (const Image& frame : again.frames) {
      CHECK(frame.pixels == all.frames[static_cast<std::size_t>(number_of(frame))].pixels);
    }
    CHECK(numbers_of(again) == std::vector{6, 18, 30, 42, 54});
  }
  const Video span = read_video(path, {.frames = 0, .start = 1.0, .duration = 0.6});
  REQUIRE(span.frames.size() == 15);
  for (std::size_t i = 0; i < 15; ++i) CHECK(span.frames[i].pixels == all.frames[25 + i].pixels);
}

TEST_CASE("A span holds the frames that begin in it, and as many copies as asked for", "[media][video]") {
  const TempDir folder;
  const fs::path path = write_numbered(folder / "a.mp4", 75);
  CHECK(numbers_of(read_video(path, {.frames = 0, .start = 0.5, .duration = 0.2})) == std::vector{13, 14, 15, 16, 17});
  CHECK(numbers_of(read_video(path, {.frames = 0, .start = 2.88})) == std::vector{72, 73, 74});
  CHECK(numbers_of(read_video(path, {.frames = 4, .start = 2.92})) == std::vector{73, 73, 74, 74});
  CHECK(numbers_of(read_video(path, {.frames = 2, .duration = 0.04})) == std::vector{0, 0});
  CHECK(contains(reason(path, {.start = 3.5}), "no frame from 3.5 s on"));
  CHECK(contains(reason(path, {.start = 4, .duration = 1}), "no frame from 4 s to 5 s"));
}

TEST_CASE("Key frames alone are read on demand", "[media][video]") {
  const TempDir folder;
  std::vector<Image> frames;
  for (int i = 0; i < 60; ++i) frames.push_back(numbered(i));
  write_clip(folder / "a.mp4", frames, kRate, {}, {.bits_per_pixel = 0.5, .key_frame_interval = 20});
  const std::vector<int> keys = numbers_of(read_video(folder / "a.mp4", {.frames = 0, .key_frames_only = true}));
  REQUIRE(keys.size() >= 3);  // the encoder may add some where the picture changes
  CHECK(keys[0] == 0);
  for (std::size_t i = 1; i < keys.size(); ++i) CHECK((keys[i] > keys[i - 1] && keys[i] - keys[i - 1] <= 20));
  CHECK(numbers_of(read_video(folder / "a.mp4", {.frames = 1, .key_frames_only = true})) ==
        std::vector{keys[keys.size() / 2]});
}

TEST_CASE("Frames are resized to the size asked for", "[media][video]") {
  const TempDir folder;
  const fs::path path = write_numbered(folder / "a.mp4", 20, {}, 96);
  for (const auto& [height, width] : {std::pair(48, 48), std::pair(33, 47), std::pair(150, 90), std::pair(1, 1)}) {
    const Video video = read_video(path, {.frames = 3, .height = height, .width = width});
    for (const Image& frame : video.frames) {
      CHECK((frame.height == height && frame.width == width));
      CHECK(frame.pixels.size() == static_cast<std::size_t>(3 * height * width));
    }
    if (height > 16) CHECK(numbers_of(video) == std::vector{3, 10, 16});
  }
}

TEST_CASE("Colours survive writing and reading", "[media][video]") {
  const TempDir folder;
  const std::vector<std::array<int, 3>> colours = {{200, 30, 30}, {20, 180, 60}, {40, 60, 210}, {128, 128, 128}};
  for (const auto& colour : colours) {
    Image image{32, 32, {}};
    for (int i = 0; i < 32 * 32 * 3; ++i) {
      image.pixels.push_back(static_cast<std::uint8_t>(colour[static_cast<std::size_t>(i % 3)]));
    }
    write_clip(folder / "a.mp4", std::vector(3, image), kRate);
    const Video video = read_video(folder / "a.mp4", {.frames = 1});
    for (std::size_t i = 0; i < 3; ++i) CHECK(std::abs(video.frames[0].pixels[i] - colour[i]) <= 4);
  }
}

TEST_CASE("A clip is its frames and its sound, in one go as one by one", "[media][video]") {
  const TempDir folder;
  const Audio sound = sweep(2.0);
  const fs::path path = write_numbered(folder / "a.mp4", 50, sound);
  const Clip clip = read_clip(path, {.frames = 8});
  CHECK(clip.video.frames[3].pixels == read_video(path, {.frames = 8}).frames[3].pixels);
  CHECK(clip.audio.sample_rate == kSampleRate);
  CHECK(clip.audio.channels == 1);
  // AAC works in frames of 1,024 samples.
  REQUIRE(clip.audio.samples.size() >= sound.samples.size());
  CHECK(clip.audio.samples.size() < sound.samples.size() + 1024);
  CHECK(correlation(clip.audio.samples.data(), sound.samples.data(), sound.samples.size()) > 0.99);
  CHECK(read_audio(path).samples == clip.audio.samples);

  const Clip part = read_clip(path, {.frames = 0, .start = 1.2, .duration = 0.4}, {.start = 0.75, .duration = 0.5});
  CHECK(numbers_of(part.video) == numbers_of(read_video(path, {.frames = 0, .start = 1.2, .duration = 0.4})));
  REQUIRE(part.audio.samples.size() == kSampleRate / 2);
  CHECK(correlation(part.audio.samples.data(), clip.audio.samples.data() + 12'000, kSampleRate / 2) > 0.999);
  CHECK(read_audio(path, {.start = 0.75, .duration = 0.5}).samples == part.audio.samples);

  const Clip mono = read_clip(path, {.frames = 1}, {.sample_rate = 8'000, .mono = true});
  CHECK(mono.audio.sample_rate == 8'000);
  CHECK(mono.audio.samples.size() == (clip.audio.samples.size() + 1) / 2);
}

TEST_CASE("Six channels and none are fine, no video stream is not", "[media][video]") {
  const TempDir folder;
  const Audio surround = sweep(1.0, 6);
  const Clip clip = read_clip(write_numbered(folder / "surround.mp4", 25, surround), {.frames = 1});
  CHECK(clip.audio.channels == 6);
  CHECK(read_clip(folder / "surround.mp4", {.frames = 1}, {.mono = true}).audio.channels == 1);
  const fs::path silent = write_numbered(folder / "silent.mp4", 25);
  CHECK(read_clip(silent, {.frames = 2}).audio.samples.empty());
  CHECK(read_clip(silent, {.frames = 2}, {.sample_rate = 8'000, .mono = true}).audio.samples.empty());
  CHECK_THROWS_WITH(read_audio(silent), Catch::Contains("no audio stream"));
}

TEST_CASE("What cannot be read gives file and reason", "[media][video]") {
  const TempDir folder;
  const auto refused = [&](const std::string& name, const std::string& why) {
    const std::string text = reason(folder / name);
    INFO(text);
    return text.starts_with("[read_video] " + (folder / name).string() + ": ") && contains(text, why);
  };
  CHECK(refused("missing.mp4", "No such file"));
  fs::create_directory(folder / "directory.mp4");
  CHECK(refused("directory.mp4", "not a regular file"));
  REQUIRE(mkfifo((folder / "pipe.mp4").c_str(), 0600) == 0);
  CHECK(refused("pipe.mp4", "not a regular file"));
  write_bytes(folder / "empty.mp4", {});
  CHECK(refused("empty.mp4", ""));
  const std::string text = "This is no film. It has some lines of text.\n";
  write_bytes(folder / "text.mp4", {text.begin(), text.end()});
  CHECK(refused("text.mp4", "Invalid data"));

  const fs::path good = write_numbered(folder / "good.mp4", 50, sweep(2));
  std::vector<char> half = read_bytes(good);
  half.resize(half.size() / 2);
  write_bytes(folder / "half.mp4", half);
  CHECK(refused("half.mp4", "moov atom not found"));
  fs::copy(good, folder / "http:a b.mp4");
  CHECK(read_video(folder / "http:a b.mp4").frames.size() == 8);
  CHECK(contains(reason(good, {.time_limit = 1e-9}), "the time limit has passed"));

  CHECK_THROWS_AS(read_video(good, {.frames = -1}), ConfigError);
  CHECK_THROWS_AS(read_video(good, {.height = 10}), ConfigError);
  CHECK_THROWS_AS(read_video(good, {.start = -1}), ConfigError);
  CHECK_THROWS_AS(read_clip(good, {}, {.sample_rate = -1}), ConfigError);
}

TEST_CASE("Pictures that the decoder had to guess are refused", "[media][video]") {
  const TempDir folder;
  const std::vector<char> good = read_bytes(write_numbered(folder / "good.mp4", 50));
  // The pictures lie behind the mark 'mdat'.
  const auto data = std::search(good.begin(), good.end(), "mdat", "mdat" + 4) - good.begin();
  int refused = 0;
  for (std::ptrdiff_t at = data + 2000; at + 40 < std::ssize(good) - 4000; at += 997) {
    std::vector<char> bad = good;
    std::fill_n(bad.begin() + at, 40, '\x5A');
    write_bytes(folder / "bad.mp4", bad);
    refused += reason(folder / "bad.mp4", {.frames = 0}).empty() ? 0 : 1;
  }
  CHECK(refused >= 3);
}

TEST_CASE("The writer gives the same bytes for the same input and refuses what it cannot write", "[media][video]") {
  const TempDir folder;
  const Audio sound = sweep(1, 2);
  const std::vector<char> first = read_bytes(write_numbered(folder / "a.mp4", 30, sound));
  const std::vector<char> second = read_bytes(write_numbered(folder / "b.mp4", 30, sound));
  REQUIRE(first.size() == second.size());
  CHECK(std::mismatch(first.begin(), first.end(), second.begin()).first - first.begin() == std::ssize(first));
  CHECK(std::distance(fs::directory_iterator(folder / ""), {}) == 2);

  const std::vector<Image> frames = {numbered(0), numbered(1)};
  const fs::path path = folder / "c.mp4";
  CHECK_THROWS_AS(write_clip(path, {}, kRate), ConfigError);
  CHECK_THROWS_AS(write_clip(path, frames, 0), ConfigError);
  CHECK_THROWS_AS(write_clip(path, std::vector{numbered(0), numbered(1, 32)}, kRate), ConfigError);
  CHECK_THROWS_AS(write_clip(path, std::vector{numbered(0, 33)}, kRate), ConfigError);
  CHECK_THROWS_AS(write_clip(path, frames, kRate, Audio{kSampleRate, 2, std::vector<float>(3)}), ConfigError);
  CHECK_THROWS_AS(write_clip(path, frames, kRate, Audio{1234, 1, std::vector<float>(3000)}), Error);
  CHECK_THROWS_WITH(write_clip(folder / "no/such/d.mp4", frames, kRate), Catch::Contains("no/such/d.mp4"));
  CHECK_FALSE(fs::exists(path));
}

TEST_CASE("Threads read at the same time what one reads", "[media][video]") {
  const TempDir folder;
  const fs::path path = write_numbered(folder / "a.mp4", 40, sweep(1.6));
  const Clip expected = read_clip(path, {.frames = 4, .height = 40, .width = 40});
  std::vector<int> equal(4);
  std::vector<std::thread> threads;
  for (int& result : equal) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10; ++i) {
        const Clip clip = read_clip(path, {.frames = 4, .height = 40, .width = 40});
        bool same = clip.audio.samples == expected.audio.samples;
        for (std::size_t k = 0; k < 4; ++k)
          same = same && clip.video.frames[k].pixels == expected.video.frames[k].pixels;
        result += same ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(equal == std::vector{10, 10, 10, 10});
}

TEST_CASE("200 cut or damaged files are read or refused with a reason, each in less than 5 s",
          "[media][video][damage]") {
  const TempDir folder;
  const Audio sound = sweep(1.2, 2);
  write_numbered(folder / "good.mp4", 30, sound);
  std::vector<char> wav(44 + 2 * sound.samples.size());
  const auto put = [&](std::size_t at, std::uint32_t value, std::size_t size) { std::memcpy(&wav[at], &value, size); };
  std::memcpy(wav.data(), "RIFF....WAVEfmt ", 16);
  put(4, static_cast<std::uint32_t>(wav.size() - 8), 4);
  put(16, 16, 4);
  put(20, 1, 2);
  put(22, 2, 2);
  put(24, kSampleRate, 4);
  put(28, 4 * kSampleRate, 4);
  put(32, 4, 2);
  put(34, 16, 2);
  std::memcpy(&wav[36], "data", 4);
  put(40, static_cast<std::uint32_t>(2 * sound.samples.size()), 4);
  for (std::size_t i = 0; i < sound.samples.size(); ++i) {
    const auto sample = static_cast<std::int16_t>(32767 * sound.samples[i]);
    std::memcpy(&wav[44 + 2 * i], &sample, 2);
  }
  write_bytes(folder / "good.wav", wav);
  const std::vector<std::byte> jpeg = encode_jpeg(numbered(77).view());
  std::vector<char> jpg(jpeg.size());
  std::memcpy(jpg.data(), jpeg.data(), jpeg.size());
  write_bytes(folder / "good.jpg", jpg);

  const auto read = [](const fs::path& path) {
    if (path.extension() == ".mp4")
      return read_clip(path, {.frames = 8, .height = 56, .width = 56}).video.frames.size() == 8;
    if (path.extension() == ".wav") return read_audio(path).sample_rate > 0;
    return read_image(path).height > 0;
  };
  std::mt19937 random(2024);
  int well = 0, refused = 0;
  for (int i = 0; i < 200; ++i) {
    const std::string kind = i % 5 < 3 ? ".mp4" : i % 5 == 3 ? ".wav" : ".jpg";
    std::vector<char> bytes = read_bytes(folder / ("good" + kind));
    if (i % 2 == 0) {
      bytes.resize(random() % bytes.size());
    } else {
      // Headers are where damage does most: half of the flips go there or to the end of the file.
      for (unsigned flips = 1 + random() % 12; flips > 0; --flips) {
        const std::size_t zone = random() % 4;
        const std::size_t from = zone == 0   ? random() % std::min<std::size_t>(bytes.size(), 256)
                                 : zone == 1 ? bytes.size() - 1 - random() % std::min<std::size_t>(bytes.size(), 2500)
                                             : random() % bytes.size();
        bytes[from] = static_cast<char>(bytes[from] ^ (1 << random() % 8));
      }
    }
    const fs::path path = folder / ("bad" + std::to_string(i) + kind);
    write_bytes(path, bytes);
    const auto begin = std::chrono::steady_clock::now();
    try {
      const bool complete = read(path);
      CHECK(complete);
      ++well;
    } catch (const DataError& error) {
      const std::string text = error.what();
      INFO(text);
      const std::size_t place = text.find(path.string() + ": ");
      REQUIRE(place != std::string::npos);
      CHECK(text.size() > place + path.string().size() + 4);
      ++refused;
    }
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
    fs::remove(path);
  }
  CHECK(refused >= 60);
  CHECK(well >= 20);
}

// With sanitizers memory is kept aside on purpose; they report leaks themselves.
#if !defined(__SANITIZE_ADDRESS__)
TEST_CASE("A thousand clips leave memory as it was after fifty", "[media][video]") {
  const TempDir folder;
  const fs::path path = write_numbered(folder / "a.mp4", 25, sweep(1), 96);
  std::vector<char> bytes = read_bytes(path);
  bytes.resize(bytes.size() * 3 / 4);
  write_bytes(folder / "bad.mp4", bytes);
  double before = 0;
  for (int i = 0; i < 1000; ++i) {
    if (i == 50) before = resident_megabytes();
    const Clip clip = read_clip(path, {.frames = 2, .height = 64, .width = 64}, {.sample_rate = 8'000, .mono = true});
    if (i % 10 == 0) CHECK_FALSE(reason(folder / "bad.mp4").empty());
    if (i % 100 == 0) CHECK(clip.video.frames.size() == 2);
  }
  CHECK(resident_megabytes() - before < 50);
}
#endif
