#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "mmtrain/core/random.h"
#include "mmtrain/media/image.h"

// Talking faces with synthetic voices: what `generate_emotion` makes clips of.
namespace mmtrain::datasets::detail {

// What a face can show and a voice can sound like. A feeling is a pair of the two: neither alone tells which.
enum class Expression { still, startled, grimace };
enum class Tone { flat, loud, drawn };

// What one speaker looks and sounds like, whatever they feel.
struct Speaker {
  std::array<double, 3> skin, hair, wall;  // colors, 0..1
  double width, height;                    // of the head, in halves of the image
  double eye_distance, eye_size, brow_weight, mouth_width, hairline;
  double pitch;                 // Hz
  double tract;                 // length of the vocal tract, 1: average
  double rate, loudness, hiss;  // factors
};

Speaker random_speaker(RandomStream& random);

struct TalkingFace {
  std::vector<media::Image> frames;
  std::vector<float> voice;  // mono, -1..1
};

struct TalkingFaceOptions {
  Expression expression = Expression::still;
  Tone tone = Tone::flat;
  double seconds = 1.5;
  int size = 64;             // of the frames, pixels
  double frame_rate = 8;     // frames a second
  int sample_rate = 16'000;  // samples a second
};

// A clip of somebody who talks. The same numbers of `random` give the same clip.
TalkingFace draw_talking_face(const Speaker& speaker, const TalkingFaceOptions& options, RandomStream& random);

}  // namespace mmtrain::datasets::detail
