#pragma once

#include <cstdint>

#include "media/av_demuxer.h"
#include "mmtrain/media/audio.h"

namespace mmtrain::media::detail {

/// Collects the samples of a span from the packets of the file's audio stream.
class AvAudioReader {
 public:
  /// The file must have an audio stream. Throws `DataError` if nothing decodes it.
  AvAudioReader(AvDemuxer& file, double start, double duration);

  /// The time from which on packets are needed for a span that starts at `start`.
  static double first_needed(const AVStream& stream, double start);

  /// Whether packets from `timestamp` on come after the span.
  bool is_past(std::int64_t timestamp) const;

  /// Takes the next packet.
  void decode(const AVPacket& packet);

  /// The samples; no packets may follow.
  Audio finish();

 private:
  void begin(const AVFrame& frame);
  void append(const AVFrame& frame);

  AvDemuxer& file_;
  const AVStream& stream_;
  AvDecoder decoder_;
  double start_, end_;
  std::int64_t skip_before_;  // packets before this timestamp are not needed
  Audio audio_;
  std::int64_t position_ = 0;  // samples from the beginning of the file to the next frame
};

}  // namespace mmtrain::media::detail
