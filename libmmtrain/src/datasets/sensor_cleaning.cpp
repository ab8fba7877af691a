#include <algorithm>
#include <cstddef>
#include <span>
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

// An edge that the rate cannot hold has nothing to take out.
Filters filters_for(double rate) {
  const double nyquist = rate / 2;
  Filters filters;
  if (kPowerLine < nyquist) filters.ppg.push_back(media::iir_notch(kPowerLine, kNotchQuality, rate));
  if (kPpgDrift < nyquist) filters.ppg.push_back(media::butterworth(2, {.low = kPpgDrift}, rate));
  if (kImuDrift < nyquist) filters.imu.push_back(media::butterworth(2, {.low = kImuDrift}, rate));
  if (kImuLow < nyquist) {
    filters.imu.push_back(media::butterworth(3, {.low = kImuLow, .high = kImuHigh < nyquist ? kImuHigh : 0}, rate));
  }
  return filters;
}

}  // namespace

void clean_sensors(std::span<float> samples, double rate) {
  if (!(rate > 0)) throw ConfigError("[clean_sensors] the rate must be positive");
  if (samples.size() % kChannels != 0) throw ConfigError("[clean_sensors] rows must have 6 channels");
  const std::size_t rows = samples.size() / kChannels;
  const Filters filters = filters_for(rate);
  std::vector<double> series(rows);
  for (std::size_t channel = 0; channel < kChannels; ++channel) {
    for (std::size_t row = 0; row < rows; ++row) series[row] = samples[row * kChannels + channel];
    for (const media::Sos& filter : channel < kPpgChannels ? filters.ppg : filters.imu) media::filtfilt(filter, series);
    for (std::size_t row = 0; row < rows; ++row) samples[row * kChannels + channel] = static_cast<float>(series[row]);
  }
}

}  // namespace mmtrain::datasets
