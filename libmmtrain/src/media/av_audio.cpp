#include "media/av_audio.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "media/av_audio_reader.h"
#include "mmtrain/core/error.h"

namespace mmtrain::media::detail {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();
/// Seconds decoded before a span, for codecs whose packets lean on earlier ones.
constexpr double kLead = 0.3;
/// Up to here sound is decoded from the beginning where timestamps do not tell single samples.
constexpr double kCountedSeconds = 60;
constexpr int kMaxRate = 768'000;
constexpr int kMaxChannels = 64;

float to_float(std::uint8_t sample) { return static_cast<float>(sample - 128) / 128.0F; }
float to_float(std::int16_t sample) { return static_cast<float>(sample) / 32768.0F; }
float to_float(std::int32_t sample) { return static_cast<float>(sample) / 2147483648.0F; }
float to_float(std::int64_t sample) { return static_cast<float>(static_cast<double>(sample) / 9223372036854775808.0); }
float to_float(float sample) { return sample; }
float to_float(double sample) { return static_cast<float>(sample); }

/// Writes samples `begin` to `end` of a frame interleaved.
template <class T>
void interleave(const AVFrame& frame, bool planar, int channels, std::int64_t begin, std::int64_t end, float* to) {
  if (!planar || channels == 1) {
    const T* from = reinterpret_cast<const T*>(frame.extended_data[0]);
    std::transform(from + begin * channels, from + end * channels, to, [](T sample) { return to_float(sample); });
    return;
  }
  for (int c = 0; c < channels; ++c) {
    const T* from = reinterpret_cast<const T*>(frame.extended_data[c]);
    float* out = to + c;
    for (std::int64_t i = begin; i < end; ++i, out += channels) *out = to_float(from[i]);
  }
}

/// Seconds to samples; an endless span ends far away, where sums do not overflow.
std::int64_t to_samples(double seconds, int rate) { return std::llround(std::min(seconds, 1e9) * rate); }

}  // namespace

AvAudioReader::AvAudioReader(AvDemuxer& file, double start, double duration)
    : file_(file),
      stream_(*file.audio()),
      decoder_(file, stream_),
      start_(start),
      end_(duration < 0 ? kNoLimit : start + duration),
      skip_before_(INT64_MIN) {
  const double first = first_needed(stream_, start);
  if (first > 0) skip_before_ = file.timestamp(stream_, first);
}

double AvAudioReader::first_needed(const AVStream& stream, double start) {
  const bool exact = av_q2d(stream.time_base) * stream.codecpar->sample_rate <= 1;
  return exact || start > kCountedSeconds ? start - kLead : 0;
}

bool AvAudioReader::is_past(std::int64_t timestamp) const {
  return timestamp != AV_NOPTS_VALUE && file_.time(stream_, timestamp) >= end_;
}

void AvAudioReader::decode(const AVPacket& packet) {
  if (packet.pts != AV_NOPTS_VALUE && (packet.pts < skip_before_ || is_past(packet.pts))) return;
  decoder_.decode(&packet, [&](AVFrame& frame) { append(frame); });
}

void AvAudioReader::begin(const AVFrame& frame) {
  const int channels = frame.ch_layout.nb_channels;
  const int rate = frame.sample_rate;
  if (rate <= 0 || rate > kMaxRate || channels <= 0 || channels > kMaxChannels) {
    throw DataError(fmt::format("sound of {} Hz and {} channels", rate, channels));
  }
  audio_.sample_rate = rate;
  audio_.channels = channels;
  const double time = frame.pts == AV_NOPTS_VALUE ? 0 : file_.time(stream_, frame.pts);
  position_ = std::llround(time * rate);
  // Timestamps in milliseconds miss the sample that the sound most likely starts with.
  const double tolerance = 1.5 * av_q2d(stream_.time_base) * rate;
  for (const std::int64_t likely : {std::int64_t{0}, -std::int64_t{stream_.codecpar->initial_padding}}) {
    if (std::abs(static_cast<double>(position_ - likely)) <= tolerance) position_ = likely;
  }
  // Silence up to where the stream starts, but not for times that cannot be.
  const double late = std::min({time, end_, file_.duration(stream_)}) - start_;
  if (position_ > 0 && late > 0) {
    audio_.samples.resize(static_cast<std::size_t>(to_samples(late, rate) * channels));
  }
}

void AvAudioReader::append(const AVFrame& frame) {
  const int channels = frame.ch_layout.nb_channels;
  const int rate = frame.sample_rate;
  if (audio_.sample_rate == 0) begin(frame);
  if (rate != audio_.sample_rate || channels != audio_.channels) {
    throw DataError(fmt::format("the sound changes from {} Hz and {} channels to {} and {}", audio_.sample_rate,
                                audio_.channels, rate, channels));
  }

  const std::int64_t count = frame.nb_samples;
  const std::int64_t begin = std::clamp<std::int64_t>(to_samples(start_, rate) - position_, 0, count);
  const std::int64_t end = std::clamp<std::int64_t>(to_samples(end_, rate) - position_, begin, count);
  position_ += count;
  const std::size_t old_size = audio_.samples.size();
  audio_.samples.resize(old_size + static_cast<std::size_t>((end - begin) * channels));
  float* to = audio_.samples.data() + old_size;
  const auto format = static_cast<AVSampleFormat>(frame.format);
  const bool planar = av_sample_fmt_is_planar(format) != 0;
  switch (av_get_packed_sample_fmt(format)) {
    case AV_SAMPLE_FMT_U8:
      return interleave<std::uint8_t>(frame, planar, channels, begin, end, to);
    case AV_SAMPLE_FMT_S16:
      return interleave<std::int16_t>(frame, planar, channels, begin, end, to);
    case AV_SAMPLE_FMT_S32:
      return interleave<std::int32_t>(frame, planar, channels, begin, end, to);
    case AV_SAMPLE_FMT_S64:
      return interleave<std::int64_t>(frame, planar, channels, begin, end, to);
    case AV_SAMPLE_FMT_FLT:
      return interleave<float>(frame, planar, channels, begin, end, to);
    case AV_SAMPLE_FMT_DBL:
      return interleave<double>(frame, planar, channels, begin, end, to);
    default:
      throw DataError(fmt::format("samples of an unknown format ({})", frame.format));
  }
}

Audio AvAudioReader::finish() {
  decoder_.decode(nullptr, [&](AVFrame& frame) { append(frame); });
  return std::move(audio_);
}

Audio decode_av_audio(const std::filesystem::path& path, const AudioOptions& options) {
  AvDemuxer file(path, /*time_limit=*/60);
  if (file.audio() == nullptr) throw DataError("no audio stream");
  file.select(/*video=*/false, /*audio=*/true);
  const double first = AvAudioReader::first_needed(*file.audio(), options.start);
  if (first > 0) file.seek(*file.audio(), file.timestamp(*file.audio(), first));
  AvAudioReader reader(file, options.start, options.duration);
  for (const PacketPtr packet = make_packet(); file.read(*packet) && !reader.is_past(packet->pts);) {
    reader.decode(*packet);
  }
  Audio audio = reader.finish();
  if (audio.sample_rate == 0) throw DataError("no sound in the span");
  return audio;
}

}  // namespace mmtrain::media::detail
