#include "datasets/behavior_signal.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace mmtrain::datasets::detail {
namespace {

constexpr double kTau = 2 * std::numbers::pi;
constexpr double kGravity = 16384;  // counts

double bump(double x) { return std::exp(-0.5 * x * x); }

// What the body adds to a moment: light in shares of its base, movement in counts along three axes.
struct Moment {
  double light = 0;
  std::array<double, 3> motion{};
};

class Drawing {
 public:
  Drawing(const BehaviorPerson& person, const BehaviorEvents& events, const BehaviorClip& clip, RandomStream& random)
      : person_(person),
        events_(events),
        clip_(clip),
        random_(random),
        gain_(person.strength * (clip.throat ? 2.2 : 1)) {
    for (double& phase : phases_) phase = random.uniform(0, kTau);
    for (double t = random.uniform(2, 8); t < clip.seconds; t += random.uniform(6, 14)) {
      turns_.push_back({t, random.uniform(0.4, 1.0), {random.normal(), random.normal(), random.normal()}});
    }
    for (const double start : events.starts) details_.push_back(draw_details(start));
  }

  std::vector<BehaviorRow> run() {
    const auto count = static_cast<std::size_t>(clip_.seconds * clip_.rate);
    // Rows that radio lost: short runs, as in the recordings.
    std::vector<bool> lost(count, false);
    for (double at = random_.uniform(3, 30); at < clip_.seconds; at += random_.uniform(5, 30)) {
      const auto first = static_cast<std::size_t>(at * clip_.rate);
      const auto length = static_cast<std::size_t>(random_.uniform_int(6) + 1);
      for (std::size_t k = first; k < std::min(count, first + length); ++k) lost[k] = true;
    }
    std::vector<BehaviorRow> rows;
    for (std::size_t k = 0; k < count; ++k) {
      const BehaviorRow row = row_at(static_cast<double>(k) / clip_.rate);
      if (!lost[k]) rows.push_back(row);
    }
    return rows;
  }

 private:
  struct Turn {
    double at, width;
    std::array<double, 3> way;
  };
  // What differs from one event to the next.
  struct Details {
    double start, strength, offset, speed;
    std::array<double, 3> way;
  };

  Details draw_details(double start) {
    return {start,
            random_.uniform(0.7, 1.3),
            random_.uniform(0.6, 1.2),
            random_.uniform(0.9, 1.1),
            {person_.axis[0] + 0.3 * random_.normal(), person_.axis[1] + 0.3 * random_.normal(),
             person_.axis[2] + 0.3 * random_.normal()}};
  }

  BehaviorRow row_at(double t) {
    Moment moment = body(t);
    for (const Details& details : details_) {
      if (t >= details.start && t < details.start + events_.seconds) add_event(moment, t, details);
    }
    BehaviorRow row{};
    for (std::size_t k = 0; k < 3; ++k) {
      const double share = 1 + moment.light + 0.0006 * random_.normal();
      row[k] = static_cast<std::int32_t>(std::lround(person_.base[k] * share));
      const double motion = person_.gravity[k] + moment.motion[k] + 45 * random_.normal();
      row[3 + k] = static_cast<std::int32_t>(std::clamp(std::lround(motion), -32768L, 32767L));
    }
    return row;
  }

  // Pulse, breath, drift, and the head's own movements.
  Moment body(double t) const {
    const double beat = std::sin(kTau * person_.pulse * t + phases_[0]);
    Moment moment;
    moment.light = 0.006 * (beat + 0.4 * std::sin(2 * kTau * person_.pulse * t + 2 * phases_[0])) +
                   0.004 * std::sin(kTau * person_.breath * t + phases_[1]) +
                   0.02 * std::sin(kTau * 0.01 * t + phases_[2]);
    for (std::size_t k = 0; k < 3; ++k) {
      moment.motion[k] = 60 * std::sin(kTau * person_.breath * t + phases_[3] + static_cast<double>(k));
    }
    for (const Turn& turn : turns_) {
      const double x = (t - turn.at) / turn.width;
      if (std::abs(x) > 4) continue;
      for (std::size_t k = 0; k < 3; ++k) moment.motion[k] += 260 * turn.way[k] * bump(x);
      moment.light += 0.002 * turn.way[0] * bump(x);
    }
    return moment;
  }

  void add_event(Moment& moment, double t, const Details& details) const {
    const double into = t - details.start;
    const std::string& what = events_.behavior;
    if (what == "chew") return chew(moment, into, details);
    if (what == "cough") return cough(moment, into, details);
    if (what == "swallow") return swallow(moment, into - details.offset, details);
    if (what == "talk") return talk(moment, into, details);
    if (what == "drink") {
      const double tilt = bump((into - details.offset) / 0.5);
      for (std::size_t k = 0; k < 3; ++k) moment.motion[k] += 1100 * gain_ * tilt * details.way[k];
      swallow(moment, into - details.offset - 0.8, details);
    }
  }

  void push(Moment& moment, double counts, double light, const Details& details) const {
    const double size = gain_ * details.strength;
    for (std::size_t k = 0; k < 3; ++k) moment.motion[k] += counts * size * details.way[k];
    moment.light += light * size;
  }

  void chew(Moment& moment, double into, const Details& details) const {
    const double phase = kTau * person_.chewing * details.speed * into;
    const double rock = std::sin(phase) + 0.45 * std::sin(2 * phase + 0.7);
    push(moment, 520 * rock, 0.006 * std::sin(phase + 1), details);
  }

  // Two thrusts, the second fainter, each a burst that dies away.
  void cough(Moment& moment, double into, const Details& details) const {
    for (const double delay : {0.0, 0.45 / details.speed}) {
      const double since = into - details.offset - delay;
      if (since < 0 || since > 0.6) continue;
      const double force = (delay == 0 ? 1.0 : 0.6) * std::exp(-since / 0.1);
      push(moment, 4200 * force * std::sin(kTau * 9 * details.speed * since),
           0.018 * force * std::cos(kTau * 5 * since), details);
    }
  }

  void swallow(Moment& moment, double since, const Details& details) const {
    const double x = since / 0.28;
    push(moment, -650 * x * bump(x), -0.03 * bump(since / 0.45), details);
  }

  void talk(Moment& moment, double into, const Details& details) const {
    const double syllables = 0.6 + 0.4 * std::sin(kTau * 0.9 * into + details.offset * 3);
    const double flutter = std::sin(kTau * 4.3 * details.speed * into) + 0.7 * std::sin(kTau * 6.1 * into + phases_[4]);
    push(moment, 150 * syllables * flutter, 0.001 * flutter, details);
  }

  const BehaviorPerson& person_;
  const BehaviorEvents& events_;
  const BehaviorClip& clip_;
  RandomStream& random_;
  double gain_;
  std::array<double, 5> phases_{};
  std::vector<Turn> turns_;
  std::vector<Details> details_;
};

}  // namespace

BehaviorPerson draw_person(RandomStream& random) {
  BehaviorPerson person;
  person.pulse = random.uniform(1.0, 1.6);
  person.breath = random.uniform(0.2, 0.32);
  person.chewing = random.uniform(1.2, 1.8);
  person.strength = random.uniform(0.7, 1.4);
  constexpr std::array<double, 3> kBase{3e4, 2.4e5, 2.6e5};
  double length = 0, across = 0;
  for (std::size_t k = 0; k < 3; ++k) {
    person.base[k] = kBase[k] * random.uniform(0.75, 1.25);
    person.gravity[k] = (k == 0 ? -1.0 : 0.4) + 0.25 * random.normal();
    person.axis[k] = (k == 2 ? 1.0 : 0.3) + 0.3 * random.normal();
    length += person.gravity[k] * person.gravity[k];
    across += person.axis[k] * person.axis[k];
  }
  for (std::size_t k = 0; k < 3; ++k) {
    person.gravity[k] *= kGravity / std::sqrt(length);
    person.axis[k] /= std::sqrt(across);
  }
  return person;
}

std::vector<BehaviorRow> draw_behavior(const BehaviorPerson& person, const BehaviorEvents& events,
                                       const BehaviorClip& clip, RandomStream& random) {
  return Drawing(person, events, clip, random).run();
}

}  // namespace mmtrain::datasets::detail
