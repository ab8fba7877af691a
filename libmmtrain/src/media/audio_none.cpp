#include "mmtrain/media/audio.h"

#include <string>

#include "mmtrain/core/error.h"
#include "mmtrain/media/filters.h"
#include "mmtrain/media/spectral.h"

// Stands in for audio.cpp, segment_stft.cpp and spectral.cpp in a build without an audio back end. The classes cannot
// be made, so what they would do is not reached.
namespace mmtrain::media {
namespace {

[[noreturn]] void fail(const std::string& who) {
  throw ConfigError("[" + who +
                    "] this build of mmtrain has no audio back end: configure it with -DMMTRAIN_WITH_AUDIO=ON "
                    "(needs libsndfile and FFTW), or train from a decoded cache");
}

}  // namespace

Audio read_audio(const std::filesystem::path&, const AudioOptions&) { fail("read_audio"); }

SegmentSpectrum stft(std::span<const double>, const SegmentOptions&) { fail("stft"); }

Stft::Stft(const StftOptions&) { fail("Stft"); }
int Stft::bins() const { fail("Stft"); }
std::int64_t Stft::frames(std::int64_t) const { fail("Stft"); }
void Stft::operator()(std::span<const float>, std::span<std::complex<float>>) const { fail("Stft"); }
std::vector<std::complex<float>> Stft::operator()(std::span<const float>) const { fail("Stft"); }
void Stft::power(std::span<const float>, std::span<float>) const { fail("Stft"); }
std::vector<float> Stft::power(std::span<const float>) const { fail("Stft"); }

MelSpectrogram::MelSpectrogram(const MelOptions&) { fail("MelSpectrogram"); }
const MelOptions& MelSpectrogram::options() const { fail("MelSpectrogram"); }
std::int64_t MelSpectrogram::frames(std::int64_t) const { fail("MelSpectrogram"); }
void MelSpectrogram::operator()(std::span<const float>, std::span<float>) const { fail("MelSpectrogram"); }
std::vector<float> MelSpectrogram::operator()(std::span<const float>) const { fail("MelSpectrogram"); }

Mfcc::Mfcc(const MfccOptions&) { fail("Mfcc"); }
const MfccOptions& Mfcc::options() const { fail("Mfcc"); }
std::int64_t Mfcc::frames(std::int64_t) const { fail("Mfcc"); }
void Mfcc::operator()(std::span<const float>, std::span<float>) const { fail("Mfcc"); }
std::vector<float> Mfcc::operator()(std::span<const float>) const { fail("Mfcc"); }

}  // namespace mmtrain::media
