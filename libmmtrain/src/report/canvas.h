#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace cv {
class Mat;
}

namespace mmtrain {

struct Color {
  std::uint8_t red = 0, green = 0, blue = 0;
};

struct Point {
  double x = 0, y = 0;
};

struct Box {
  double left = 0, top = 0, width = 0, height = 0;
  double right() const { return left + width; }
  double bottom() const { return top + height; }
};

// Where a text lies relative to its anchor, and whether it is read upwards.
enum class AlignX { left, center, right };
enum class AlignY { top, middle, bottom };
struct TextStyle {
  double size = 13;  // of the font; capitals are 0.7 of it high
  Color color = {40, 40, 40};
  AlignX x = AlignX::left;
  AlignY y = AlignY::middle;
  bool vertical = false;
  bool bold = false;
};

// A white sheet to draw on, in pixels from the top left corner. It is drawn larger than asked and scaled down, which
// smooths what OpenCV alone leaves jagged.
class Canvas {
 public:
  Canvas(double width, double height);
  ~Canvas();

  void line(Point from, Point to, Color color, double width);
  void polyline(const std::vector<Point>& points, Color color, double width);
  void disc(Point center, double radius, Color color);
  void ring(Point center, double radius, Color color, double width);
  void fill(const Box& box, Color color);
  void frame(const Box& box, Color color, double width);
  // Characters outside ASCII become `?`: OpenCV's strokes do not have them.
  void text(Point anchor, std::string_view text, const TextStyle& style);

  static double text_width(std::string_view text, double size);

  // The sheet as a PNG file.
  std::vector<std::byte> png() const;

 private:
  std::unique_ptr<cv::Mat> sheet_;
};

}  // namespace mmtrain
