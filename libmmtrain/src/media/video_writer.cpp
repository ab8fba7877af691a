#include "mmtrain/media/video_writer.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
}

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "media/av_demuxer.h"
#include "mmtrain/core/error.h"

namespace mmtrain::media {
namespace {

using namespace detail;

/// Time base of a picture: rates like 29.97 are fractions of this denominator or smaller ones.
constexpr int kMaxRateDenominator = 1001;

int ok(int code, AvMessages& messages, const char* what) {
  if (code < 0) throw DataError(messages.describe(what, code));
  return code;
}

/// One stream of the file: an encoder and where its packets go.
class StreamWriter {
 public:
  StreamWriter(AVFormatContext& format, AvMessages& messages, const AVCodec* codec)
      : format_(format), messages_(messages), stream_(avformat_new_stream(&format, nullptr)), packet_(make_packet()) {
    context_.reset(avcodec_alloc_context3(codec));
    if (stream_ == nullptr || context_ == nullptr) throw std::bad_alloc();
    // Nothing that changes from machine to machine: no version texts, no threads.
    context_->flags |= AV_CODEC_FLAG_BITEXACT;
    context_->thread_count = 1;
    if ((format.oformat->flags & AVFMT_GLOBALHEADER) != 0) context_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  }

  AVCodecContext& context() { return *context_; }

  void open() {
    ok(avcodec_open2(context_.get(), nullptr, nullptr), messages_, "the encoder does not start");
    ok(avcodec_parameters_from_context(stream_->codecpar, context_.get()), messages_, "the encoder does not start");
    stream_->time_base = context_->time_base;
    stream_->avg_frame_rate = context_->framerate;
  }

  /// Null ends the stream.
  void encode(const AVFrame* frame) {
    ok(avcodec_send_frame(context_.get(), frame), messages_, "a frame cannot be encoded");
    while (true) {
      const int received = avcodec_receive_packet(context_.get(), packet_.get());
      if (received == AVERROR(EAGAIN) || received == AVERROR_EOF) return;
      ok(received, messages_, "a frame cannot be encoded");
      packet_->stream_index = stream_->index;
      av_packet_rescale_ts(packet_.get(), context_->time_base, stream_->time_base);
      ok(av_interleaved_write_frame(&format_, packet_.get()), messages_, "a packet cannot be written");
    }
  }

 private:
  AVFormatContext& format_;
  AvMessages& messages_;
  AVStream* stream_;
  DecoderPtr context_;
  PacketPtr packet_;
};

/// An mp4 file made in memory.
class Mp4 {
 public:
  explicit Mp4(AvMessages& messages) : messages_(messages) {
    ok(avformat_alloc_output_context2(&format_, nullptr, "mp4", nullptr), messages_, "mp4 cannot be written");
    format_->flags |= AVFMT_FLAG_BITEXACT;
    ok(avio_open_dyn_buf(&format_->pb), messages_, "mp4 cannot be written");
  }
  ~Mp4() {
    if (format_->pb != nullptr) close();
    avformat_free_context(format_);
  }
  Mp4(const Mp4&) = delete;
  Mp4& operator=(const Mp4&) = delete;

  AVFormatContext& format() { return *format_; }

  void begin() { ok(avformat_write_header(format_, nullptr), messages_, "mp4 cannot be written"); }

  std::string end() {
    ok(av_write_trailer(format_), messages_, "mp4 cannot be written");
    return close();
  }

 private:
  std::string close() {
    std::uint8_t* bytes = nullptr;
    const int size = avio_close_dyn_buf(std::exchange(format_->pb, nullptr), &bytes);
    std::string content(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(size));
    av_free(bytes);
    return content;
  }

  AvMessages& messages_;
  AVFormatContext* format_ = nullptr;
};

const AVCodec* video_encoder() {
  const AVCodec* x264 = avcodec_find_encoder_by_name("libx264");
  return x264 != nullptr ? x264 : avcodec_find_encoder(AV_CODEC_ID_MPEG4);
}

class PictureWriter {
 public:
  PictureWriter(Mp4& file, AvMessages& messages, const Image& first, double frame_rate,
                const VideoWriterOptions& options)
      : messages_(messages), stream_(file.format(), messages, video_encoder()), frame_(make_frame()) {
    AVCodecContext& context = stream_.context();
    context.height = first.height;
    context.width = first.width;
    context.pix_fmt = AV_PIX_FMT_YUV420P;
    context.framerate = av_d2q(frame_rate, kMaxRateDenominator);
    context.time_base = av_inv_q(context.framerate);
    context.gop_size = options.key_frame_interval;
    context.bit_rate = std::llround(options.bits_per_pixel * frame_rate * first.height * first.width);
    context.color_range = AVCOL_RANGE_MPEG;
    context.colorspace = AVCOL_SPC_SMPTE170M;
    context.color_primaries = AVCOL_PRI_SMPTE170M;
    context.color_trc = AVCOL_TRC_SMPTE170M;
    // Of x264; MPEG-4 has no such options. Its macroblock tree looks at memory that nobody has written (with AVX2 and
    // narrow pictures), and then bytes differ from run to run.
    av_opt_set(context.priv_data, "preset", "veryfast", 0);
    av_opt_set(context.priv_data, "mbtree", "0", 0);
    stream_.open();

    scaler_ = sws_getContext(first.width, first.height, AV_PIX_FMT_RGB24, first.width, first.height, context.pix_fmt,
                             SWS_BILINEAR | SWS_ACCURATE_RND, nullptr, nullptr, nullptr);
    frame_->format = context.pix_fmt;
    frame_->height = first.height;
    frame_->width = first.width;
    if (scaler_ == nullptr || av_frame_get_buffer(frame_.get(), 0) < 0) throw std::bad_alloc();
  }
  ~PictureWriter() { sws_freeContext(scaler_); }
  PictureWriter(const PictureWriter&) = delete;
  PictureWriter& operator=(const PictureWriter&) = delete;

  void write(const Image& image, std::int64_t index) {
    ok(av_frame_make_writable(frame_.get()), messages_, "a frame cannot be encoded");
    const std::uint8_t* pixels[] = {image.pixels.data()};
    const int pitches[] = {3 * image.width};
    sws_scale(scaler_, pixels, pitches, 0, image.height, frame_->data, frame_->linesize);
    frame_->pts = index;
    stream_.encode(frame_.get());
  }
  void end() { stream_.encode(nullptr); }

 private:
  AvMessages& messages_;
  StreamWriter stream_;
  FramePtr frame_;
  SwsContext* scaler_ = nullptr;
};

class SoundWriter {
 public:
  SoundWriter(Mp4& file, AvMessages& messages, const Audio& audio, const VideoWriterOptions& options)
      : messages_(messages), audio_(audio), stream_(file.format(), messages, avcodec_find_encoder(AV_CODEC_ID_AAC)) {
    AVCodecContext& context = stream_.context();
    context.sample_rate = audio.sample_rate;
    context.time_base = {1, audio.sample_rate};
    context.sample_fmt = AV_SAMPLE_FMT_FLTP;
    context.bit_rate = std::int64_t{options.audio_bit_rate} * audio.channels;
    av_channel_layout_default(&context.ch_layout, audio.channels);
    stream_.open();
  }

  /// Writes what sounds before `seconds`.
  void write_until(double seconds) {
    const std::int64_t all = static_cast<std::int64_t>(audio_.samples.size()) / audio_.channels;
    while (position_ < all && static_cast<double>(position_) < seconds * audio_.sample_rate) write(all - position_);
  }
  void end() { stream_.encode(nullptr); }

 private:
  void write(std::int64_t left) {
    AVCodecContext& context = stream_.context();
    const FramePtr frame = make_frame();
    frame->nb_samples = static_cast<int>(std::min<std::int64_t>(left, context.frame_size));
    frame->format = context.sample_fmt;
    frame->sample_rate = context.sample_rate;
    ok(av_channel_layout_copy(&frame->ch_layout, &context.ch_layout), messages_, "sound cannot be encoded");
    ok(av_frame_get_buffer(frame.get(), 0), messages_, "sound cannot be encoded");
    const float* from = audio_.samples.data() + position_ * audio_.channels;
    for (int i = 0; i < frame->nb_samples; ++i) {
      for (int c = 0; c < audio_.channels; ++c) reinterpret_cast<float*>(frame->extended_data[c])[i] = *from++;
    }
    frame->pts = position_;
    position_ += frame->nb_samples;
    stream_.encode(frame.get());
  }

  AvMessages& messages_;
  const Audio& audio_;
  StreamWriter stream_;
  std::int64_t position_ = 0;
};

void require(bool condition, const std::string& rule) {
  if (!condition) throw ConfigError("[write_clip] " + rule);
}

void check(std::span<const Image> frames, double frame_rate, const Audio& audio, const VideoWriterOptions& options) {
  require(!frames.empty(), "there must be a frame at least");
  require(frame_rate > 0 && std::isfinite(frame_rate), fmt::format("frame_rate must be positive, got {}", frame_rate));
  require(options.bits_per_pixel > 0, fmt::format("bits_per_pixel must be positive, got {}", options.bits_per_pixel));
  require(options.key_frame_interval > 0,
          fmt::format("key_frame_interval must be positive, got {}", options.key_frame_interval));
  const auto [height, width] = std::pair(frames[0].height, frames[0].width);
  require(height > 0 && width > 0 && height % 2 == 0 && width % 2 == 0,
          fmt::format("height and width must be even, got {} x {}", height, width));
  for (const Image& frame : frames) {
    require(frame.height == height && frame.width == width && frame.pixels.size() == std::size_t{3} * height * width,
            fmt::format("all frames must be of {} x {} pixels, got {} x {}", height, width, frame.height, frame.width));
  }
  if (audio.samples.empty()) return;
  require(options.audio_bit_rate > 0, fmt::format("audio_bit_rate must be positive, got {}", options.audio_bit_rate));
  require(audio.channels > 0 && audio.samples.size() % static_cast<std::size_t>(audio.channels) == 0,
          fmt::format("{} samples are no whole number of {} channels", audio.samples.size(), audio.channels));
}

std::string encode(std::span<const Image> frames, double frame_rate, const Audio& audio,
                   const VideoWriterOptions& options) {
  AvMessages messages;
  Mp4 file(messages);
  PictureWriter pictures(file, messages, frames[0], frame_rate, options);
  std::optional<SoundWriter> sound;
  if (!audio.samples.empty()) sound.emplace(file, messages, audio, options);
  file.begin();
  // Side by side, so that whoever reads the file needs no jumps.
  for (std::size_t i = 0; i < frames.size(); ++i) {
    pictures.write(frames[i], static_cast<std::int64_t>(i));
    if (sound) sound->write_until(static_cast<double>(i + 1) / frame_rate);
  }
  pictures.end();
  if (sound) {
    sound->write_until(std::numeric_limits<double>::infinity());
    sound->end();
  }
  return file.end();
}

void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::path partial = path;
  partial += ".partial";
  std::ofstream file(partial, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  std::error_code error;
  if (file) {
    std::filesystem::rename(partial, path, error);
    if (!error) return;
  }
  std::error_code ignored;
  std::filesystem::remove(partial, ignored);
  throw DataError(error ? error.message() : "cannot be written");
}

}  // namespace

void write_clip(const std::filesystem::path& path, std::span<const Image> frames, double frame_rate, const Audio& audio,
                const VideoWriterOptions& options) {
  check(frames, frame_rate, audio, options);
  try {
    write_file(path, encode(frames, frame_rate, audio, options));
  } catch (const DataError& error) {
    throw DataError(fmt::format("[write_clip] {}: {}", path.string(), error.what()));
  }
}

}  // namespace mmtrain::media
