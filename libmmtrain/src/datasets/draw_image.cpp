#include "datasets/draw_image.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace mmtrain::datasets::detail {
namespace {

struct Point {
  double x, y;
};

using Color = std::array<double, 3>;

constexpr std::array<std::string_view, kShapes> kShapeNames{"disc", "square", "triangle", "ring",  "plus",
                                                            "star", "bar",    "crescent", "cross", "frame"};

constexpr std::array<std::string_view, kTextures> kTextureNames{
    "plain",          "striped",       "barred",       "rising",       "falling",       "checked",     "dotted",
    "rippled",        "sliced",        "blotched",     "wide striped", "wide barred",   "wide rising", "wide falling",
    "coarse checked", "coarse dotted", "wide rippled", "netted",       "coarse netted", "halved"};

// std::hypot guards against overflow, at several times the cost.
double length(Point p) { return std::sqrt(p.x * p.x + p.y * p.y); }

bool in_box(Point p, double half_width, double half_height) {
  return std::abs(p.x) <= half_width && std::abs(p.y) <= half_height;
}

Point rotated(Point p, double angle) {
  const double c = std::cos(angle), s = std::sin(angle);
  return {c * p.x - s * p.y, s * p.x + c * p.y};
}

bool in_plus(Point p) { return in_box(p, 0.3, 0.95) || in_box(p, 0.95, 0.3); }

// Five points: the outline runs straight from a tip (radius 1) to a notch (radius `kNotch`) and on.
bool in_star(Point p) {
  constexpr double kNotch = 0.42, kHalfPoint = std::numbers::pi / 5;
  const double radius = length(p);
  const double turn = std::atan2(p.x, -p.y) / (2 * kHalfPoint);
  const double angle = std::abs(turn - std::round(turn)) * 2 * kHalfPoint;
  const Point tip{1, 0}, notch{kNotch * std::cos(kHalfPoint), kNotch * std::sin(kHalfPoint)};
  const Point at{radius * std::cos(angle), radius * std::sin(angle)};
  return (notch.x - tip.x) * (at.y - tip.y) - (notch.y - tip.y) * (at.x - tip.x) >= 0;
}

// Whether a shape of radius about 1 around the origin covers `p`; y points down.
bool covers(int shape, Point p) {
  const double radius = length(p);
  switch (shape) {
    case 0:
      return radius <= 0.95;
    case 1:
      return in_box(p, 0.8, 0.8);
    case 2:
      return p.y <= 0.75 && p.y >= -0.95 + 1.8 * std::abs(p.x);
    case 3:
      return radius <= 1 && radius >= 0.55;
    case 4:
      return in_plus(p);
    case 5:
      return in_star(p);
    case 6:
      return in_box(p, 1, 0.36);
    case 7:
      return radius <= 1 && length({p.x - 0.5, p.y}) >= 0.75;
    case 8:
      return in_plus(rotated(p, std::numbers::pi / 4));
    default:
      return in_box(p, 0.85, 0.85) && !in_box(p, 0.48, 0.48);
  }
}

// 0 or 1, changing every half period.
double wave(double position, double period) {
  const double phase = position / period;
  return phase - std::floor(phase) < 0.5 ? 0 : 1;
}

double dots(Point p, double period) {
  const double x = p.x / period, y = p.y / period;
  return length({x - std::round(x), y - std::round(y)}) < 0.33 ? 1 : 0;
}

double net(Point p, double period) {
  const double x = p.x / period, y = p.y / period;
  return x - std::floor(x) < 0.3 || y - std::floor(y) < 0.3 ? 1 : 0;
}

// Sums of waves in odd directions: patches without a visible order.
double blotches(Point p) {
  return std::sin(0.55 * p.x + 0.31 * p.y) + std::sin(-0.27 * p.x + 0.62 * p.y) + std::sin(0.41 * p.x - 0.47 * p.y) > 0
             ? 1
             : 0;
}

// Which of a texture's two colors is at `p`, in pixels from the shape's middle; `phase` shifts the pattern.
double pattern(int texture, Point p, Point phase) {
  const Point q{p.x + phase.x, p.y + phase.y};
  constexpr double kFine = 6, kWide = 13;
  constexpr double kDiagonal = std::numbers::sqrt2 / 2;
  switch (texture) {
    case 0:
      return 0;
    case 1:
      return wave(q.y, kFine);
    case 2:
      return wave(q.x, kFine);
    case 3:
      return wave((q.x + q.y) * kDiagonal, kFine);
    case 4:
      return wave((q.x - q.y) * kDiagonal, kFine);
    case 5:
      return std::abs(wave(q.x, 1.5 * kFine) - wave(q.y, 1.5 * kFine));
    case 6:
      return dots(q, 1.2 * kFine);
    case 7:
      return wave(length(p) + phase.x, kFine);
    case 8:
      return wave(std::atan2(p.y, p.x) / (2 * std::numbers::pi) + 0.01 * phase.x, 1.0 / 6);
    case 9:
      return blotches(q);
    case 10:
      return wave(q.y, kWide);
    case 11:
      return wave(q.x, kWide);
    case 12:
      return wave((q.x + q.y) * kDiagonal, kWide);
    case 13:
      return wave((q.x - q.y) * kDiagonal, kWide);
    case 14:
      return std::abs(wave(q.x, 1.5 * kWide) - wave(q.y, 1.5 * kWide));
    case 15:
      return dots(q, kWide);
    case 16:
      return wave(length(p) + phase.x, kWide);
    case 17:
      return net(q, 1.4 * kFine);
    case 18:
      return net(q, 1.2 * kWide);
    default:
      return p.y > 0.15 * phase.y ? 1 : 0;
  }
}

double distance(const Color& a, const Color& b) { return std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]); }

Color random_color(RandomStream& random) {
  Color color;
  for (double& channel : color) channel = random.uniform(15, 240);
  return color;
}

// A color that stands out from the others, drawn from the same distribution for every class.
Color distinct_color(RandomStream& random, std::initializer_list<Color> others) {
  constexpr double kLeast = 130;
  while (true) {
    const Color color = random_color(random);
    if (std::all_of(others.begin(), others.end(), [&](const Color& o) { return distance(color, o) >= kLeast; })) {
      return color;
    }
  }
}

// Where the shape lies and what it is painted with.
struct Scene {
  explicit Scene(RandomStream& random)
      : radius(random.uniform(19, 27)),
        center{coordinate(random), coordinate(random)},
        angle(random.uniform(-0.2, 0.2)),
        phase{random.uniform(0, 30), random.uniform(0, 30)},
        background(random_color(random)),
        first(distinct_color(random, {background})),
        second(distinct_color(random, {background, first})),
        slope{random.uniform(-0.5, 0.5), random.uniform(-0.5, 0.5)} {}

  // A quarter of the radius may lie outside: the more places, the less a linear model can make of them.
  double coordinate(RandomStream& random) const { return random.uniform(0.75 * radius, kDrawnSize - 0.75 * radius); }

  double radius;
  Point center;
  double angle;
  Point phase;
  Color background, first, second;
  Point slope;  // of the background's brightness
};

void extend(Box& box, int x, int y) {
  box = {std::min(box.left, x), std::min(box.top, y), std::max(box.right, x), std::max(box.bottom, y)};
}

// The scene at pixel (x, y), the mean of 2 x 2 points in it, and how many of these the shape covers.
struct Pixel {
  Color color{};
  int covered = 0;
};

Pixel render(DrawnClass kind, const Scene& scene, double cosine, double sine, int x, int y) {
  Pixel pixel;
  const double light = scene.slope.x * (x - kDrawnSize / 2) + scene.slope.y * (y - kDrawnSize / 2);
  for (const double sub_y : {0.25, 0.75}) {
    for (const double sub_x : {0.25, 0.75}) {
      const Point p{x + sub_x - scene.center.x, y + sub_y - scene.center.y};
      const Point turned{(cosine * p.x - sine * p.y) / scene.radius, (sine * p.x + cosine * p.y) / scene.radius};
      const bool inside = covers(kind.shape, turned);
      const double share = inside ? pattern(kind.texture, p, scene.phase) : 0;
      for (std::size_t c = 0; c < pixel.color.size(); ++c) {
        const double value =
            inside ? (1 - share) * scene.first[c] + share * scene.second[c] : scene.background[c] + light;
        pixel.color[c] += value / 4;
      }
      pixel.covered += inside;
    }
  }
  return pixel;
}

std::uint8_t to_byte(double value) { return static_cast<std::uint8_t>(std::clamp(std::lround(value), 0L, 255L)); }

}  // namespace

// The pairs run along diagonals of the table shape x texture: the first ten classes share neither.
DrawnClass drawn_class(int index) {
  const int shape = index % kShapes, round = index / kShapes;
  return {shape, (shape + round) % kTextures};
}

std::string drawn_class_name(int index) {
  const DrawnClass kind = drawn_class(index);
  return std::string(kTextureNames[static_cast<std::size_t>(kind.texture)]) + ' ' +
         std::string(kShapeNames[static_cast<std::size_t>(kind.shape)]);
}

Drawing draw(DrawnClass kind, RandomStream& random) {
  constexpr double kNoise = 5;  // grey levels to each side
  const Scene scene(random);
  const double cosine = std::cos(scene.angle), sine = std::sin(scene.angle);
  Drawing drawing{{kDrawnSize, kDrawnSize, {}}, {kDrawnSize, kDrawnSize, -1, -1}};
  drawing.image.pixels.reserve(static_cast<std::size_t>(kDrawnSize) * kDrawnSize * 3);
  for (int y = 0; y < kDrawnSize; ++y) {
    for (int x = 0; x < kDrawnSize; ++x) {
      const Pixel pixel = render(kind, scene, cosine, sine, x, y);
      if (pixel.covered > 0) extend(drawing.box, x, y);
      // Three bytes of one random word: as many different values as 8 bits can show.
      const std::uint32_t word = random();
      for (std::size_t c = 0; c < pixel.color.size(); ++c) {
        const double unit = static_cast<double>(word >> (8 * c) & 0xFF) / 255;
        drawing.image.pixels.push_back(to_byte(pixel.color[c] + kNoise * (2 * unit - 1)));
      }
    }
  }
  return drawing;
}

}  // namespace mmtrain::datasets::detail
