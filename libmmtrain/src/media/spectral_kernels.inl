// The loops of SpectralKernels in terms of a vocabulary of vectors (simd/*.h), included by one source file for each
// level. Multiplications and additions are separate everywhere (no fused ones), so all levels round alike.

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>

namespace mmtrain::media::detail {
namespace {

using std::size_t;

static_assert(kFrames % kLanes == 0);

void multiply(const float* values, const float* window, size_t n, float* out) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load(values + i) * load(window + i));
  for (; i < n; ++i) out[i] = values[i] * window[i];
}

// Four floats are a vector on every machine, or four floats.
typedef float Quad __attribute__((vector_size(16)));
typedef int QuadIndex __attribute__((vector_size(16)));

inline Quad load_quad(const float* p) {
  Quad quad;
  std::memcpy(&quad, p, sizeof quad);
  return quad;
}

void interleave(const float* rows, size_t pitch, size_t n, float* block) {
  for (size_t i = 0; i < n; i += 4) {
    for (size_t frame = 0; frame < kFrames; frame += 4) {
      const float* p = rows + frame * pitch + i;
      const Quad a = load_quad(p), b = load_quad(p + pitch), c = load_quad(p + 2 * pitch), d = load_quad(p + 3 * pitch);
      const Quad ab = __builtin_shuffle(a, b, QuadIndex{0, 4, 1, 5}),
                 cd = __builtin_shuffle(c, d, QuadIndex{0, 4, 1, 5});
      const Quad ab2 = __builtin_shuffle(a, b, QuadIndex{2, 6, 3, 7}),
                 cd2 = __builtin_shuffle(c, d, QuadIndex{2, 6, 3, 7});
      const Quad turned[4] = {
          __builtin_shuffle(ab, cd, QuadIndex{0, 1, 4, 5}), __builtin_shuffle(ab, cd, QuadIndex{2, 3, 6, 7}),
          __builtin_shuffle(ab2, cd2, QuadIndex{0, 1, 4, 5}), __builtin_shuffle(ab2, cd2, QuadIndex{2, 3, 6, 7})};
      for (size_t k = 0; k < 4; ++k) std::memcpy(block + (i + k) * kFrames + frame, &turned[k], sizeof(Quad));
    }
  }
}

struct Complex {
  Floats re, im;
};

inline Complex load_complex(const float* p) { return {load(p), load(p + kFrames)}; }

/// What becomes of value `bin` of the spectrum of `kLanes` frames.
struct StoreSpectrum {
  static constexpr size_t kSize = 2 * kFrames;
  static void store_bin(float* out, Complex x) {
    store(out, x.re);
    store(out + kFrames, x.im);
  }
};
struct StorePower {
  static constexpr size_t kSize = kFrames;
  static void store_bin(float* out, Complex x) { store(out, x.re * x.re + x.im * x.im); }
};

/// With Z the transform of the even samples (real) and the odd ones (imaginary), halved: E[k] = Z[k] + conj(Z[half-k])
/// is the even samples' spectrum, O[k] = -i (Z[k] - conj(Z[half-k])) the odd ones', X[k] = E[k] + w^k O[k] and
/// X[half-k] = conj(E[k] - w^k O[k]).
template <class Store>
void split(const float* block, size_t half, const float* twiddles, float* out) {
  for (size_t lane = 0; lane < kFrames; lane += kLanes) {
    const Complex z = load_complex(block + lane);
    const Floats two = broadcast(2), zero = broadcast(0);
    Store::store_bin(out + lane, {two * (z.re + z.im), zero});
    Store::store_bin(out + half * Store::kSize + lane, {two * (z.re - z.im), zero});
  }
  for (size_t k = 1; 2 * k <= half; ++k) {
    const Floats cosine = broadcast(twiddles[2 * k]), sine = broadcast(twiddles[2 * k + 1]);
    for (size_t lane = 0; lane < kFrames; lane += kLanes) {
      const Complex a = load_complex(block + k * 2 * kFrames + lane);
      const Complex b = load_complex(block + (half - k) * 2 * kFrames + lane);
      const Complex even = {a.re + b.re, a.im - b.im}, odd = {a.im + b.im, b.re - a.re};
      const Complex turned = {cosine * odd.re - sine * odd.im, cosine * odd.im + sine * odd.re};
      Store::store_bin(out + (half - k) * Store::kSize + lane, {even.re - turned.re, turned.im - even.im});
      Store::store_bin(out + k * Store::kSize + lane, {even.re + turned.re, even.im + turned.im});
    }
  }
}

void power(const float* spectrum, size_t bins, float* out) {
  for (size_t bin = 0; bin < bins; ++bin) {
    for (size_t lane = 0; lane < kFrames; lane += kLanes) {
      StorePower::store_bin(out + bin * kFrames + lane, load_complex(spectrum + bin * 2 * kFrames + lane));
    }
  }
}

void apply_rows(const SparseRow* rows, size_t count, const float* block, float* out) {
  constexpr size_t kBlockParts = kFrames / kLanes;
  for (size_t row = 0; row < count; ++row) {
    Floats sums[kBlockParts];
    for (Floats& sum : sums) sum = broadcast(0);
    const float* values = block + rows[row].first * kFrames;
    for (size_t k = 0; k < rows[row].count; ++k, values += kFrames) {
      const Floats weight = broadcast(rows[row].weights[k]);
      for (size_t part = 0; part < kBlockParts; ++part) sums[part] = sums[part] + weight * load(values + part * kLanes);
    }
    for (size_t part = 0; part < kBlockParts; ++part) store(out + row * kFrames + part * kLanes, sums[part]);
  }
}

/// ln of a normal positive number, within 1e-7 of it: the polynomial of Cephes' logf around 1, and the exponent. Plain
/// C++ that compilers turn into vectors.
inline float natural_log(float x) {
  constexpr std::int32_t kRootHalf = 0x3f3504f3;
  const std::int32_t bits = std::bit_cast<std::int32_t>(x);
  const std::int32_t exponent = (bits - kRootHalf) >> 23;
  const float f = std::bit_cast<float>(bits - exponent * (1 << 23)) - 1, e = static_cast<float>(exponent);
  float y = 7.0376836292e-2F;
  y = y * f - 1.1514610310e-1F;
  y = y * f + 1.1676998740e-1F;
  y = y * f - 1.2420140846e-1F;
  y = y * f + 1.4249322787e-1F;
  y = y * f - 1.6668057665e-1F;
  y = y * f + 2.0000714765e-1F;
  y = y * f - 2.4999993993e-1F;
  y = y * f + 3.3333331174e-1F;
  y = y * f * (f * f) - 2.12194440e-4F * e - 0.5F * (f * f);
  return f + y + 0.693359375F * e;
}

void logarithm(float* values, size_t n, float floor, bool add, float scale) {
  const float added = add ? floor : 0, least = add ? 0 : floor;
  for (size_t i = 0; i < n; ++i) {
    float x = values[i] + added;
    x = x < least ? least : x;
    values[i] = scale * natural_log(x) + (x - x);  // 0, but NaN where x is not finite
  }
}

void accumulate(const float* values, float factor, size_t n, float* out) {
  const Floats f = broadcast(factor);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load(out + i) + f * load(values + i));
  for (; i < n; ++i) out[i] += factor * values[i];
}

float dot(const float* a, const float* b, size_t n) {
  constexpr size_t kBlockParts = kFrames / kLanes;
  Floats sums[kBlockParts];
  for (Floats& sum : sums) sum = broadcast(0);
  for (size_t i = 0; i < n; i += kFrames) {
    for (size_t part = 0; part < kBlockParts; ++part) {
      sums[part] = sums[part] + load(a + i + part * kLanes) * load(b + i + part * kLanes);
    }
  }
  float lanes[kFrames];
  for (size_t part = 0; part < kBlockParts; ++part) store(lanes + part * kLanes, sums[part]);
  for (size_t width = kFrames / 2; width > 0; width /= 2) {
    for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

constexpr SpectralKernels make_spectral_kernels() {
  return {multiply, interleave, split<StoreSpectrum>, split<StorePower>, power, apply_rows, logarithm, accumulate, dot};
}

}  // namespace
}  // namespace mmtrain::media::detail
