#include "media/fft.h"

#include <fftw3.h>
#include <fmt/format.h>

#include <map>
#include <mutex>

#include "mmtrain/core/error.h"

namespace mmtrain::media::detail {
namespace {

std::mutex& planner_mutex() {
  static std::mutex mutex;
  return mutex;
}

void* make_plan(int size, float* in, float* out) {
  return fftwf_plan_dft_1d(size, reinterpret_cast<fftwf_complex*>(in), reinterpret_cast<fftwf_complex*>(out),
                           FFTW_FORWARD, FFTW_ESTIMATE);
}

void* make_plan(int size, double* in, double* out) {
  return fftw_plan_dft_1d(size, reinterpret_cast<fftw_complex*>(in), reinterpret_cast<fftw_complex*>(out), FFTW_FORWARD,
                          FFTW_ESTIMATE);
}

void execute(void* plan, float* in, float* out) {
  fftwf_execute_dft(static_cast<fftwf_plan>(plan), reinterpret_cast<fftwf_complex*>(in),
                    reinterpret_cast<fftwf_complex*>(out));
}

void execute(void* plan, double* in, double* out) {
  fftw_execute_dft(static_cast<fftw_plan>(plan), reinterpret_cast<fftw_complex*>(in),
                   reinterpret_cast<fftw_complex*>(out));
}

}  // namespace

template <class T>
Fft<T>::Fft(int size) {
  // Neither the plans nor the table are ever freed: threads may transform until the process ends.
  static auto& plans = *new std::map<int, void*>;
  const std::lock_guard lock(planner_mutex());
  void*& plan = plans[size];
  if (plan == nullptr) {
    const AlignedArray<T> in(2 * static_cast<std::size_t>(size)), out(2 * static_cast<std::size_t>(size));
    plan = make_plan(size, in.data(), out.data());
    if (plan == nullptr) throw ConfigError(fmt::format("[Fft] FFTW has no transform of {} points", size));
  }
  plan_ = plan;
}

template <class T>
void Fft<T>::operator()(const T* in, T* out) const {
  execute(plan_, const_cast<T*>(in), out);  // FFTW leaves the input as it is, but does not say so in the type
}

template class Fft<float>;
template class Fft<double>;

}  // namespace mmtrain::media::detail
