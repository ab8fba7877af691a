#include "report/axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace mmtrain {
namespace {

double nice_step(double range, int ticks) {
  const double rough = range / ticks, power = std::pow(10.0, std::floor(std::log10(rough)));
  const double factor = rough / power;
  return power * (factor <= 1 ? 1 : factor <= 2 ? 2 : factor <= 5 ? 5 : 10);
}

}  // namespace

std::vector<double> Axis::ticks() const {
  std::vector<double> values;
  // Counted in whole steps: sums of steps would drift, and 0 would come out as -0 or 1e-17.
  const double tolerance = 1e-9;
  for (double i = std::ceil(low / step - tolerance); i <= high / step + tolerance; ++i)
    values.push_back(i * step + 0.0);
  return values;
}

std::string Axis::label(double tick) const {
  const double largest = std::max(std::abs(low), std::abs(high));
  if (largest >= 1e6 || step < 1e-4) return fmt::format("{:.3g}", tick);
  const int decimals = std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  return fmt::format("{:.{}f}", tick, decimals);
}

Axis fit_axis(double low, double high, int ticks, double margin, bool whole) {
  if (high - low <= std::abs(high) * 1e-9) {
    // One value: show it in the middle of a range around it.
    const double around = whole || low == 0 ? 1 : std::abs(low) * 0.1;
    low -= around;
    high += around;
  }
  const double range = high - low;
  Axis axis{.low = low - margin * range, .high = high + margin * range, .step = nice_step(range, ticks)};
  if (whole) axis.step = std::max(1.0, axis.step);
  return axis;
}

}  // namespace mmtrain
