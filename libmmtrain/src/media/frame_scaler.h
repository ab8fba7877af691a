#pragma once

#include <memory>

#include "mmtrain/media/image.h"

struct AVFrame;
struct SwsContext;

namespace mmtrain::media::detail {

/// Turns decoded frames into RGB images of one size in one step, with the frame's own colour matrix, range and place of
/// the chroma samples.
class FrameScaler {
 public:
  /// 0: the size of the frame.
  FrameScaler(int height, int width) : height_(height), width_(width) {}
  ~FrameScaler();
  FrameScaler(const FrameScaler&) = delete;
  FrameScaler& operator=(const FrameScaler&) = delete;

  /// Throws `DataError` with the reason for what cannot be converted.
  Image convert(const AVFrame& frame);

 private:
  /// All that a conversion depends on.
  struct Source {
    int height = 0, width = 0, format = -1;
    int matrix = -1;
    bool full_range = false;
    int chroma_location = -1;
    bool operator==(const Source&) const = default;
  };
  static Source source_of(const AVFrame& frame);
  void prepare(const Source& source, int height, int width);

  const int height_, width_;
  Source source_;
  SwsContext* context_ = nullptr;  // for source_
};

}  // namespace mmtrain::media::detail
