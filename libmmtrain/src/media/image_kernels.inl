// The loops of ImageKernels in terms of a vocabulary of vectors (simd/*.h), included by one source file for each level.
// Multiplications and additions are separate everywhere (no fused ones), so all levels round alike.

namespace mmtrain::media::detail {
namespace {

using std::int16_t;
using std::int32_t;
using std::int64_t;
using std::size_t;
using std::uint8_t;

struct Rgb {
  Floats r, g, b;
};

inline Rgb load_rgb(Planes p) { return {load(p.channel[0]), load(p.channel[1]), load(p.channel[2])}; }

inline void store_rgb(Planes p, Rgb v) {
  store(p.channel[0], v.r);
  store(p.channel[1], v.g);
  store(p.channel[2], v.b);
}

/// Calls `work(planes of kLanes pixels)` for all `n` pixels; what is left over is worked on in a padded copy.
template <class Work>
inline void for_each_vector(Planes planes, size_t n, Work&& work) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) work(planes + i, kLanes);
  if (i == n) return;
  float padded[3][kLanes] = {};
  for (int c = 0; c < 3; ++c) {
    for (size_t k = i; k < n; ++k) padded[c][k - i] = planes.channel[c][k];
  }
  work(Planes{{padded[0], padded[1], padded[2]}}, n - i);
  for (int c = 0; c < 3; ++c) {
    for (size_t k = i; k < n; ++k) planes.channel[c][k] = padded[c][k - i];
  }
}

template <bool kReversed>
inline void unpack_block(const uint8_t* pixels, const Affine& affine, Planes out) {
  const RgbParts parts = load_pixels<kReversed>(pixels);
  for (int c = 0; c < 3; ++c) {
    const Floats scale = broadcast(affine.scale[c]), bias = broadcast(affine.bias[c]);
    for (size_t k = 0; k < kParts; ++k) store(out.channel[c] + k * kLanes, parts.channel[c][k] * scale + bias);
  }
}

template <bool kReversed>
inline void unpack_pixels(const uint8_t* pixels, size_t n, const Affine& affine, Planes out) {
  if (n < kPixels) {
    uint8_t padded[3 * kPixels] = {};
    float values[3][kPixels];
    for (size_t i = 0; i < 3 * n; ++i) padded[kReversed ? 3 * (kPixels - n) + i : i] = pixels[i];
    unpack_block<kReversed>(padded, affine, {{values[0], values[1], values[2]}});
    for (int c = 0; c < 3; ++c) {
      for (size_t i = 0; i < n; ++i) out.channel[c][i] = values[c][i];
    }
    return;
  }
  const auto block = [&](size_t i) {
    unpack_block<kReversed>(pixels + 3 * (kReversed ? n - kPixels - i : i), affine, out + i);
  };
  for (size_t i = 0; i + kPixels <= n; i += kPixels) block(i);
  // The last block overlaps the one before it.
  if (n % kPixels != 0) block(n - kPixels);
}

void unpack(const uint8_t* pixels, size_t n, bool reversed, const Affine& affine, Planes out) {
  reversed ? unpack_pixels<true>(pixels, n, affine, out) : unpack_pixels<false>(pixels, n, affine, out);
}

void transform(Planes planes, size_t n, const Affine& affine) {
  const Rgb scale = {broadcast(affine.scale[0]), broadcast(affine.scale[1]), broadcast(affine.scale[2])};
  const Rgb bias = {broadcast(affine.bias[0]), broadcast(affine.bias[1]), broadcast(affine.bias[2])};
  for_each_vector(planes, n, [&](Planes p, size_t) {
    const Rgb v = load_rgb(p);
    store_rgb(p, {v.r * scale.r + bias.r, v.g * scale.g + bias.g, v.b * scale.b + bias.b});
  });
}

/// To a whole grey level, as torchvision converts to uint8: clamped, then cut.
inline Floats to_level(Floats v) { return truncate(min(max(v, broadcast(0)), broadcast(255))); }

/// Rec. 601 luma with torchvision's constants, cut to a whole level.
inline Floats grey(const Rgb& v) {
  return truncate(v.r * broadcast(0.2989F) + v.g * broadcast(0.587F) + v.b * broadcast(0.114F));
}

void brightness(Planes planes, size_t n, float factor) {
  const Floats f = broadcast(factor);
  for_each_vector(planes, n, [&](Planes p, size_t) {
    const Rgb v = load_rgb(p);
    store_rgb(p, {to_level(v.r * f), to_level(v.g * f), to_level(v.b * f)});
  });
}

void contrast(Planes planes, size_t n, float factor, float mean_grey) {
  const Floats f = broadcast(factor), base = broadcast((1.0F - factor) * mean_grey);
  for_each_vector(planes, n, [&](Planes p, size_t) {
    const Rgb v = load_rgb(p);
    store_rgb(p, {to_level(v.r * f + base), to_level(v.g * f + base), to_level(v.b * f + base)});
  });
}

void saturation(Planes planes, size_t n, float factor) {
  const Floats f = broadcast(factor), rest = broadcast(1.0F - factor);
  for_each_vector(planes, n, [&](Planes p, size_t) {
    const Rgb v = load_rgb(p);
    const Floats base = grey(v) * rest;
    store_rgb(p, {to_level(v.r * f + base), to_level(v.g * f + base), to_level(v.b * f + base)});
  });
}

/// Brings an angle in sixths of the circle from [-6, 12) to [0, 6).
inline Floats wrap(Floats angle) {
  const Floats six = broadcast(6);
  angle = if_less(angle, broadcast(0), angle + six, angle);
  return if_less(angle, six, angle, angle - six);
}

/// Turning the hue leaves the largest and the smallest channel value of a pixel where they are; a channel lies
/// `range * clamp(min(k, 4 - k), 0, 1)` under the largest, k being its distance on the circle (A. R. Smith's hexcone
/// model in its branch-free form). The same as RGB -> HSV -> RGB without leaving grey levels.
void hue(Planes planes, size_t n, float shift) {
  const Floats zero = broadcast(0), one = broadcast(1), four = broadcast(4), six = broadcast(6);
  const Floats turn = broadcast(6.0F * shift);
  // torchvision scales [0, 1] to [0, 255.999] before it cuts.
  const Floats to_byte = broadcast(255.999F / 255.0F);
  for_each_vector(planes, n, [&](Planes p, size_t) {
    const Rgb v = load_rgb(p);
    const Floats top = max(v.r, max(v.g, v.b)), range = top - min(v.r, min(v.g, v.b));
    const Floats per_range = one / max(range, one);
    const Floats red = (v.g - v.b) * per_range;
    const Floats green = (v.b - v.r) * per_range + broadcast(2);
    const Floats blue = (v.r - v.g) * per_range + four;
    const Floats angle = wrap(if_equal(top, v.r, red, if_equal(top, v.g, green, blue)) + turn);
    const auto channel = [&](float offset) {
      Floats k = angle + broadcast(offset);
      k = if_less(k, six, k, k - six);
      const Floats depth = min(max(min(k, four - k), zero), one);
      return truncate((top - range * depth) * to_byte);
    };
    store_rgb(p, {channel(5), channel(3), channel(1)});
  });
}

int64_t sum_grey(Planes planes, size_t n) {
  int64_t total = 0;
  // Partial sums stay small enough to be exact in floats.
  constexpr size_t kRun = 4096 * kLanes;
  for (size_t begin = 0; begin < n; begin += kRun) {
    const size_t count = n - begin < kRun ? n - begin : kRun;
    Floats partial = broadcast(0);
    // Pixels that pad the last vector are black and add nothing.
    for_each_vector(planes + begin, count, [&](Planes p, size_t) { partial = partial + grey(load_rgb(p)); });
    total += sum(partial);
  }
  return total;
}

inline int32_t half(int precision) { return int32_t{1} << (precision - 1); }

/// The sums of one output pixel; kTaps 0: their number is known at run time only.
template <int kTaps>
inline PixelSums sum_pixel(const uint8_t* first, const uint8_t* second, const ResizeTaps& taps, int output) {
  const int count = kTaps != 0 ? kTaps : taps.taps;
  const size_t at = 3 * static_cast<size_t>(taps.start[output]);
  const int16_t* weights = taps.weights + static_cast<size_t>(output) * static_cast<size_t>(count);
  PixelSums sums(half(taps.precision));
  for (int k = 0; k < count; k += 2) sums.add(first + at + 3 * k, second + at + 3 * k, weights + k);
  return sums;
}

template <int kTaps>
inline void resize_two_rows(const uint8_t* const* rows, const ResizeTaps& taps, uint8_t* const* out) {
  const auto group = [&](int i, uint8_t* first, uint8_t* second) {
    const int last = taps.outputs - 1;
    const auto sums = [&](int k) { return sum_pixel<kTaps>(rows[0], rows[1], taps, i + k < last ? i + k : last); };
    store_group(sums, taps.precision, first, second);
  };
  int i = 0;
  for (; i + kGroup <= taps.outputs; i += kGroup) group(i, out[0] + 3 * i, out[1] + 3 * i);
  if (i == taps.outputs) return;
  uint8_t first[3 * kGroup], second[3 * kGroup];
  group(i, first, second);
  for (int k = 0; k < 3 * (taps.outputs - i); ++k) {
    out[0][3 * i + k] = first[k];
    out[1][3 * i + k] = second[k];
  }
}

void resize_rows(const uint8_t* const* rows, const ResizeTaps& taps, uint8_t* const* out) {
  taps.taps == 2 ? resize_two_rows<2>(rows, taps, out) : resize_two_rows<0>(rows, taps, out);
}

inline void blend_block(const uint8_t* const* rows, const int16_t* weights, int taps, int precision, size_t at,
                        uint8_t* out) {
  ByteSums sums(half(precision));
  for (int k = 0; k < taps; k += 2) sums.add(rows[k] + at, rows[k + 1] + at, weights + k);
  sums.store(precision, out + at);
}

void blend_rows(const uint8_t* const* rows, const int16_t* weights, int taps, int precision, size_t bytes,
                uint8_t* out) {
  if (bytes < kBytes) {
    for (size_t at = 0; at < bytes; ++at) {
      int32_t sum = half(precision);
      for (int k = 0; k < taps; ++k) sum += rows[k][at] * weights[k];
      sum >>= precision;
      out[at] = static_cast<uint8_t>(sum < 0 ? 0 : sum > 255 ? 255 : sum);
    }
    return;
  }
  for (size_t at = 0; at + kBytes <= bytes; at += kBytes) blend_block(rows, weights, taps, precision, at, out);
  if (bytes % kBytes != 0) blend_block(rows, weights, taps, precision, bytes - kBytes, out);
}

constexpr ImageKernels make_kernels() {
  return {unpack, transform, brightness, contrast, saturation, hue, sum_grey, resize_rows, blend_rows};
}

}  // namespace
}  // namespace mmtrain::media::detail
