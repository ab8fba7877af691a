#include "datasets/talking_face.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <span>

namespace mmtrain::datasets::detail {
namespace {

constexpr double kPi = std::numbers::pi;

using Color = std::array<double, 3>;

// Syllables: when the mouth opens and the voice sounds.
struct Syllable {
  double begin, end;  // seconds
  double weight;      // loudness and opening, around 1
  double accent;      // pitch, around 0
  int vowel;
};

// The course of one utterance, shared by face and voice.
struct Speech {
  std::vector<Syllable> syllables;

  // How far the mouth is open at `time`, 0..1.
  double opening(double time) const {
    double open = 0;
    for (const Syllable& one : syllables) {
      if (time <= one.begin || time >= one.end) continue;
      const double wave = std::sin(kPi * (time - one.begin) / (one.end - one.begin));
      open = std::max(open, std::min(one.weight * std::sqrt(wave), 1.0));
    }
    return open;
  }
};

// What a tone makes of the voice; all are means, around which utterances vary.
struct Manner {
  double pitch, range, slope;  // factor, semitones, semitones from begin to end
  double rate;                 // syllables a second
  double gain, breath, tremor;
};

Manner manner_of(Tone tone, RandomStream& random) {
  Manner manner{};
  switch (tone) {
    case Tone::flat:
      manner = {1.0, 0.8, -1.0, 4.2, 0.30, 0.03, 0.0};
      break;
    case Tone::loud:
      manner = {1.35, 4.5, -2.0, 5.4, 0.75, 0.02, 0.0};
      break;
    case Tone::drawn:
      manner = {1.10, 1.5, 6.0, 2.2, 0.22, 0.16, 0.8};
      break;
  }
  manner.pitch *= std::exp(0.07 * random.normal());
  manner.range *= std::exp(0.25 * random.normal());
  manner.slope += 1.2 * random.normal();
  manner.rate *= std::exp(0.12 * random.normal());
  manner.gain *= std::exp(0.25 * random.normal());
  manner.breath *= std::exp(0.35 * random.normal());
  manner.tremor *= std::exp(0.3 * random.normal());
  return manner;
}

Speech random_speech(double rate, double seconds, RandomStream& random) {
  Speech speech;
  double time = random.uniform(0.04, 0.12);
  while (time < seconds - 0.1) {
    const double length = std::exp(0.2 * random.normal()) / rate;
    const double end = std::min(time + 0.8 * length, seconds - 0.03);
    speech.syllables.push_back(
        {time, end, std::exp(0.15 * random.normal()), random.normal(), static_cast<int>(random.uniform_int(5))});
    time += length;
  }
  return speech;
}

// What an expression makes of the face; lengths in heads.
struct Look {
  double brow_height, brow_slope;  // above the eyes; inner ends down
  double eye_opening;              // 1: round
  double mouth_curve, mouth_width, mouth_opening;
  double teeth;
};

Look look_of(Expression expression, RandomStream& random) {
  Look look{};
  switch (expression) {
    case Expression::still:
      look = {0.17, 0.0, 0.55, 0.0, 1.0, 0.02, 0.0};
      break;
    case Expression::startled:
      look = {0.30, -0.12, 1.0, -0.04, 0.65, 0.16, 0.0};
      break;
    case Expression::grimace:
      look = {0.13, 0.10, 0.28, 0.16, 1.35, 0.05, 1.0};
      break;
  }
  look.brow_height += 0.025 * random.normal();
  look.brow_slope += 0.035 * random.normal();
  look.eye_opening *= std::exp(0.15 * random.normal());
  look.mouth_curve += 0.03 * random.normal();
  look.mouth_width *= std::exp(0.08 * random.normal());
  look.mouth_opening *= std::exp(0.25 * random.normal());
  return look;
}

// Where a head is and what it does in one frame.
struct Pose {
  double x, y, tilt;  // of the head, in halves of the image; radians
  double opening;     // of the mouth by speaking, 0..1
  double blink;       // 1: eyes shut
};

// Share of a pixel that lies inside, by its distance from the border (negative: inside).
double inside(double distance, double pixel) { return std::clamp(0.5 - distance / pixel, 0.0, 1.0); }

double ellipse(double x, double y, double a, double b) {
  const double q = std::hypot(x / a, y / b);
  return (q - 1) * std::min(a, b);  // close to the distance near the border, which is all that counts
}

double segment(double x, double y, double x0, double y0, double x1, double y1, double thickness) {
  const double dx = x1 - x0, dy = y1 - y0;
  const double t = std::clamp(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0);
  return std::hypot(x - x0 - t * dx, y - y0 - t * dy) - thickness;
}

void paint(Color& under, const Color& color, double share) {
  for (std::size_t c = 0; c < under.size(); ++c) under[c] += share * (color[c] - under[c]);
}

constexpr Color kWhite{0.95, 0.95, 0.92}, kPupil{0.08, 0.06, 0.06}, kLips{0.62, 0.25, 0.25}, kThroat{0.25, 0.05, 0.07};

// Color at a point of the image, both coordinates in -1..1, y downwards.
class Painter {
 public:
  Painter(const Speaker& speaker, const Look& look, const Pose& pose, double pixel)
      : speaker_(speaker), look_(look), pose_(pose), pixel_(pixel / speaker.height) {
    sine_ = std::sin(pose.tilt);
    cosine_ = std::cos(pose.tilt);
  }

  Color at(double image_x, double image_y) const {
    Color color = speaker_.wall;
    for (double& channel : color) channel *= 1.0 - 0.12 * image_y;
    // In heads: the middle of the face is the origin, its top at y = -1.
    const double shifted_x = image_x - pose_.x, shifted_y = image_y - pose_.y;
    const double x = (cosine_ * shifted_x + sine_ * shifted_y) / speaker_.height;
    const double y = (cosine_ * shifted_y - sine_ * shifted_x) / speaker_.height;
    const double width = speaker_.width / speaker_.height;
    paint(color, speaker_.hair, inside(ellipse(x, y + 0.12, width * 1.1, 1.02), pixel_));
    Color skin = speaker_.skin;
    for (double& channel : skin) channel *= 1.0 - 0.18 * x;  // light from one side
    const double face = inside(ellipse(x, y, width, 1.0), pixel_);
    paint(color, skin, face * inside(-1 + speaker_.hairline - y, 0.08));
    eyes(color, x, y);
    nose(color, x, y);
    mouth(color, x, y);
    return color;
  }

 private:
  void eyes(Color& color, double x, double y) const {
    constexpr double kHeight = -0.15;
    const double side = x < 0 ? -1 : 1, size = speaker_.eye_size;
    const double ex = x - side * speaker_.eye_distance, ey = y - kHeight;
    const double open = std::max(look_.eye_opening * (1 - pose_.blink), 0.06);
    const double white = inside(ellipse(ex, ey, size, size * open), pixel_);
    paint(color, kWhite, white);
    paint(color, kPupil, white * inside(std::hypot(ex, ey) - 0.5 * size, pixel_));
    const double brow = kHeight - look_.brow_height;
    const double inner = side * (speaker_.eye_distance - 0.16), outer = side * (speaker_.eye_distance + 0.17);
    paint(color, speaker_.hair,
          inside(segment(x, y, inner, brow + look_.brow_slope, outer, brow, speaker_.brow_weight), pixel_));
  }

  void nose(Color& color, double x, double y) const {
    paint(color, {0.3, 0.2, 0.18}, 0.35 * inside(segment(x, y, 0.02, 0.0, 0.05, 0.22, 0.025), pixel_));
  }

  void mouth(Color& color, double x, double y) const {
    const double half = speaker_.mouth_width * look_.mouth_width;
    const double along = x / half;
    if (std::abs(along) >= 1) return;
    // The lips are two arcs whose ends meet; the curve lifts the ends.
    const double arc = 1 - along * along;
    const double middle = 0.48 - look_.mouth_curve * (along * along - 0.4);
    const double open = (look_.mouth_opening + 0.12 * pose_.opening) * arc;
    const double distance = std::abs(y - middle);
    paint(color, kLips, inside(distance - open - 0.05 * std::sqrt(arc), pixel_));
    const Color& within = look_.teeth > 0 ? kWhite : kThroat;
    paint(color, within, inside(distance - open, pixel_));
  }

  const Speaker& speaker_;
  const Look& look_;
  const Pose& pose_;
  double pixel_;  // size of one, in heads
  double sine_, cosine_;
};

media::Image draw_frame(const Speaker& speaker, const Look& look, const Pose& pose, int size, RandomStream& random) {
  const double pixel = 2.0 / size;
  const Painter painter(speaker, look, pose, pixel);
  const double light = 1 + 0.03 * random.normal();
  media::Image image{size, size, {}};
  image.pixels.reserve(static_cast<std::size_t>(size) * static_cast<std::size_t>(size) * 3);
  for (int row = 0; row < size; ++row) {
    for (int column = 0; column < size; ++column) {
      const Color color = painter.at((column + 0.5) * pixel - 1, (row + 0.5) * pixel - 1);
      const double grain = 0.02 * (random.uniform() - 0.5);
      for (const double channel : color) {
        image.pixels.push_back(
            static_cast<std::uint8_t>(std::lround(255 * std::clamp(channel * light + grain, 0.0, 1.0))));
      }
    }
  }
  return image;
}

std::vector<media::Image> draw_frames(const Speaker& speaker, const TalkingFaceOptions& options, const Speech& speech,
                                      RandomStream& random) {
  const Look look = look_of(options.expression, random);
  const double x = random.uniform(-0.12, 0.12), y = random.uniform(-0.06, 0.10), tilt = 0.08 * random.normal();
  const double sway = random.uniform(0.01, 0.05), pace = random.uniform(0.4, 1.0), phase = random.uniform(0, 2 * kPi);
  const double blink_at = random.uniform(0, 4 * options.seconds);  // not in each clip
  const int count = std::max(1, static_cast<int>(std::lround(options.seconds * options.frame_rate)));
  std::vector<media::Image> frames;
  for (int k = 0; k < count; ++k) {
    const double time = k / options.frame_rate, swing = std::sin(2 * kPi * pace * time + phase);
    const Pose pose{x + sway * swing, y + 0.3 * sway * std::cos(2 * kPi * pace * time), tilt + 0.6 * sway * swing,
                    speech.opening(time), std::abs(time - blink_at) < 0.08 ? 1.0 : 0.0};
    frames.push_back(draw_frame(speaker, look, pose, options.size, random));
  }
  return frames;
}

// One resonance of the vocal tract (a two-pole filter with unit gain at 0 Hz).
class Formant {
 public:
  float operator()(double input, double frequency, double bandwidth, double sample_rate) {
    const double radius = std::exp(-kPi * bandwidth / sample_rate);
    const double b = 2 * radius * std::cos(2 * kPi * frequency / sample_rate), c = -radius * radius;
    const double output = (1 - b - c) * input + b * last_ + c * before_;
    before_ = last_;
    last_ = output;
    return static_cast<float>(output);
  }

 private:
  double last_ = 0, before_ = 0;
};

// Frequencies of the first three formants of five vowels (a, e, i, o, u).
constexpr std::array<std::array<double, 3>, 5> kVowels{
    {{730, 1090, 2440}, {530, 1840, 2480}, {270, 2290, 3010}, {570, 840, 2410}, {300, 870, 2240}}};

std::vector<float> speak(const Speaker& speaker, const Manner& manner, const Speech& speech,
                         const TalkingFaceOptions& options, RandomStream& random) {
  const double rate = options.sample_rate;
  const auto samples = static_cast<std::size_t>(std::lround(options.seconds * rate));
  std::vector<float> voice(samples, 0.0F);
  std::array<Formant, 3> formants;
  const double tremor_rate = random.uniform(5, 7);
  double phase = 0, smoothed = 0, vowel[3] = {500, 1500, 2500};
  std::size_t current = 0;
  for (std::size_t n = 0; n < samples; ++n) {
    const double time = static_cast<double>(n) / rate;
    while (current + 1 < speech.syllables.size() && time >= speech.syllables[current + 1].begin) ++current;
    const Syllable& syllable = speech.syllables[current];
    for (std::size_t k = 0; k < formants.size(); ++k) {
      const double goal = kVowels[static_cast<std::size_t>(syllable.vowel)][k] / speaker.tract;
      vowel[k] += (goal - vowel[k]) * 0.002;  // the tongue takes some 30 ms
    }
    const double semitones = manner.range * 0.5 * syllable.accent + manner.slope * (time / options.seconds - 0.5) +
                             manner.tremor * std::sin(2 * kPi * tremor_rate * time);
    const double pitch = speaker.pitch * manner.pitch * std::exp2(semitones / 12);
    phase += pitch / rate;
    double pulse = 0;
    if (phase >= 1) {
      phase -= 1;
      pulse = rate / pitch;  // equal power at any pitch
    }
    smoothed += (pulse - smoothed) * 0.25;  // the source falls towards high frequencies
    const double noise = random.uniform() - 0.5;
    double sound = 0.12 * smoothed + 6 * manner.breath * noise;
    for (std::size_t k = 0; k < formants.size(); ++k) {
      sound = formants[k](sound, vowel[k], 70 + 40 * static_cast<double>(k), rate);
    }
    const double envelope = speech.opening(time);
    const double level = manner.gain * speaker.loudness * envelope;
    voice[n] = static_cast<float>(std::tanh(0.35 * level * sound) + 0.004 * speaker.hiss * noise);
  }
  return voice;
}

}  // namespace

Speaker random_speaker(RandomStream& random) {
  constexpr std::array<Color, 4> kSkins{
      {{0.96, 0.80, 0.69}, {0.85, 0.65, 0.50}, {0.65, 0.45, 0.33}, {0.42, 0.29, 0.22}}};
  constexpr std::array<Color, 4> kHairs{
      {{0.10, 0.08, 0.07}, {0.32, 0.20, 0.12}, {0.65, 0.48, 0.25}, {0.50, 0.50, 0.50}}};
  Speaker speaker{};
  speaker.skin = kSkins[static_cast<std::size_t>(random.uniform_int(4))];
  speaker.hair = kHairs[static_cast<std::size_t>(random.uniform_int(4))];
  for (double& channel : speaker.skin) channel = std::clamp(channel + random.uniform(-0.05, 0.05), 0.0, 1.0);
  for (double& channel : speaker.wall) channel = random.uniform(0.2, 0.8);
  speaker.height = random.uniform(0.72, 0.84);
  speaker.width = speaker.height * random.uniform(0.70, 0.84);
  speaker.eye_distance = random.uniform(0.28, 0.36);
  speaker.eye_size = random.uniform(0.12, 0.15);
  speaker.brow_weight = random.uniform(0.03, 0.05);
  speaker.mouth_width = random.uniform(0.24, 0.32);
  speaker.hairline = random.uniform(0.25, 0.45);
  const bool high = random.bernoulli(0.5);
  speaker.pitch = high ? random.uniform(170, 230) : random.uniform(95, 140);
  speaker.tract = high ? random.uniform(0.84, 0.92) : random.uniform(0.95, 1.06);
  speaker.rate = std::exp(0.08 * random.normal());
  speaker.loudness = std::exp(0.15 * random.normal());
  speaker.hiss = random.uniform(0.5, 2);
  return speaker;
}

TalkingFace draw_talking_face(const Speaker& speaker, const TalkingFaceOptions& options, RandomStream& random) {
  const Manner manner = manner_of(options.tone, random);
  const Speech speech = random_speech(manner.rate * speaker.rate, options.seconds, random);
  TalkingFace clip;
  clip.voice = speak(speaker, manner, speech, options, random);
  clip.frames = draw_frames(speaker, options, speech, random);
  return clip;
}

}  // namespace mmtrain::datasets::detail
