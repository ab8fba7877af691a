#include "mmtrain/media/video.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <optional>
#include <string_view>
#include <utility>

#include "media/audio_convert.h"
#include "media/av_audio_reader.h"
#include "media/av_demuxer.h"
#include "media/frame_scaler.h"
#include "mmtrain/core/error.h"

namespace mmtrain::media {
namespace {

using namespace detail;

/// Seconds read around a span: a frame's places in the file and on the screen may lie some frames apart.
constexpr double kVideoLead = 0.5;

/// One frame as the file holds it, in the order of decoding.
struct CodedFrame {
  PacketPtr packet;
  bool key() const { return (packet->flags & AV_PKT_FLAG_KEY) != 0; }
  /// Before the edit list's beginning: needed to decode others, never shown.
  bool hidden() const { return (packet->flags & AV_PKT_FLAG_DISCARD) != 0; }
};

/// Which `count` of `available` things are taken, uniformly; all for 0.
std::vector<std::size_t> place_uniformly(std::size_t available, int count) {
  const std::size_t wanted = count == 0 ? available : static_cast<std::size_t>(count);
  std::vector<std::size_t> places(wanted);
  for (std::size_t i = 0; i < wanted; ++i) places[i] = (2 * i + 1) * available / (2 * wanted);
  return places;
}

bool is_damaged(const AVFrame& frame) {
  return frame.decode_error_flags != 0 || (frame.flags & AV_FRAME_FLAG_CORRUPT) != 0;
}

/// Collects the packets of a span, then decodes what its wanted frames need.
class FrameReader {
 public:
  FrameReader(AvDemuxer& file, const VideoOptions& options)
      : file_(file),
        stream_(*file.video()),
        options_(options),
        begin_(options.start > 0 ? file.timestamp(stream_, options.start) : INT64_MIN),
        end_(options.duration < 0 ? INT64_MAX : file.timestamp(stream_, options.start + options.duration)),
        last_(options.duration < 0 ? INT64_MAX
                                   : file.timestamp(stream_, options.start + options.duration + kVideoLead)),
        scaler_(options.height, options.width) {}

  /// Whether no frame of the span can follow.
  bool is_past(const AVPacket& packet) const { return packet.dts != AV_NOPTS_VALUE && packet.dts >= last_; }

  void add(const AVPacket& packet) {
    // What the span's frames need starts at the last key frame before it.
    if ((packet.flags & AV_PKT_FLAG_KEY) != 0 && packet.pts != AV_NOPTS_VALUE && packet.pts <= begin_) {
      coded_.clear();
      held_ = 0;
    }
    PacketPtr kept(av_packet_clone(&packet));
    if (kept == nullptr) throw std::bad_alloc();
    coded_.push_back({std::move(kept)});
    held_ += packet.size;
    if (held_ > options_.memory_limit) let_go();
  }

  Video finish() {
    file_.select(/*video=*/true, /*audio=*/false);  // if it is to be read again
    Video video;
    if (!decode_by_packets(video)) {
      video = {};
      decode_by_trial(video);
    }
    video.duration = file_.duration(stream_);
    if (video.duration == 0) video.duration = video.times.back();
    return video;
  }

 private:
  /// Keeps what packets say of themselves and drops what they hold.
  void let_go() {
    for (CodedFrame& frame : coded_) av_buffer_unref(&frame.packet->buf);
    held_ = 0;
  }

  /// A packet with what it holds. Those let go are read again, cheapest in their order.
  const AVPacket& packet(std::size_t i) {
    const AVPacket& known = *coded_[i].packet;
    if (known.buf != nullptr) return known;
    const std::int64_t timestamp = known.pts != AV_NOPTS_VALUE ? known.pts : known.dts;
    if (i != next_again_ && !file_.seek(stream_, timestamp)) {
      throw DataError(fmt::format("more than {} bytes of video, and its format allows no jumps: read a shorter span",
                                  options_.memory_limit));
    }
    while (file_.read(*again_)) {
      if (again_->pts != known.pts || again_->dts != known.dts) continue;
      next_again_ = i + 1;
      return *again_;
    }
    throw DataError("a packet is not found again");
  }

  bool in_span(std::int64_t pts) const { return pts >= begin_ && pts < end_; }

  /// The frames of the span in order of time, as indices into `coded_`; nothing where packets do not tell.
  std::optional<std::vector<std::size_t>> shown_frames() const {
    if (coded_.empty() || !coded_[0].key()) return std::nullopt;
    std::vector<std::size_t> shown;
    for (std::size_t i = 0; i < coded_.size(); ++i) {
      const std::int64_t pts = coded_[i].packet->pts;
      if (coded_[i].hidden()) continue;
      if (pts == AV_NOPTS_VALUE) return std::nullopt;
      if (!in_span(pts)) continue;
      // Shown before the first key frame: whether it can be decoded, only the decoder knows.
      if (pts < coded_[0].packet->pts) return std::nullopt;
      if (coded_[i].key() || !options_.key_frames_only) shown.push_back(i);
    }
    const auto pts = [&](std::size_t i) { return coded_[i].packet->pts; };
    std::sort(shown.begin(), shown.end(), [&](std::size_t a, std::size_t b) { return pts(a) < pts(b); });
    const auto same = [&](std::size_t a, std::size_t b) { return pts(a) == pts(b); };
    if (std::adjacent_find(shown.begin(), shown.end(), same) != shown.end()) return std::nullopt;
    return shown;
  }

  /// Where decoding has to start for frame `i`: the last key frame that is shown no later.
  std::size_t start_for(std::size_t i) const {
    for (std::size_t k = i; k > 0; --k) {
      if (coded_[k].key() && coded_[k].packet->pts <= coded_[i].packet->pts) return k;
    }
    return 0;
  }

  /// Decodes what the wanted frames need and no more. False if the decoder does not deliver what packets promise.
  bool decode_by_packets(Video& video) {
    const auto shown = shown_frames();
    if (!shown) return false;
    if (shown->empty()) throw DataError(no_frames());
    std::vector<std::size_t> wanted = place_uniformly(shown->size(), options_.frames);
    for (std::size_t& place : wanted) place = (*shown)[place];
    std::vector<std::size_t> needed = wanted;
    std::sort(needed.begin(), needed.end());
    needed.erase(std::unique(needed.begin(), needed.end()), needed.end());

    std::vector<std::pair<std::int64_t, Image>> decoded;
    std::int64_t run_begin = INT64_MIN;  // frames before it are missing what they are predicted from
    const auto on_frame = [&](const AVFrame& frame) {
      if (frame.pts < run_begin) return;
      require_intact(frame);
      const auto is_this = [&](std::size_t i) { return coded_[i].packet->pts == frame.pts; };
      if (std::any_of(needed.begin(), needed.end(), is_this)) decoded.emplace_back(frame.pts, scaler_.convert(frame));
    };

    AvDecoder decoder(file_, stream_);
    std::size_t next = 0;
    bool running = false;
    for (const std::size_t target : needed) {
      const std::size_t start = start_for(target);
      if (!running || start > next) {
        if (running) {
          decoder.decode(nullptr, on_frame);
          decoder.flush();
        }
        running = true;
        next = start;
        run_begin = coded_[start].packet->pts;
      }
      for (; next <= target; ++next) {
        // Nothing is predicted from a non-reference frame, so the results stay the same without those not wanted.
        const bool is_wanted = next == target || std::binary_search(needed.begin(), needed.end(), next);
        decoder.skip(is_wanted ? AVDISCARD_DEFAULT : AVDISCARD_NONREF);
        decoder.decode(&packet(next), on_frame);
      }
    }
    decoder.decode(nullptr, on_frame);

    for (const std::size_t i : wanted) {
      const std::int64_t pts = coded_[i].packet->pts;
      const auto found = std::find_if(decoded.begin(), decoded.end(), [&](const auto& d) { return d.first == pts; });
      if (found == decoded.end()) return false;
      video.frames.push_back(found->second);
      video.times.push_back(file_.time(stream_, pts));
    }
    return true;
  }

  /// Calls `on_frame(frame, timestamp)` for all frames of the span that come out of the decoder, until it says false.
  template <class OnFrame>
  void decode_all(OnFrame&& on_frame) {
    AvDecoder decoder(file_, stream_);
    const AVRational rate = stream_.avg_frame_rate;
    const std::int64_t step = rate.num > 0 ? av_rescale_q(1, av_inv_q(rate), stream_.time_base) : 1;
    std::optional<std::int64_t> delay;  // without times in the packets, those of frames count from decoding
    std::int64_t next = 0;
    bool more = true;
    const auto take = [&](const AVFrame& frame) {
      const bool known = frame.best_effort_timestamp != AV_NOPTS_VALUE;
      const std::int64_t told = known ? frame.best_effort_timestamp : next;
      next = told + step;
      const AVPacket& first = *coded_[0].packet;
      if (!delay) delay = first.pts == AV_NOPTS_VALUE && first.dts != AV_NOPTS_VALUE ? told - first.dts : 0;
      const std::int64_t timestamp = told - *delay;
      if (!more || is_damaged(frame) || !in_span(timestamp)) return;
      if (options_.key_frames_only && frame.key_frame == 0) return;
      more = on_frame(frame, timestamp);
    };
    for (std::size_t i = 0; i < coded_.size() && more; ++i) decoder.decode(&packet(i), take);
    if (more) decoder.decode(nullptr, take);
  }

  /// For streams whose packets do not say what is shown when: decodes once to learn it and once more for the frames.
  void decode_by_trial(Video& video) {
    std::vector<double> times;
    decode_all([&](const AVFrame&, std::int64_t timestamp) {
      times.push_back(file_.time(stream_, timestamp));
      return true;
    });
    if (times.empty()) throw DataError(no_frames());
    const std::vector<std::size_t> wanted = place_uniformly(times.size(), options_.frames);
    std::size_t index = 0;
    decode_all([&](const AVFrame& frame, std::int64_t) {
      for (std::size_t i = video.frames.size(); i < wanted.size() && wanted[i] == index; ++i) {
        video.frames.push_back(i > 0 && wanted[i - 1] == index ? video.frames.back() : scaler_.convert(frame));
        video.times.push_back(times[index]);
      }
      ++index;
      return video.frames.size() < wanted.size();
    });
    if (video.frames.size() < wanted.size()) throw DataError("the decoder delivers other frames the second time");
  }

  void require_intact(const AVFrame& frame) {
    if (!is_damaged(frame)) return;
    throw DataError(
        file_.describe(fmt::format("the picture at {:.3f} s is damaged", file_.time(stream_, frame.pts)), 0));
  }

  std::string no_frames() {
    const double end = options_.start + options_.duration;
    const std::string span = options_.duration < 0 ? fmt::format("from {} s on", options_.start)
                                                   : fmt::format("from {} s to {} s", options_.start, end);
    return file_.describe(fmt::format("no {} {}", options_.key_frames_only ? "key frame" : "frame", span), 0);
  }

  AvDemuxer& file_;
  const AVStream& stream_;
  const VideoOptions& options_;
  const std::int64_t begin_, end_;  // of the span
  const std::int64_t last_;         // no packet from here on belongs to it
  FrameScaler scaler_;
  std::vector<CodedFrame> coded_;
  std::int64_t held_ = 0;  // bytes
  const PacketPtr again_ = make_packet();
  std::size_t next_again_ = SIZE_MAX;  // which packet the file gives next, if any was read again
};

void require(bool condition, std::string_view who, std::string_view rule, double value) {
  if (!condition) throw ConfigError(fmt::format("[{}] {}, got {}", who, rule, value));
}

void check(const VideoOptions& options, std::string_view who) {
  require(options.frames >= 0, who, "frames must not be negative", options.frames);
  require(options.height >= 0 && options.width >= 0, who, "height and width must not be negative",
          std::min(options.height, options.width));
  require((options.height == 0) == (options.width == 0), who, "height and width must be given both or neither",
          std::max(options.height, options.width));
  require(options.start >= 0 && std::isfinite(options.start), who, "start must be 0 s or later", options.start);
  require(options.time_limit > 0, who, "time_limit must be positive", options.time_limit);
  require(options.memory_limit > 0, who, "memory_limit must be positive", static_cast<double>(options.memory_limit));
}

/// `audio` is null if it is not wanted.
Clip read(const std::filesystem::path& path, const VideoOptions& options, const AudioOptions* audio) {
  AvDemuxer file(path, options.time_limit);
  if (file.video() == nullptr) throw DataError("no video stream");
  const bool with_audio = audio != nullptr && file.audio() != nullptr;
  file.select(/*video=*/true, with_audio);
  double begin = options.start - kVideoLead;
  if (with_audio) begin = std::min(begin, AvAudioReader::first_needed(*file.audio(), audio->start));
  if (begin > 0) file.seek(*file.video(), file.timestamp(*file.video(), begin));

  FrameReader frames(file, options);
  std::optional<AvAudioReader> samples;
  if (with_audio) samples.emplace(file, audio->start, audio->duration);
  bool video_done = false, audio_done = !with_audio;
  for (const PacketPtr packet = make_packet(); !(video_done && audio_done) && file.read(*packet);) {
    if (packet->stream_index == file.video()->index) {
      video_done = video_done || frames.is_past(*packet);
      if (!video_done) frames.add(*packet);
    } else {
      audio_done = audio_done || samples->is_past(packet->pts);
      if (!audio_done) samples->decode(*packet);
    }
  }
  Clip clip;
  if (samples) clip.audio = samples->finish();
  if (!clip.audio.samples.empty()) clip.audio = convert_audio(std::move(clip.audio), *audio);
  clip.video = frames.finish();
  return clip;
}

}  // namespace

Video read_video(const std::filesystem::path& path, const VideoOptions& options) {
  check(options, "read_video");
  try {
    return read(path, options, nullptr).video;
  } catch (const DataError& error) {
    throw DataError(fmt::format("[read_video] {}: {}", path.string(), error.what()));
  }
}

Clip read_clip(const std::filesystem::path& path, const VideoOptions& video, const AudioOptions& audio) {
  check(video, "read_clip");
  validate(audio);
  try {
    return read(path, video, &audio);
  } catch (const DataError& error) {
    throw DataError(fmt::format("[read_clip] {}: {}", path.string(), error.what()));
  }
}

}  // namespace mmtrain::media
