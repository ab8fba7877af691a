#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "mmtrain/core/random.h"

namespace mmtrain::datasets::detail {

// How somebody is built and wears the sensors.
struct BehaviorPerson {
  double pulse = 1.2;            // Hz
  double breath = 0.25;          // Hz
  double chewing = 1.5;          // Hz
  double strength = 1;           // of all movements
  std::array<double, 3> base{};  // of the light sensors
  std::array<double, 3> gravity{};
  std::array<double, 3> axis{};  // along which the jaw moves
};

BehaviorPerson draw_person(RandomStream& random);

// What happens in a recording.
struct BehaviorEvents {
  std::string behavior;        // rest, chew, cough, swallow, drink or talk
  std::vector<double> starts;  // seconds
  double seconds = 0;          // that each lasts
};

struct BehaviorClip {
  double seconds = 60;
  double rate = 48;     // samples a second
  bool throat = false;  // else the ear, where everything is fainter
};

// Rows of green, infrared, red, X, Y, Z.
using BehaviorRow = std::array<std::int32_t, 6>;
std::vector<BehaviorRow> draw_behavior(const BehaviorPerson& person, const BehaviorEvents& events,
                                       const BehaviorClip& clip, RandomStream& random);

}  // namespace mmtrain::datasets::detail
