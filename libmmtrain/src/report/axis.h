#pragma once

#include <string>
#include <vector>

namespace mmtrain {

// Range of values of an axis and where its ticks lie: multiples of 1, 2 or 5 times a power of ten.
struct Axis {
  double low = 0, high = 1, step = 0.2;

  std::vector<double> ticks() const;
  std::string label(double tick) const;
  // 0 at `low`, 1 at `high`.
  double position(double value) const { return (value - low) / (high - low); }
};

// An axis with about `ticks` ticks that ends at the data plus a margin; `whole` allows ticks at integers only.
Axis fit_axis(double low, double high, int ticks, double margin, bool whole = false);

}  // namespace mmtrain
