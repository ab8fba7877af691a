#include "media/frame_scaler.h"

extern "C" {
#include <libavutil/frame.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

#include <fmt/format.h>

#include <array>
#include <new>
#include <utility>

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

/// Where chroma samples lie between those of luma, in 1/256 of a chroma sample.
struct ChromaPlace {
  AVChromaLocation location;
  int across, down;
};
constexpr std::array kChromaPlaces = {
    ChromaPlace{AVCHROMA_LOC_LEFT, 0, 128},       ChromaPlace{AVCHROMA_LOC_CENTER, 128, 128},
    ChromaPlace{AVCHROMA_LOC_TOPLEFT, 0, 0},      ChromaPlace{AVCHROMA_LOC_TOP, 128, 0},
    ChromaPlace{AVCHROMA_LOC_BOTTOMLEFT, 0, 256}, ChromaPlace{AVCHROMA_LOC_BOTTOM, 128, 256},
};

}  // namespace

FrameScaler::~FrameScaler() { sws_freeContext(context_); }

FrameScaler::Source FrameScaler::source_of(const AVFrame& frame) {
  const auto stored = static_cast<AVPixelFormat>(frame.format);
  const AVPixelFormat format = without_range(stored);
  return {.height = frame.height,
          .width = frame.width,
          .format = format,
          .matrix = frame.colorspace,
          .full_range = format != stored || frame.color_range == AVCOL_RANGE_JPEG,
          .chroma_location = frame.chroma_location};
}

void FrameScaler::prepare(const Source& source, int height, int width) {
  sws_freeContext(std::exchange(context_, sws_alloc_context()));
  if (context_ == nullptr) throw std::bad_alloc();
  const auto set = [this](const char* name, int value) { av_opt_set_int(context_, name, value, 0); };
  set("sws_flags", SWS_BILINEAR);
  set("srch", source.height);
  set("srcw", source.width);
  set("src_format", source.format);
  set("dsth", height);
  set("dstw", width);
  set("dst_format", AV_PIX_FMT_RGB24);
  const AVPixFmtDescriptor* description = av_pix_fmt_desc_get(static_cast<AVPixelFormat>(source.format));
  for (const ChromaPlace& place : kChromaPlaces) {
    if (place.location != source.chroma_location || description == nullptr) continue;
    if (description->log2_chroma_w > 0) set("src_h_chr_pos", place.across);
    if (description->log2_chroma_h > 0) set("src_v_chr_pos", place.down);
  }
  if (sws_init_context(context_, nullptr, nullptr) < 0) {
    sws_freeContext(std::exchange(context_, nullptr));
    throw DataError(fmt::format("frames of {} x {} pixels, format '{}', cannot be converted to {} x {}", source.height,
                                source.width, description != nullptr ? description->name : "?", height, width));
  }
  constexpr int kNeutral = 1 << 16;  // contrast and saturation
  sws_setColorspaceDetails(context_, sws_getCoefficients(source.matrix), source.full_range ? 1 : 0,
                           sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, kNeutral, kNeutral);
  source_ = source;
}

Image FrameScaler::convert(const AVFrame& frame) {
  Image image{height_ > 0 ? height_ : frame.height, width_ > 0 ? width_ : frame.width, {}};
  const Source source = source_of(frame);
  if (context_ == nullptr || !(source == source_)) prepare(source, image.height, image.width);

  const auto lines = static_cast<std::size_t>(image.height);
  const std::size_t size = std::size_t{3} * lines * static_cast<std::size_t>(image.width);
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
