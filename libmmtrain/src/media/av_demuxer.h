#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
}

#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <string>

/// Containers and decoders of FFmpeg's libraries as owners. Errors are `DataError`s that hold the reason alone, with
/// what the libraries said about it: they print nothing while these classes use them.
namespace mmtrain::media::detail {

template <auto Free>
struct AvFree {
  template <class T>
  void operator()(T* object) const {
    Free(&object);
  }
};
using PacketPtr = std::unique_ptr<AVPacket, AvFree<av_packet_free>>;
using FramePtr = std::unique_ptr<AVFrame, AvFree<av_frame_free>>;
using DecoderPtr = std::unique_ptr<AVCodecContext, AvFree<avcodec_free_context>>;

/// Throw `std::bad_alloc`.
PacketPtr make_packet();
FramePtr make_frame();

/// While it lives, what libav* says on this thread is kept instead of printed. They nest like scopes; the innermost
/// listens.
class AvMessages {
 public:
  AvMessages();
  ~AvMessages();
  AvMessages(const AvMessages&) = delete;
  AvMessages& operator=(const AvMessages&) = delete;

  /// `what`, libav's name of the error `code`, and the first complaint since the last call. Then it forgets.
  std::string describe(const std::string& what, int code);

 private:
  static void on_message(void* object, int level, const char* format, va_list arguments);

  AvMessages* outer_;
  std::string first_;
};

/// Packets of a file's main video and audio streams in the order of the file.
class AvDemuxer {
 public:
  /// Opens the file; from then on every call throws when `time_limit` seconds have passed.
  AvDemuxer(const std::filesystem::path& path, double time_limit);
  ~AvDemuxer();

  /// The main streams, null where the file has none. A cover picture is no video.
  const AVStream* video() const { return video_; }
  const AVStream* audio() const { return audio_; }

  /// Which of them `read` delivers.
  void select(bool video, bool audio);

  /// Seconds from the beginning of the file: where the earlier of the two streams starts.
  double time(const AVStream& stream, std::int64_t timestamp) const {
    return static_cast<double>(timestamp) * av_q2d(stream.time_base) - origin_;
  }
  /// The first timestamp of a stream that is not before `time`.
  std::int64_t timestamp(const AVStream& stream, double time) const;

  /// Length of a stream in seconds as the file states it; 0 where it does not.
  double duration(const AVStream& stream) const;

  /// The next packet; false at the end of the file.
  bool read(AVPacket& packet);

  /// Goes on at a key frame of `stream` at `timestamp` or before. False, and nothing is changed, where the format has
  /// no index of key frames.
  bool seek(const AVStream& stream, std::int64_t timestamp);

  /// Throws when the time limit has passed.
  void check_time() const;

  /// See `AvMessages`; for decoders too.
  std::string describe(const std::string& what, int code) { return messages_.describe(what, code); }

 private:
  void find_streams();
  void probe_start();
  bool read_from_file(AVPacket& packet);
  static int interrupted(void* self);

  AvMessages messages_;
  std::chrono::steady_clock::time_point deadline_;
  AVFormatContext* format_ = nullptr;
  AVStream* video_ = nullptr;
  AVStream* audio_ = nullptr;
  double origin_ = 0;
  /// What was read to learn when the streams start.
  std::deque<PacketPtr> probed_;
};

/// A decoder of one stream, on the calling thread.
class AvDecoder {
 public:
  AvDecoder(AvDemuxer& file, const AVStream& stream);

  /// Decodes a packet, or with null what is left, and calls `on_frame(AVFrame&)` for each frame that comes out.
  template <class OnFrame>
  void decode(const AVPacket* packet, OnFrame&& on_frame) {
    send(packet);
    while (receive()) on_frame(*frame_);
  }

  /// Forgets all packets so far, also after the end.
  void flush() { avcodec_flush_buffers(context_.get()); }

  /// Frames of which kind need not be decoded, from the next packet on.
  void skip(AVDiscard kind) { context_->skip_frame = kind; }

 private:
  void send(const AVPacket* packet);
  bool receive();
  [[noreturn]] void fail(int code);

  AvDemuxer& file_;
  const AVStream& stream_;
  DecoderPtr context_;
  FramePtr frame_;
  /// When the packet that was sent last begins.
  std::int64_t sent_ = AV_NOPTS_VALUE;
};

}  // namespace mmtrain::media::detail
