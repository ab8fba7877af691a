#include "report/canvas.h"

#include <algorithm>
#include <cmath>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

#include "mmtrain/media/image.h"
#include "report/utf8.h"

namespace mmtrain {
namespace {

constexpr int kScale = 3;
constexpr int kShift = 4;  // OpenCV's fixed-point coordinates: 1/16 of a pixel
constexpr int kFont = cv::FONT_HERSHEY_SIMPLEX;
constexpr double kCapHeight = 0.7;                          // of the font size
constexpr double kFontUnits = 21.0;                         // height of a capital at OpenCV's scale 1
constexpr double kTextStroke = 0.085, kBoldStroke = 0.125;  // of the font size

cv::Scalar scalar(Color color) { return {double(color.red), double(color.green), double(color.blue)}; }

cv::Point fixed(Point point) {
  // OpenCV counts from the middle of the first pixel, we from its corner.
  const auto coordinate = [](double value) {
    return static_cast<int>(std::lround((value * kScale - 0.5) * (1 << kShift)));
  };
  return {coordinate(point.x), coordinate(point.y)};
}

int fixed_length(double length) { return static_cast<int>(std::lround(length * kScale * (1 << kShift))); }

int stroke(double width) { return std::max(1, static_cast<int>(std::lround(width * kScale))); }

cv::Rect pixels(const Box& box) {
  const auto pixel = [](double value) { return static_cast<int>(std::lround(value * kScale)); };
  const int left = pixel(box.left), top = pixel(box.top);
  return {left, top, std::max(1, pixel(box.right()) - left), std::max(1, pixel(box.bottom()) - top)};
}

std::string ascii(std::string_view text) {
  std::string result;
  for (const char byte : text) {
    if (static_cast<unsigned char>(byte) < 0x80)
      result += byte;
    else if (starts_character(byte))
      result += '?';
  }
  return result;
}

double font_scale(double size) { return size * kCapHeight / kFontUnits; }

// The text in white on black, and the row of its base line.
struct Glyphs {
  cv::Mat mask;
  int base;
};

Glyphs render(const std::string& text, const TextStyle& style) {
  const double scale = font_scale(style.size) * kScale;
  const int thickness = stroke(style.size * (style.bold ? kBoldStroke : kTextStroke));
  const int ascent = static_cast<int>(std::lround(style.size * kCapHeight * kScale));
  const int descent = ascent / 2, width = cv::getTextSize(text, kFont, scale, thickness, nullptr).width;
  cv::Mat mask(ascent + 2 * descent, width + thickness, CV_8U, cv::Scalar(0));
  cv::putText(mask, text, {thickness / 2, descent + ascent}, kFont, scale, 255, thickness, cv::LINE_AA);
  return {mask, descent + ascent};
}

void blend(cv::Mat& sheet, const cv::Mat& mask, cv::Point corner, Color color) {
  const cv::Rect visible = cv::Rect(corner, mask.size()) & cv::Rect({}, sheet.size());
  const int channels[] = {color.red, color.green, color.blue};
  for (int y = visible.y; y < visible.br().y; ++y) {
    auto* row = sheet.ptr<cv::Vec3b>(y);
    const auto* alpha = mask.ptr<std::uint8_t>(y - corner.y);
    for (int x = visible.x; x < visible.br().x; ++x) {
      const int part = alpha[x - corner.x];
      for (int c = 0; c < 3; ++c) {
        row[x][c] = static_cast<std::uint8_t>((row[x][c] * (255 - part) + channels[c] * part + 127) / 255);
      }
    }
  }
}

// Where an alignment puts the anchor between two edges of the ink.
double between(AlignX align, double left, double right) {
  return align == AlignX::left ? left : align == AlignX::center ? (left + right) / 2 : right;
}
double between(AlignY align, double top, double bottom) {
  return align == AlignY::top ? top : align == AlignY::middle ? (top + bottom) / 2 : bottom;
}

}  // namespace

Canvas::Canvas(double width, double height)
    : sheet_(std::make_unique<cv::Mat>(static_cast<int>(std::ceil(height)) * kScale,
                                       static_cast<int>(std::ceil(width)) * kScale, CV_8UC3,
                                       cv::Scalar(255, 255, 255))) {}

Canvas::~Canvas() = default;

void Canvas::line(Point from, Point to, Color color, double width) {
  cv::line(*sheet_, fixed(from), fixed(to), scalar(color), stroke(width), cv::LINE_AA, kShift);
}

void Canvas::polyline(const std::vector<Point>& points, Color color, double width) {
  std::vector<cv::Point> path;
  std::ranges::transform(points, std::back_inserter(path), fixed);
  cv::polylines(*sheet_, path, /*isClosed=*/false, scalar(color), stroke(width), cv::LINE_AA, kShift);
}

void Canvas::disc(Point center, double radius, Color color) {
  cv::circle(*sheet_, fixed(center), fixed_length(radius), scalar(color), cv::FILLED, cv::LINE_AA, kShift);
}

void Canvas::ring(Point center, double radius, Color color, double width) {
  cv::circle(*sheet_, fixed(center), fixed_length(radius), scalar(color), stroke(width), cv::LINE_AA, kShift);
}

void Canvas::fill(const Box& box, Color color) { cv::rectangle(*sheet_, pixels(box), scalar(color), cv::FILLED); }

void Canvas::frame(const Box& box, Color color, double width) {
  fill({box.left, box.top, box.width, width}, color);
  fill({box.left, box.bottom() - width, box.width, width}, color);
  fill({box.left, box.top, width, box.height}, color);
  fill({box.right() - width, box.top, width, box.height}, color);
}

void Canvas::text(Point anchor, std::string_view text, const TextStyle& style) {
  const std::string shown = ascii(text);
  if (shown.empty()) return;
  Glyphs glyphs = render(shown, style);
  const double caps = glyphs.base - style.size * kCapHeight * kScale, base = glyphs.base, length = glyphs.mask.cols;
  double x = between(style.x, 0, length), y = between(style.y, caps, base);
  if (style.vertical) {
    cv::rotate(glyphs.mask, glyphs.mask, cv::ROTATE_90_COUNTERCLOCKWISE);
    x = between(style.x, caps, base);
    y = between(style.y, 0, length);
  }
  const auto corner = [](double anchor_at, double ink) {
    return static_cast<int>(std::lround(anchor_at * kScale - ink));
  };
  blend(*sheet_, glyphs.mask, {corner(anchor.x, x), corner(anchor.y, y)}, style.color);
}

double Canvas::text_width(std::string_view text, double size) {
  return cv::getTextSize(ascii(text), kFont, font_scale(size) * kScale, 1, nullptr).width / double(kScale);
}

std::vector<std::byte> Canvas::png() const {
  cv::Mat small;
  cv::resize(*sheet_, small, {}, 1.0 / kScale, 1.0 / kScale, cv::INTER_AREA);
  return media::encode_png({small.data, small.rows, small.cols});
}

}  // namespace mmtrain
