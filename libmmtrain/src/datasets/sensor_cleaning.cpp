#include "datasets/sensor_reader.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/datasets/sensor_folders.h"
#include "mmtrain/media/filters.h"

namespace mmtrain::datasets {
namespace {

constexpr std::size_t kChannels = 6, kPpgChannels = 3;
constexpr double kPowerLine = 50, kNotchQuality = 30, kPpgDrift = 0.1, kImuDrift = 0.3, kImuLow = 0.5, kImuHigh = 15;

struct Filters {
  std::vector<media::Sos> ppg, imu;
};

// For series of `rate` samples a second that were recorded at `true_rate`. An edge that the rate cannot hold has
// nothing to take out.
Filters filters_for(double rate, double true_rate) {
  const double nyquist = rate / 2;
  Filters filters;
  if (detail::holds_power_line(std::min(rate, true_rate))) {
    filters.ppg.push_back(media::iir_notch(kPowerLine, kNotchQuality, rate));
  }
  if (kPpgDrift < nyquist) filters.ppg.push_back(media::butterworth(2, {.low = kPpgDrift}, rate));
  if (kImuDrift < nyquist) filters.imu.push_back(media::butterworth(2, {.low = kImuDrift}, rate));
  if (kImuLow < nyquist) {
    filters.imu.push_back(media::butterworth(3, {.low = kImuLow, .high = kImuHigh < nyquist ? kImuHigh : 0}, rate));
  }
  return filters;
}

constexpr double kSameRate = 0.01;  // rates that differ by less are taken as equal

// A series at another rate, of which `step` samples of this one make one.
std::vector<double> resampled(std::vector<double> series, double step) {
  if (step == 1) return series;
  const std::size_t rows = series.size();
  const auto count = static_cast<std::size_t>(std::max(1LL, std::llround(static_cast<double>(rows) / step)));
  std::vector<double> result(count);
  for (std::size_t row = 0; row < count; ++row) {
    const double at = static_cast<double>(row) * step;
    const std::size_t before = std::min(static_cast<std::size_t>(at), rows - 1), after = std::min(before + 1, rows - 1);
    const double a = series[before], b = series[after];
    result[row] = a + std::min(1.0, at - static_cast<double>(before)) * (b - a);  // what is behind the last stays
  }
  return result;
}

void filter_channel(std::vector<double>& series, std::size_t channel, const Filters& filters) {
  for (const media::Sos& filter : channel < kPpgChannels ? filters.ppg : filters.imu) media::filtfilt(filter, series);
}

}  // namespace

namespace detail {

bool holds_power_line(double rate) { return kPowerLine < rate / 2; }

template <class T>
std::vector<T> prepare_rows(std::span<const float> samples, std::int64_t channel_count, double from_rate,
                            double to_rate, bool clean) {
  const auto channels = static_cast<std::size_t>(channel_count);
  const double step = std::abs(to_rate / from_rate - 1) > kSameRate ? from_rate / to_rate : 1;
  if (step == 1 && !clean) return {samples.begin(), samples.end()};
  // What a lower rate cannot hold has to be gone before.
  const bool filter_first = step > 1;
  const Filters filters = clean ? filters_for(filter_first ? from_rate : to_rate, from_rate) : Filters{};
  const std::size_t rows = samples.size() / channels;
  std::vector<T> result;
  for (std::size_t channel = 0; channel < channels; ++channel) {
    std::vector<double> series(rows);
    for (std::size_t row = 0; row < rows; ++row) series[row] = samples[row * channels + channel];
    if (clean && filter_first) filter_channel(series, channel, filters);
    series = resampled(std::move(series), step);
    if (clean && !filter_first) filter_channel(series, channel, filters);
    result.resize(series.size() * channels);
    for (std::size_t row = 0; row < series.size(); ++row) {
      result[row * channels + channel] = static_cast<T>(series[row]);
    }
  }
  return result;
}

template std::vector<float> prepare_rows(std::span<const float>, std::int64_t, double, double, bool);
template std::vector<double> prepare_rows(std::span<const float>, std::int64_t, double, double, bool);

}  // namespace detail

void clean_sensors(std::span<float> samples, double rate) {
  if (!(rate > 0)) throw ConfigError("[clean_sensors] the rate must be positive");
  if (samples.size() % kChannels != 0) throw ConfigError("[clean_sensors] rows must have 6 channels");
  const std::size_t rows = samples.size() / kChannels;
  const Filters filters = filters_for(rate, rate);
  std::vector<double> series(rows);
  for (std::size_t channel = 0; channel < kChannels; ++channel) {
    for (std::size_t row = 0; row < rows; ++row) series[row] = samples[row * kChannels + channel];
    filter_channel(series, channel, filters);
    for (std::size_t row = 0; row < rows; ++row) samples[row * kChannels + channel] = static_cast<float>(series[row]);
  }
}

}  // namespace mmtrain::datasets
