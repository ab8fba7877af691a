#include "mmtrain/media/filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "mmtrain/core/error.h"

namespace mmtrain::media {
namespace {

using Complex = std::complex<double>;
using Section = std::array<double, 6>;

/// Delay values of a section (transposed direct form II).
using State = std::array<double, 2>;

constexpr double kFs = 2;  // of the design; frequencies are shares of the Nyquist frequency

/// An analog filter as zeros at 0, poles and gain.
struct Analog {
  int zeros;
  std::vector<Complex> poles;
  double gain;
};

/// Poles of the low-pass with edge 1.
std::vector<Complex> butterworth_poles(int order) {
  std::vector<Complex> poles;
  for (int m = 1 - order; m < order; m += 2) poles.push_back(-std::polar(1.0, std::numbers::pi * m / (2 * order)));
  return poles;
}

double warped(double frequency, double fs) { return 2 * kFs * std::tan(std::numbers::pi * frequency / fs); }

Analog low_pass(int order, double edge) {
  Analog filter{0, butterworth_poles(order), std::pow(edge, order)};
  for (Complex& pole : filter.poles) pole *= edge;
  return filter;
}

Analog high_pass(int order, double edge) {
  Analog filter{order, butterworth_poles(order), 1};
  for (Complex& pole : filter.poles) pole = edge / pole;
  return filter;
}

Analog band_pass(int order, double low, double high) {
  const double width = high - low, middle = std::sqrt(low * high);
  Analog filter{order, {}, std::pow(width, order)};
  for (const Complex& pole : butterworth_poles(order)) {
    const Complex half = pole * (width / 2), root = std::sqrt(half * half - middle * middle);
    filter.poles.push_back(half + root);
    filter.poles.push_back(half - root);
  }
  return filter;
}

/// The section with these poles and zeros.
Section second_order(Complex pole, Complex other, double zero, double other_zero) {
  return {1, -(zero + other_zero), zero * other_zero, 1, -(pole + other).real(), (pole * other).real()};
}
Section first_order(double pole, double zero) { return {1, -zero, 0, 1, -pole, 0}; }

/// The bilinear transform: zeros at 0 go to 1, those at infinity to -1. Poles are taken in conjugate pairs, real ones
/// two by two.
Sos digital(const Analog& filter) {
  constexpr double kTwice = 2 * kFs;
  // A high-pass has all zeros at 1, a low-pass at -1, and a band-pass one of each in every section.
  const double zero = filter.zeros > 0 ? 1 : -1;
  const double other_zero = filter.zeros == static_cast<int>(filter.poles.size()) ? 1 : -1;
  Complex gain = filter.gain * std::pow(kTwice, filter.zeros);
  Sos sos;
  std::vector<double> real;
  for (const Complex& analog : filter.poles) {
    gain /= kTwice - analog;
    const Complex pole = (kTwice + analog) / (kTwice - analog);
    if (std::abs(analog.imag()) <= 1e-12 * std::abs(analog)) {
      real.push_back(pole.real());
    } else if (analog.imag() > 0) {
      sos.sections.push_back(second_order(pole, std::conj(pole), zero, other_zero));
    }
  }
  while (real.size() >= 2) {
    sos.sections.push_back(second_order(real.back(), real[real.size() - 2], zero, other_zero));
    real.resize(real.size() - 2);
  }
  if (!real.empty()) sos.sections.push_back(first_order(real[0], zero));
  for (std::size_t i = 0; i < 3; ++i) sos.sections[0][i] *= gain.real();
  return sos;
}

/// The section's state after endless input of 1.
State steady_state(const Section& s) {
  const double dc = (s[0] + s[1] + s[2]) / (1 + s[4] + s[5]);
  const double second = s[2] - s[5] * dc;
  return {s[1] - s[4] * dc + second, second};
}

void run_section(const Section& s, State state, std::span<double> series) {
  for (double& value : series) {
    const double out = s[0] * value + state[0];
    state[0] = s[1] * value - s[4] * out + state[1];
    state[1] = s[2] * value - s[5] * out;
    value = out;
  }
}

/// Filters as if the first value had been there forever.
void run_from_steady_state(const Sos& filter, std::span<double> series) {
  double level = series[0];
  for (const Section& section : filter.sections) {
    State state = steady_state(section);
    for (double& value : state) value *= level;
    level *= (section[0] + section[1] + section[2]) / (1 + section[4] + section[5]);
    run_section(section, state, series);
  }
}

void require_edge(const char* who, double edge, double fs) {
  if (!(fs > 0) || !(edge > 0) || !(edge < fs / 2)) {
    throw ConfigError(
        fmt::format("[{}] a frequency must lie between 0 and half the sample rate, got {} of {} Hz", who, edge, fs));
  }
}

}  // namespace

Sos iir_notch(double frequency, double q, double fs) {
  require_edge("iir_notch", frequency, fs);
  if (!(q > 0)) throw ConfigError(fmt::format("[iir_notch] q must be positive, got {}", q));
  const double angle = 2 * std::numbers::pi * frequency / fs;
  const double gain = 1 / (1 + std::tan(angle / q / 2)), middle = -2 * gain * std::cos(angle);
  return {{{gain, middle, gain, 1, middle, 2 * gain - 1}}};
}

Sos butterworth(int order, const Band& band, double fs) {
  if (order < 1 || order > 20) throw ConfigError(fmt::format("[butterworth] order must be in 1..20, got {}", order));
  const bool has_low = band.low != 0, has_high = band.high != 0;
  if (has_low || !has_high) require_edge("butterworth", band.low, fs);
  if (has_high) require_edge("butterworth", band.high, fs);
  if (!has_high) return digital(high_pass(order, warped(band.low, fs)));
  if (!has_low) return digital(low_pass(order, warped(band.high, fs)));
  if (band.low >= band.high) {
    throw ConfigError(
        fmt::format("[butterworth] the band must have low < high, got {} and {} Hz", band.low, band.high));
  }
  return digital(band_pass(order, warped(band.low, fs), warped(band.high, fs)));
}

void sosfilt(const Sos& filter, std::span<double> series) {
  for (const Section& section : filter.sections) run_section(section, {0, 0}, series);
}

std::size_t filtfilt_padding(const Sos& filter) {
  std::size_t zeros = 0, poles = 0;  // sections of first order
  for (const Section& section : filter.sections) {
    zeros += section[2] == 0;
    poles += section[5] == 0;
  }
  return 3 * (2 * filter.sections.size() + 1 - std::min(zeros, poles));
}

void filtfilt(const Sos& filter, std::span<double> series) {
  const std::size_t padding = filtfilt_padding(filter), size = series.size();
  if (size <= padding) {
    throw DataError(
        fmt::format("[filtfilt] a series must be longer than the filter's padding, {} samples, got {}: cut "
                    "longer windows or use a lower order",
                    padding, size));
  }
  std::vector<double> extended(size + 2 * padding);
  for (std::size_t i = 0; i < padding; ++i) {
    extended[i] = 2 * series[0] - series[padding - i];
    extended[padding + size + i] = 2 * series[size - 1] - series[size - 2 - i];
  }
  std::copy(series.begin(), series.end(), extended.begin() + static_cast<std::ptrdiff_t>(padding));
  for (int pass = 0; pass < 2; ++pass) {
    run_from_steady_state(filter, extended);
    std::reverse(extended.begin(), extended.end());
  }
  std::copy_n(extended.begin() + static_cast<std::ptrdiff_t>(padding), size, series.begin());
}

}  // namespace mmtrain::media
