#include "catch.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numbers>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "mmtrain/core/cpu_features.h"
#include "mmtrain/core/error.h"
#include "mmtrain/media/audio.h"
#include "mmtrain/media/filters.h"
#include "mmtrain/media/resample.h"
#include "mmtrain/media/spectral.h"
#include "temp_dir.h"

// What the numbers should be is checked against Python in tests/python/audio_parity.py.
namespace {

using namespace mmtrain;
using namespace mmtrain::media;
using fixtures::TempDir;

std::vector<float> noise(std::size_t size, unsigned seed = 1) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(size);
  for (float& value : values) value = uniform(generator);
  return values;
}

std::vector<double> sine(std::size_t size, double hz, double fs) {
  std::vector<double> values(size);
  for (std::size_t i = 0; i < size; ++i) values[i] = std::sin(2 * std::numbers::pi * hz * static_cast<double>(i) / fs);
  return values;
}

double largest(std::span<const double> values) {
  double most = 0;
  for (const double value : values) most = std::max(most, std::abs(value));
  return most;
}

std::vector<SimdLevel> levels() {
  std::vector<SimdLevel> available;
  for (const SimdLevel level : {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512}) {
    if (level <= best_simd_level()) available.push_back(level);
  }
  return available;
}

/// Switches kernels and switches back.
class LevelGuard {
 public:
  LevelGuard() : before_(simd_level()) {}
  ~LevelGuard() { set_simd_level(before_); }

 private:
  SimdLevel before_;
};

/// A WAV file of 16-bit samples.
std::string wav(int channels, int rate, const std::vector<std::int16_t>& samples) {
  std::string bytes;
  const auto number = [&](std::uint32_t value, int size) {
    for (int i = 0; i < size; ++i) bytes += static_cast<char>(value >> (8 * i));
  };
  const auto data = static_cast<std::uint32_t>(2 * samples.size()), frame = static_cast<std::uint32_t>(2 * channels);
  bytes += "RIFF";
  number(36 + data, 4);
  bytes += "WAVEfmt ";
  number(16, 4);
  number(1, 2);
  number(static_cast<std::uint32_t>(channels), 2);
  number(static_cast<std::uint32_t>(rate), 4);
  number(static_cast<std::uint32_t>(rate) * frame, 4);
  number(frame, 2);
  number(16, 2);
  bytes += "data";
  number(data, 4);
  for (const std::int16_t sample : samples) number(static_cast<std::uint16_t>(sample), 2);
  return bytes;
}

std::filesystem::path written(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string reason(const std::filesystem::path& path, const AudioOptions& options = {}) {
  try {
    read_audio(path, options);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::vector<std::int16_t> ramp(int size) {
  std::vector<std::int16_t> samples;
  for (int i = 0; i < size; ++i) samples.push_back(static_cast<std::int16_t>(i));
  return samples;
}

}  // namespace

TEST_CASE("A wav file is read with its rate, channels and exact samples", "[audio][file]") {
  const TempDir folder;
  const Audio audio = read_audio(written(folder / "a.wav", wav(2, 8000, {0, 16384, -32768, 32767, 1, -1})));
  CHECK(audio.sample_rate == 8000);
  CHECK(audio.channels == 2);
  CHECK(audio.frames() == 3);
  CHECK(audio.seconds() == 3.0 / 8000);
  CHECK(audio.samples == std::vector<float>{0, 0.5F, -1, 32767 / 32768.0F, 1 / 32768.0F, -1 / 32768.0F});
}

TEST_CASE("A span of a file is cut at the nearest sample, and ends where the file does", "[audio][file]") {
  const TempDir folder;
  const auto path = written(folder / "a.wav", wav(1, 1000, ramp(1000)));
  const Audio part = read_audio(path, {.start = 0.25, .duration = 0.1});
  REQUIRE(part.frames() == 100);
  CHECK(part.samples[0] == 250 / 32768.0F);
  CHECK(part.samples[99] == 349 / 32768.0F);
  CHECK(read_audio(path, {.start = 0.9, .duration = 5}).frames() == 100);
  CHECK(read_audio(path, {.duration = 0}).frames() == 0);
  CHECK(read_audio(path, {.duration = 1e300}).frames() == 1000);
}

TEST_CASE("What is no sound is refused with the file's name and the reason", "[audio][file]") {
  const TempDir folder;
  CHECK(contains(reason(folder / "missing.wav"), "missing.wav: No such file"));
  CHECK(contains(reason(folder / ""), "not a file"));
  CHECK(contains(reason(written(folder / "a.txt", "no sound at all, but some text")), "a.txt: "));
  CHECK_FALSE(reason(written(folder / "empty.wav", "")).empty());
  CHECK_FALSE(reason(written(folder / "head.wav", wav(1, 8000, ramp(100)).substr(0, 30))).empty());
  const auto path = written(folder / "b.wav", wav(1, 1000, ramp(1000)));
  CHECK(contains(reason(path, {.start = 1}), "starts at 1 s, the file has 1.000 s"));
  CHECK_THROWS_AS(read_audio(path, {.start = -1}), ConfigError);
  CHECK_THROWS_AS(read_audio(path, {.start = std::nan("")}), ConfigError);
  CHECK_THROWS_AS(read_audio(path, {.duration = std::nan("")}), ConfigError);
  CHECK_THROWS_AS(read_audio(path, {.sample_rate = -1}), ConfigError);
}

TEST_CASE("A file that is cut off gives the samples that are there", "[audio][file]") {
  const TempDir folder;
  const std::string whole = wav(1, 8000, ramp(5000));
  const Audio audio = read_audio(written(folder / "cut.wav", whole.substr(0, 44 + 2 * 1234)));
  REQUIRE(audio.frames() == 1234);
  CHECK(audio.samples[1233] == 1233 / 32768.0F);
}

TEST_CASE("Broken headers are read or refused, never worse", "[audio][file]") {
  const TempDir folder;
  const std::string whole = wav(2, 8000, ramp(64));
  std::mt19937 generator(1);
  int refused = 0;
  for (int round = 0; round < 300; ++round) {
    std::string bytes = whole;
    for (int flips = 0; flips < 4; ++flips) bytes[generator() % 44] ^= static_cast<char>(1 << generator() % 8);
    const auto path = written(folder / "broken.wav", bytes);
    try {
      const Audio audio = read_audio(path);
      CHECK(audio.samples.size() <= 16 * whole.size());  // some codecs pack samples
    } catch (const DataError& error) {
      ++refused;
      CHECK(contains(error.what(), "broken.wav: "));
    }
  }
  CHECK(refused > 0);
}

TEST_CASE("Mixing to mono takes the mean of two channels and weighs the centre of six", "[audio]") {
  CHECK(mix_to_mono({8000, 2, {1, 0, 0.5F, 0.5F}}) == std::vector<float>{0.5F, 0.5F});
  CHECK(mix_to_mono({8000, 1, {1, 0}}) == std::vector<float>{1, 0});
  const std::vector<float> centre = mix_to_mono({8000, 6, {0, 0, 1, 0, 0, 0}});
  const std::vector<float> low = mix_to_mono({8000, 6, {0, 0, 0, 1, 0, 0}});
  const std::vector<float> all = mix_to_mono({8000, 6, {1, 1, 1, 1, 1, 1}});
  CHECK(centre[0] == Approx(1 / (2 + std::numbers::sqrt2)));
  CHECK(low[0] == 0);
  CHECK(all[0] == Approx(1));
  CHECK(mix_to_mono({8000, 6, {}}).empty());
}

TEST_CASE("Resampling changes rate and length of all channels", "[audio][resample]") {
  const TempDir folder;
  const auto path = written(folder / "a.wav", wav(2, 1000, ramp(2000)));
  const Audio audio = read_audio(path, {.sample_rate = 1600});
  CHECK(audio.sample_rate == 1600);
  CHECK(audio.frames() == 1600);
  const Audio mono = read_audio(path, {.sample_rate = 1600, .mono = true});
  CHECK(mono.channels == 1);
  CHECK(mono.frames() == 1600);
  CHECK(mono.samples[800] == Approx((audio.samples[1600] + audio.samples[1601]) / 2));
  CHECK(resample(std::vector<float>(7), 3, 2).size() == 5);
  CHECK_THROWS_AS(Resampler(0, 1), ConfigError);
  std::vector<float> wrong(4);
  CHECK_THROWS_AS(Resampler(3, 2)(std::vector<float>(7), wrong), DataError);
}

TEST_CASE("A tone keeps its pitch and loudness when it is resampled, and one above the limit vanishes",
          "[audio][resample]") {
  std::vector<float> low, high;
  for (const double value : sine(48000, 440, 48000)) low.push_back(static_cast<float>(value));
  for (const double value : sine(48000, 12000, 48000)) high.push_back(static_cast<float>(value));
  const std::vector<double> wanted = sine(16000, 440, 16000);
  const std::vector<float> kept = resample(low, 48000, 16000), gone = resample(high, 48000, 16000);
  for (std::size_t i = 100; i < 15900; ++i) {
    REQUIRE(kept[i] == Approx(wanted[i]).margin(2e-3));
    REQUIRE(std::abs(gone[i]) < 2e-3);
  }
}

TEST_CASE("All vector levels and any number of threads give the same bits", "[spectral][simd]") {
  const LevelGuard guard;
  const std::vector<float> samples = noise(16001);
  const Stft stft({.n_fft = 512, .hop = 100});
  const MelSpectrogram mel({.log = MelLog::decibel, .top_db = 60}), odd({.n_fft = 401, .log = MelLog::natural});
  const Mfcc mfcc;
  const auto bits_of = [&] {
    std::vector<float> all = mel(samples);
    for (const auto& part : {odd(samples), mfcc(samples), stft.power(samples), resample(samples, 44100, 16000)}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    for (const std::complex<float> value : stft(samples)) all.insert(all.end(), {value.real(), value.imag()});
    return all;
  };
  set_simd_level(SimdLevel::scalar);
  const std::vector<float> expected = bits_of();
  for (const SimdLevel level : levels()) {
    set_simd_level(level);
    INFO(simd_level_name(level));
    CHECK(bits_of() == expected);
    std::vector<std::vector<float>> results(4);
    std::vector<std::thread> threads;
    for (auto& result : results) threads.emplace_back([&] { result = bits_of(); });
    for (std::thread& thread : threads) thread.join();
    for (const auto& result : results) CHECK(result == expected);
  }
}

TEST_CASE("A frame does not feel its neighbors", "[spectral]") {
  // Silence beside the loudest sound is exactly silent, and a part of a recording has the frames of the whole.
  std::vector<float> samples = noise(16000);
  std::fill(samples.begin() + 8000, samples.end(), 0.0F);
  const StftOptions options{.n_fft = 400, .hop = 160, .center = false};
  const Stft stft(options);
  const std::vector<float> power = stft.power(samples);
  const std::size_t bins = static_cast<std::size_t>(stft.bins()), frames = power.size() / bins;
  for (std::size_t bin = 0; bin < bins; ++bin) {
    for (std::size_t frame = 50; frame < frames; ++frame) REQUIRE(power[bin * frames + frame] == 0);
  }
  const std::vector<float> one = stft.power(std::span(samples).subspan(160 * 7, 400));
  for (std::size_t bin = 0; bin < bins; ++bin) CHECK(one[bin] == power[bin * frames + 7]);
}

TEST_CASE("The number of frames follows torch.stft", "[spectral]") {
  CHECK(frame_count({.n_fft = 400, .hop = 160}, 16000) == 101);
  CHECK(frame_count({.n_fft = 401, .hop = 160}, 159) == 1);
  CHECK(frame_count({.n_fft = 400, .hop = 160}, 1) == 1);
  CHECK(frame_count({.n_fft = 400, .hop = 160}, 0) == 0);
  CHECK(frame_count({.n_fft = 400, .hop = 160, .center = false}, 399) == 0);
  CHECK(frame_count({.n_fft = 400, .hop = 160, .center = false}, 560) == 2);
  CHECK(MelSpectrogram()(std::vector<float>{}).empty());
  std::vector<float> wrong(63);
  CHECK_THROWS_AS(MelSpectrogram()(std::vector<float>(1), wrong), DataError);
}

TEST_CASE("A signal shorter than its padding is mirrored again and again", "[spectral]") {
  std::vector<std::int64_t> mirrored, repeated;
  for (std::int64_t i = -4; i < 7; ++i) {
    mirrored.push_back(padded_index(PadMode::reflect, i, 3));
    repeated.push_back(padded_index(PadMode::replicate, i, 3));
  }
  CHECK(mirrored == std::vector<std::int64_t>{0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2});
  CHECK(repeated == std::vector<std::int64_t>{0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2});
  CHECK(padded_index(PadMode::reflect, -9, 1) == 0);
  CHECK(padded_index(PadMode::constant, 3, 3) == -1);
}

TEST_CASE("A sample that is no number shows in its frames, also in decibels", "[spectral]") {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> samples = noise(16000);
    samples[8000] = bad;
    const MelSpectrogram mel({.log = MelLog::decibel});
    const std::vector<float> values = mel(samples);
    CHECK(std::isnan(values[50]));
    CHECK(std::isfinite(values[10]));
    CHECK(std::isfinite(values[90]));
  }
}

TEST_CASE("Options without meaning are refused by name", "[spectral]") {
  const auto message = [](const MelOptions& options) -> std::string {
    try {
      const MelSpectrogram mel(options);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  CHECK(contains(message({.n_fft = 0}), "n_fft"));
  CHECK(contains(message({.hop = 0}), "hop"));
  CHECK(contains(message({.window_length = 401}), "window_length"));
  CHECK(contains(message({.n_mels = 0}), "n_mels"));
  CHECK(contains(message({.f_min = 9000}), "f_max"));
  CHECK(contains(message({.power = 3}), "power"));
  CHECK(contains(message({.floor = 0}), "floor"));
  CHECK(contains(message({.top_db = 80}), "top_db"));
  CHECK_THROWS_AS(Mfcc({.n_mfcc = 65}), ConfigError);
  CHECK_THROWS_AS(Mfcc({.mel = {}}), ConfigError);
  CHECK_THROWS_AS(Stft({.hop = -1}), ConfigError);
}

TEST_CASE("A notch takes out its frequency and leaves the others", "[filters]") {
  const Sos notch = iir_notch(10, 5, 100);
  std::vector<double> hit = sine(2000, 10, 100), passed = sine(2000, 25, 100);
  filtfilt(notch, hit);
  filtfilt(notch, passed);
  CHECK(largest(std::span(hit).subspan(500, 1000)) < 1e-3);
  CHECK(largest(std::span(passed).subspan(500, 1000)) == Approx(1).epsilon(0.02));
}

TEST_CASE("filtfilt keeps the phase and the mean that a low-pass lets through", "[filters]") {
  const Sos filter = butterworth(4, {.high = 20}, 100);
  const std::vector<double> original = sine(1000, 2, 100);
  std::vector<double> shifted = original;
  for (double& value : shifted) value += 1e5;
  filtfilt(filter, shifted);
  for (std::size_t i = 100; i < 900; ++i) REQUIRE(shifted[i] - 1e5 == Approx(original[i]).margin(1e-3));
}

TEST_CASE("Filters refuse impossible designs and series shorter than their padding", "[filters]") {
  CHECK_THROWS_AS(iir_notch(50, 30, 100), ConfigError);
  CHECK_THROWS_AS(iir_notch(10, 0, 100), ConfigError);
  CHECK_THROWS_AS(butterworth(0, {.low = 1}, 100), ConfigError);
  CHECK_THROWS_AS(butterworth(2, {}, 100), ConfigError);
  CHECK_THROWS_AS(butterworth(2, {.low = 50}, 100), ConfigError);
  CHECK_THROWS_AS(butterworth(2, {.low = 9, .high = 9}, 100), ConfigError);
  CHECK_THROWS_AS(butterworth(2, {.low = -1}, 100), ConfigError);
  const Sos filter = butterworth(3, {.low = 0.5, .high = 15}, 100);
  CHECK(filtfilt_padding(filter) == 21);
  std::vector<double> series(21);
  CHECK_THROWS_AS(filtfilt(filter, series), DataError);
  series.push_back(0);
  CHECK_NOTHROW(filtfilt(filter, series));
}

TEST_CASE("The segments of a series have scipy's shape and the amplitude of a sine", "[filters]") {
  const std::vector<double> series = sine(500, 25, 100);
  const SegmentSpectrum spectrum = stft(series);
  CHECK(spectrum.bins == 129);
  CHECK(spectrum.frames == 5);
  CHECK(std::abs(spectrum.values[64 * 5 + 2]) == Approx(0.5).epsilon(1e-6));
  CHECK(stft(series, {.boundary = false, .padded = false}).frames == 2);
  CHECK_THROWS_AS(stft(std::span(series).first(255)), DataError);
  CHECK_THROWS_AS(stft(series, {.segment = 256, .overlap = 256}), ConfigError);
}
