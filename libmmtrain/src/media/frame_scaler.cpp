#include "media/frame_scaler.h"

extern "C" {
#include <libavutil/frame.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

#include <fmt/format.h>

#include <array>

#include "mmtrain/core/error.h"

namespace mmtrain::media::detail {
namespace {

/// Bytes behind the last line that swscale's vector code may write.
constexpr std::size_t kOverrun = 64;

/// The formats that mean full range by themselves are deprecated names of others.
AVPixelFormat without_range(AVPixelFormat format) {
  switch (format) {
    case AV_PIX_FMT_YUVJ420P:
      return AV_PIX_FMT_YUV420P;
    case AV_PIX_FMT_YUVJ422P:
      return AV_PIX_FMT_YUV422P;
    case AV_PIX_FMT_YUVJ444P:
      return AV_PIX_FMT_YUV444P;
    case AV_PIX_FMT_YUVJ440P:
      return AV_PIX_FMT_YUV440P;
    case AV_PIX_FMT_YUVJ411P:
      return AV_PIX_FMT_YUV411P;
    default:
      return format;
  }
}

}  // namespace

FrameScaler::~FrameScaler() { sws_freeContext(context_); }

Image FrameScaler::convert(const AVFrame& frame) {
  const auto stored_format = static_cast<AVPixelFormat>(frame.format);
  const AVPixelFormat format = without_range(stored_format);
  const int full_range = format != stored_format || frame.color_range == AVCOL_RANGE_JPEG ? 1 : 0;
  Image image{height_ > 0 ? height_ : frame.height, width_ > 0 ? width_ : frame.width, {}};

  SwsContext* const before = context_;
  context_ = sws_getCachedContext(context_, frame.width, frame.height, format, image.width, image.height,
                                  AV_PIX_FMT_RGB24, SWS_BILINEAR, nullptr, nullptr, nullptr);
  if (context_ == nullptr) {
    const char* name = av_get_pix_fmt_name(format);
    throw DataError(fmt::format("frames of {} x {} pixels, format '{}', cannot be converted to {} x {}", frame.height,
                                frame.width, name != nullptr ? name : "?", image.height, image.width));
  }
  if (context_ != before || matrix_ != frame.colorspace || full_range_ != full_range) {
    matrix_ = frame.colorspace;
    full_range_ = full_range;
    constexpr int kNeutral = 1 << 16;
    const int* coefficients = sws_getCoefficients(matrix_);
    sws_setColorspaceDetails(context_, coefficients, full_range, sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, kNeutral,
                             kNeutral);
  }

  const std::size_t size =
      std::size_t{3} * static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width);
  image.pixels.resize(size + kOverrun);
  const std::array<std::uint8_t*, 4> planes = {image.pixels.data()};
  const std::array<int, 4> pitches = {3 * image.width};
  if (sws_scale(context_, frame.data, frame.linesize, 0, frame.height, planes.data(), pitches.data()) <= 0) {
    throw DataError("a frame cannot be converted");
  }
  image.pixels.resize(size);
  return image;
}

}  // namespace mmtrain::media::detail
