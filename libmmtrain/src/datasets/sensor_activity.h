#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mmtrain::datasets::detail {

// Seconds from `begin` to `end`.
struct TimeSpan {
  double begin = 0, end = 0;
};

struct ActivityOptions {
  double rate = 100;  // samples a second
  double smooth_seconds = 0.4;
  double join_seconds = 0.5;   // pauses shorter than this do not end an event
  double event_seconds = 3.0;  // shorter events are taken for so long, around their middle
};

// When something happens in a recording: the spans in which the energy of its channels, each on its own scale, stands
// out of the quiet. `samples` is row-major `[rows, channels]`, free of drift. In order, without overlap. Empty if
// nothing stands out: nothing happens, or something all the time.
std::vector<TimeSpan> find_activity(std::span<const float> samples, std::int64_t channels,
                                    const ActivityOptions& options);

// How much of [begin, end) the spans cover, 0..1.
double coverage(const std::vector<TimeSpan>& spans, double begin, double end);

}  // namespace mmtrain::datasets::detail
