#pragma once

#include <memory>

#include "mmtrain/media/image.h"

struct AVFrame;
struct SwsContext;

namespace mmtrain::media::detail {

/// Turns decoded frames into RGB images of one size, in one step and with the frame's own colour matrix and range.
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
  const int height_, width_;
  SwsContext* context_ = nullptr;
  int matrix_ = -1, full_range_ = -1;  // what context_ is set to
};

}  // namespace mmtrain::media::detail
