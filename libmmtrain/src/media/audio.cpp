#include "mmtrain/media/audio.h"

#include <fmt/format.h>
#include <sndfile.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <memory>
#include <span>
#include <system_error>

#include "media/audio_convert.h"
#include "media/av_audio.h"
#include "mmtrain/core/error.h"

namespace mmtrain::media {
namespace {

struct CloseFile {
  void operator()(SNDFILE* file) const { sf_close(file); }
};
using File = std::unique_ptr<SNDFILE, CloseFile>;

/// A raw AAC stream begins like an MP3 frame of a layer that does not exist, which libsndfile takes for a broken MP3.
bool is_aac(const std::filesystem::path& path) {
  std::array<unsigned char, 2> head{};
  std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(head.data()), head.size());
  return head[0] == 0xFF && (head[1] & 0xF6) == 0xF0;
}

/// Whether libsndfile refuses the file for what it is, not for being broken.
bool is_other_format(int error, const std::filesystem::path& path) {
  return error == SF_ERR_UNRECOGNISED_FORMAT || error == SF_ERR_UNSUPPORTED_ENCODING || is_aac(path);
}

std::string reason_of(SNDFILE* file) {
  std::string text = sf_strerror(file);
  while (!text.empty() && (text.back() == '.' || text.back() == '\n')) text.pop_back();
  return text;
}

/// Reads from here on. What the header says of the length is not trusted: memory grows with what is really there.
void read_frames(SNDFILE* file, std::int64_t frames, Audio& audio) {
  constexpr std::int64_t kChunk = 1 << 16;
  const auto channels = static_cast<std::size_t>(audio.channels);
  audio.samples.reserve(static_cast<std::size_t>(std::min(frames, 16 * kChunk)) * channels);
  while (frames > 0) {
    const std::int64_t wanted = std::min(frames, kChunk);
    const std::size_t before = audio.samples.size();
    audio.samples.resize(before + static_cast<std::size_t>(wanted) * channels);
    const std::int64_t got = std::max<std::int64_t>(sf_readf_float(file, audio.samples.data() + before, wanted), 0);
    frames -= got;
    if (got == wanted) continue;
    audio.samples.resize(before + static_cast<std::size_t>(got) * channels);
    if (sf_error(file) != SF_ERR_NO_ERROR) throw DataError(reason_of(file));
    break;
  }
}

/// Where Ogg's codecs, which put the centre second, have the channels of a WAV file; nothing where the order is the
/// same.
std::span<const int> ogg_channels(int channels) {
  static constexpr int k3[] = {0, 2, 1}, k5[] = {0, 2, 1, 3, 4}, k6[] = {0, 2, 1, 5, 3, 4};
  static constexpr int k7[] = {0, 2, 1, 6, 5, 3, 4}, k8[] = {0, 2, 1, 7, 5, 6, 3, 4};
  switch (channels) {
    case 3:
      return k3;
    case 5:
      return k5;
    case 6:
      return k6;
    case 7:
      return k7;
    case 8:
      return k8;
    default:
      return {};
  }
}

void reorder_channels(Audio& audio, std::span<const int> sources) {
  if (sources.empty()) return;
  std::vector<float> frame(sources.size());
  for (auto at = audio.samples.begin(); at != audio.samples.end(); at += audio.channels) {
    for (std::size_t i = 0; i < frame.size(); ++i) frame[i] = at[sources[i]];
    std::copy(frame.begin(), frame.end(), at);
  }
}

/// Errors hold the reason alone.
Audio read(const std::filesystem::path& path, const AudioOptions& options) {
  std::error_code missing;
  const bool is_file = std::filesystem::is_regular_file(path, missing);
  if (missing) throw DataError(missing.message());
  if (!is_file) throw DataError("not a file");
  SF_INFO info{};
  const File file(sf_open(path.c_str(), SFM_READ, &info));
  if (file == nullptr) {
    if (is_other_format(sf_error(nullptr), path)) return detail::decode_av_audio(path, options);
    throw DataError(reason_of(nullptr));
  }

  Audio audio{info.samplerate, info.channels, {}};
  const auto in_frames = [&](double seconds) -> std::int64_t {
    return std::llround(std::min(seconds * info.samplerate, 9e18));
  };
  const std::int64_t start = in_frames(options.start);
  if (start > 0 && start >= info.frames) {
    throw DataError(fmt::format("the span starts at {} s, the file has {:.3f} s", options.start,
                                static_cast<double>(info.frames) / info.samplerate));
  }
  if (start > 0 && sf_seek(file.get(), start, SEEK_SET) != start) throw DataError(reason_of(file.get()));
  std::int64_t frames = info.frames - start;
  if (options.duration >= 0) frames = std::min(frames, in_frames(options.duration));
  read_frames(file.get(), frames, audio);
  if ((info.format & SF_FORMAT_TYPEMASK) == SF_FORMAT_OGG) reorder_channels(audio, ogg_channels(audio.channels));
  return audio;
}

}  // namespace

Audio read_audio(const std::filesystem::path& path, const AudioOptions& options) {
  detail::validate(options);
  try {
    return detail::convert_audio(read(path, options), options);
  } catch (const DataError& error) {
    throw DataError(fmt::format("[read_audio] {}: {}", path.string(), error.what()));
  }
}

}  // namespace mmtrain::media
