// C++ side of tests/python/audio_parity.py. Standard input holds one job a line:
//   INPUT OUTPUT OPERATION ARGUMENTS...
// Inputs are bare numbers (float, for filters double) or a sound file, outputs bare numbers.

#include <torch/types.h>

#include <complex>
#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "mmtrain/media/audio.h"
#include "mmtrain/media/filters.h"
#include "mmtrain/media/resample.h"
#include "mmtrain/media/spectral.h"
#include "mmtrain/nn/spectral.h"

namespace {

using namespace mmtrain;

/// One line of work: its arguments are taken one after the other.
struct Job {
  std::string input, output;
  std::istringstream arguments;

  template <class T = double>
  T next() {
    T value;
    if (!(arguments >> value)) throw std::runtime_error("an argument is missing");
    return value;
  }
  template <class T>
  T choice(const std::map<std::string, T>& names) {
    return names.at(next<std::string>());
  }

  template <class T = float>
  std::vector<T> numbers() const {
    std::ifstream file(input, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
  }
  template <class T>
  void write(const std::vector<T>& values) const {
    std::ofstream file(output, std::ios::binary);
    file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
    if (!file.flush()) throw std::runtime_error("cannot write " + output);
  }
};

const std::map<std::string, PadMode> kPadModes = {
    {"reflect", PadMode::reflect}, {"replicate", PadMode::replicate}, {"constant", PadMode::constant}};

StftOptions stft_options(Job& job) {
  StftOptions options;
  options.n_fft = job.next<int>();
  options.hop = job.next<int>();
  options.window_length = job.next<int>();
  options.center = job.next<int>() != 0;
  options.pad = job.choice(kPadModes);
  return options;
}

MelOptions mel_options(Job& job) {
  MelOptions options;
  options.sample_rate = job.next<int>();
  options.n_fft = job.next<int>();
  options.hop = job.next<int>();
  options.window_length = job.next<int>();
  options.n_mels = job.next<int>();
  options.f_min = job.next();
  options.f_max = job.next();
  options.scale = job.choice<MelScale>({{"htk", MelScale::htk}, {"slaney", MelScale::slaney}});
  options.norm = job.choice<MelNorm>({{"none", MelNorm::none}, {"slaney", MelNorm::slaney}});
  options.power = job.next();
  options.center = job.next<int>() != 0;
  options.pad = job.choice(kPadModes);
  options.log =
      job.choice<MelLog>({{"none", MelLog::none}, {"natural", MelLog::natural}, {"decibel", MelLog::decibel}});
  if (const double floor = job.next(); floor > 0) options.floor = floor;
  options.top_db = job.next();
  return options;
}

MfccOptions mfcc_options(Job& job) {
  const int count = job.next<int>();
  return {count, mel_options(job)};
}

media::Sos filter(Job& job) {
  if (job.next<std::string>() == "notch") {
    const double frequency = job.next(), q = job.next(), fs = job.next();
    return media::iir_notch(frequency, q, fs);
  }
  const int order = job.next<int>();
  const double low = job.next(), high = job.next(), fs = job.next();
  return media::butterworth(order, {.low = low, .high = high}, fs);
}

torch::Tensor rows(Job& job) {
  const auto count = job.next<std::int64_t>();
  return torch::tensor(job.numbers()).view({count, -1});
}

std::vector<float> values_of(const torch::Tensor& tensor) {
  const torch::Tensor flat = tensor.contiguous();
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

media::Audio read(Job& job) {
  media::AudioOptions options;
  options.sample_rate = job.next<int>();
  options.mono = job.next<int>() != 0;
  options.start = job.next();
  options.duration = job.next();
  return media::read_audio(job.input, options);
}

media::SegmentSpectrum segments(Job& job) {
  media::SegmentOptions options;
  options.segment = job.next<int>();
  options.overlap = job.next<int>();
  options.boundary = job.next<int>() != 0;
  options.padded = job.next<int>() != 0;
  return media::stft(job.numbers<double>(), options);
}

std::vector<double> filtered(Job& job, void (*apply)(const media::Sos&, std::span<double>)) {
  std::vector<double> series = job.numbers<double>();
  apply(filter(job), series);
  return series;
}

const std::map<std::string, std::function<void(Job&)>> kOperations = {
    {"stft", [](Job& job) { job.write(media::Stft(stft_options(job))(job.numbers())); }},
    {"energy", [](Job& job) { job.write(media::Stft(stft_options(job)).power(job.numbers())); }},
    {"mel", [](Job& job) { job.write(media::MelSpectrogram(mel_options(job))(job.numbers())); }},
    {"mfcc", [](Job& job) { job.write(media::Mfcc(mfcc_options(job))(job.numbers())); }},
    {"device_mel",
     [](Job& job) {
       const torch::Tensor waveforms = rows(job);
       job.write(values_of(nn::MelSpectrogram(mel_options(job))->forward(waveforms)));
     }},
    {"device_mfcc",
     [](Job& job) {
       const torch::Tensor waveforms = rows(job);
       job.write(values_of(nn::Mfcc(mfcc_options(job))->forward(waveforms)));
     }},
    {"resample",
     [](Job& job) {
       const int from = job.next<int>(), to = job.next<int>();
       job.write(media::resample(job.numbers(), from, to));
     }},
    {"read", [](Job& job) { job.write(read(job).samples); }},
    {"format",
     [](Job& job) {
       const media::Audio audio = read(job);
       job.write(std::vector<float>{static_cast<float>(audio.sample_rate), static_cast<float>(audio.channels)});
     }},
    {"sosfilt", [](Job& job) { job.write(filtered(job, media::sosfilt)); }},
    {"filtfilt", [](Job& job) { job.write(filtered(job, media::filtfilt)); }},
    {"segments", [](Job& job) { job.write(segments(job).values); }},
};

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    Job job;
    std::string operation;
    job.arguments.str(line);
    job.arguments >> job.input >> job.output >> operation;
    try {
      kOperations.at(operation)(job);
    } catch (const std::exception& error) {
      std::cerr << line << ": " << error.what() << '\n';
      return 1;
    }
  }
}
