#include "media/av_demuxer.h"

extern "C" {
#include <libavutil/log.h>
}

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <limits>
#include <mutex>
#include <new>
#include <string_view>
#include <system_error>
#include <utility>

#include "mmtrain/core/error.h"

namespace mmtrain::media::detail {
namespace {

/// Packets read to learn when the streams start: they lie side by side in all but odd files.
constexpr std::size_t kProbePackets = 100;
/// A decoder refuses larger pictures: a few flipped bits must not take gigabytes.
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 26;
constexpr double kTickTolerance = 1e-3;

thread_local AvMessages* listener = nullptr;

std::string error_text(int code) {
  std::array<char, AV_ERROR_MAX_STRING_SIZE> text{};
  av_strerror(code, text.data(), text.size());
  return text.data();
}

bool name_starts_with(const AVFormatContext* format, std::string_view name) {
  return std::string_view(format->iformat->name).substr(0, name.size()) == name;
}

/// Whether the header alone says all that decoding needs. Only mov and mp4 are trusted with that: others have to read
/// and decode a part of the file, which would cost as much as a few frames.
bool header_is_enough(const AVFormatContext* format) {
  if (!name_starts_with(format, "mov,")) return false;
  for (unsigned i = 0; i < format->nb_streams; ++i) {
    const AVCodecParameters& codec = *format->streams[i]->codecpar;
    if (codec.codec_type == AVMEDIA_TYPE_VIDEO && (codec.width <= 0 || codec.height <= 0)) return false;
    if (codec.codec_type == AVMEDIA_TYPE_AUDIO && codec.sample_rate <= 0) return false;
  }
  return true;
}

/// When a stream begins to show or sound, in seconds. What audio encoders put in front of the sound is not heard; not
/// all versions of the library count that.
double start_of(const AVStream& stream) {
  const double start = static_cast<double>(stream.start_time) * av_q2d(stream.time_base);
  const AVCodecParameters& codec = *stream.codecpar;
  if (start >= 0 || codec.codec_type != AVMEDIA_TYPE_AUDIO || codec.sample_rate <= 0) return start;
  const double heard = start + static_cast<double>(codec.initial_padding) / codec.sample_rate;
  return heard > -av_q2d(stream.time_base) ? 0 : heard;  // the tick rounds it
}

}  // namespace

PacketPtr make_packet() {
  PacketPtr packet(av_packet_alloc());
  if (packet == nullptr) throw std::bad_alloc();
  return packet;
}

FramePtr make_frame() {
  FramePtr frame(av_frame_alloc());
  if (frame == nullptr) throw std::bad_alloc();
  return frame;
}

// ---- AvMessages

AvMessages::AvMessages() : outer_(listener) {
  static std::once_flag once;
  std::call_once(once, [] { av_log_set_callback(&AvMessages::on_message); });
  listener = this;
}

AvMessages::~AvMessages() { listener = outer_; }

void AvMessages::on_message(void* object, int level, const char* format, va_list arguments) {
  if (listener == nullptr) return av_log_default_callback(object, level, format, arguments);
  if (level > AV_LOG_ERROR || !listener->first_.empty()) return;
  std::array<char, 256> line{};
  int prefix = 0;
  av_log_format_line2(object, level, format, arguments, line.data(), line.size(), &prefix);
  listener->first_ = line.data();
  if (listener->first_.starts_with('[')) {  // "[h264 @ 0x5580] text": the address is noise
    const std::size_t address = listener->first_.find(" @ ");
    const std::size_t end = listener->first_.find("] ");
    if (address < end && end != std::string::npos) listener->first_.erase(address, end - address);
  }
  while (!listener->first_.empty() && std::isspace(static_cast<unsigned char>(listener->first_.back())) != 0) {
    listener->first_.pop_back();
  }
}

std::string AvMessages::describe(const std::string& what, int code) {
  std::string text = what;
  if (code < 0) text += ": " + error_text(code);
  if (!first_.empty()) text += " (" + std::exchange(first_, {}) + ")";
  return text;
}

// ---- AvDemuxer

AvDemuxer::AvDemuxer(const std::filesystem::path& path, double time_limit)
    : deadline_(std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                       std::chrono::duration<double>(time_limit))),
      format_(avformat_alloc_context()) {
  if (format_ == nullptr) throw std::bad_alloc();
  // Checked here because opening a pipe waits where nothing can interrupt it.
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (error || !std::filesystem::is_regular_file(status)) {
    avformat_free_context(format_);
    throw DataError(error ? error.message() : "not a regular file");
  }
  format_->interrupt_callback = {&AvDemuxer::interrupted, this};
  // A file is a file: names with a colon are no addresses, and playlists do not reach into the network.
  AVDictionary* options = nullptr;
  av_dict_set(&options, "protocol_whitelist", "file", 0);
  const int opened = avformat_open_input(&format_, ("file:" + path.string()).c_str(), nullptr, &options);
  av_dict_free(&options);
  if (opened < 0) {  // format_ is freed
    check_time();
    throw DataError(describe("cannot be opened as media", opened));
  }
  try {
    find_streams();
    probe_start();
  } catch (...) {
    avformat_close_input(&format_);
    throw;
  }
}

AvDemuxer::~AvDemuxer() { avformat_close_input(&format_); }

int AvDemuxer::interrupted(void* self) {
  return std::chrono::steady_clock::now() > static_cast<AvDemuxer*>(self)->deadline_ ? 1 : 0;
}

void AvDemuxer::check_time() const {
  if (std::chrono::steady_clock::now() > deadline_) throw DataError("the time limit has passed: broken, or too long");
}

void AvDemuxer::find_streams() {
  if (!header_is_enough(format_)) {
    const int found = avformat_find_stream_info(format_, nullptr);
    check_time();
    if (found < 0) throw DataError(describe("its streams cannot be told", found));
  }
  const int video = av_find_best_stream(format_, AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
  const int audio = av_find_best_stream(format_, AVMEDIA_TYPE_AUDIO, -1, video, nullptr, 0);
  if (video >= 0 && (format_->streams[video]->disposition & AV_DISPOSITION_ATTACHED_PIC) == 0) {
    video_ = format_->streams[video];
  }
  if (audio >= 0) audio_ = format_->streams[audio];
  select(true, true);
}

/// Learns `origin_`. The start of a stream is known when its first packet is read.
void AvDemuxer::probe_start() {
  const auto unknown = [](const AVStream* stream) { return stream != nullptr && stream->start_time == AV_NOPTS_VALUE; };
  while ((unknown(video_) || unknown(audio_)) && probed_.size() < kProbePackets) {
    PacketPtr packet = make_packet();
    if (!read_from_file(*packet)) break;
    probed_.push_back(std::move(packet));
  }
  double origin = std::numeric_limits<double>::infinity();
  for (const AVStream* stream : {video_, audio_}) {
    if (stream == nullptr || stream->start_time == AV_NOPTS_VALUE) continue;
    origin = std::min(origin, start_of(*stream));
  }
  origin_ = std::isfinite(origin) ? origin : 0;
}

void AvDemuxer::select(bool video, bool audio) {
  for (unsigned i = 0; i < format_->nb_streams; ++i) {
    AVStream* stream = format_->streams[i];
    const bool wanted = (video && stream == video_) || (audio && stream == audio_);
    stream->discard = wanted ? AVDISCARD_DEFAULT : AVDISCARD_ALL;
  }
}

std::int64_t AvDemuxer::timestamp(const AVStream& stream, double time) const {
  // What a double cannot say of a third of a second must not push its frame out.
  return static_cast<std::int64_t>(std::ceil((time + origin_) / av_q2d(stream.time_base) - kTickTolerance));
}

double AvDemuxer::duration(const AVStream& stream) const {
  if (stream.duration > 0) return static_cast<double>(stream.duration) * av_q2d(stream.time_base);
  return format_->duration > 0 ? static_cast<double>(format_->duration) / AV_TIME_BASE : 0;
}

bool AvDemuxer::read_from_file(AVPacket& packet) {
  const int read = av_read_frame(format_, &packet);
  if (read == AVERROR_EOF) {
    // A file that ends too early may read like one that ends.
    if (format_->pb != nullptr && format_->pb->error < 0) {
      throw DataError(describe("cannot be read on", format_->pb->error));
    }
    return false;
  }
  check_time();
  if (read < 0) throw DataError(describe("broken or cut off", read));
  if ((packet.flags & AV_PKT_FLAG_CORRUPT) != 0) throw DataError(describe("a packet is broken or cut off", 0));
  return true;
}

bool AvDemuxer::read(AVPacket& packet) {
  av_packet_unref(&packet);
  while (true) {
    if (!probed_.empty()) {
      av_packet_move_ref(&packet, probed_.front().get());
      probed_.pop_front();
    } else if (!read_from_file(packet)) {
      return false;
    }
    if (format_->streams[packet.stream_index]->discard != AVDISCARD_ALL) return true;
    av_packet_unref(&packet);
  }
}

bool AvDemuxer::seek(const AVStream& stream, std::int64_t timestamp) {
  // Others search by guessing where the bytes may lie, and land after the place as often as before it.
  if (!name_starts_with(format_, "mov,") && !name_starts_with(format_, "matroska")) return false;
  probed_.clear();
  int moved = avformat_seek_file(format_, stream.index, INT64_MIN, timestamp, timestamp, 0);
  if (moved < 0) moved = avformat_seek_file(format_, stream.index, INT64_MIN, timestamp, INT64_MAX, 0);
  if (moved < 0) throw DataError(describe("there is no way to the span", moved));
  return true;
}

// ---- AvDecoder

AvDecoder::AvDecoder(AvDemuxer& file, const AVStream& stream) : file_(file), stream_(stream), frame_(make_frame()) {
  const AVCodecID id = stream.codecpar->codec_id;
  const AVCodec* codec = avcodec_find_decoder(id);
  if (codec == nullptr) throw DataError(fmt::format("there is no decoder for its codec '{}'", avcodec_get_name(id)));
  context_.reset(avcodec_alloc_context3(codec));
  if (context_ == nullptr) throw std::bad_alloc();
  int opened = avcodec_parameters_to_context(context_.get(), stream.codecpar);
  context_->thread_count = 1;
  context_->pkt_timebase = stream.time_base;
  context_->max_pixels = kMaxPixels;
  if (opened >= 0) opened = avcodec_open2(context_.get(), codec, nullptr);
  if (opened < 0)
    throw DataError(file_.describe(fmt::format("the decoder of '{}' does not start", codec->name), opened));
}

void AvDecoder::send(const AVPacket* packet) {
  file_.check_time();
  if (packet != nullptr) sent_ = packet->pts != AV_NOPTS_VALUE ? packet->pts : packet->dts;
  const int sent = avcodec_send_packet(context_.get(), packet);
  if (sent < 0 && sent != AVERROR_EOF) fail(sent);
}

bool AvDecoder::receive() {
  const int received = avcodec_receive_frame(context_.get(), frame_.get());
  if (received == AVERROR(EAGAIN) || received == AVERROR_EOF) return false;
  if (received < 0) fail(received);
  return true;
}

void AvDecoder::fail(int code) {
  const char* kind = av_get_media_type_string(stream_.codecpar->codec_type);
  const std::string place = sent_ == AV_NOPTS_VALUE ? "" : fmt::format(" at {:.3f} s", file_.time(stream_, sent_));
  throw DataError(file_.describe(fmt::format("the {}{} cannot be decoded", kind, place), code));
}

}  // namespace mmtrain::media::detail
