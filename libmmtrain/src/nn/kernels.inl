// The kernels in terms of a vocabulary (simd/*.h) that the including file brings. Nothing here may call inline
// functions of other headers: they would be compiled for this level's machine and could be linked into code for any
// other.

#include <cmath>
#include <limits>

namespace mmtrain::nn::detail {
namespace {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }

// ---------------------------------------------------------------------------------------------------- dropout

void keep_bits(const MaskStream& stream, std::size_t first_group, std::size_t groups, std::uint64_t* words) {
  const MaskSource source(stream);
  for (std::size_t i = 0; i < groups; ++i) words[i] = source.group(first_group + i);
}

inline void drop_group(std::uint64_t mask, F16 scale, const float* in, float* out) {
  for (int part = 0; part < 4; ++part) {
    store(out + 16 * part, keep_lanes(static_cast<std::uint32_t>(mask >> (16 * part)), scale * load(in + 16 * part)));
  }
}

void dropout(const MaskStream& stream, std::size_t first_group, std::size_t n, float scale, const float* in,
             float* out) {
  const MaskSource source(stream);
  const F16 factor = broadcast(scale);
  for (; n >= kMaskGroup; n -= kMaskGroup, in += kMaskGroup, out += kMaskGroup) {
    drop_group(source.group(first_group++), factor, in, out);
  }
  if (n == 0) return;
  float last[kMaskGroup] = {};
  for (std::size_t i = 0; i < n; ++i) last[i] = in[i];
  drop_group(source.group(first_group), factor, last, last);
  for (std::size_t i = 0; i < n; ++i) out[i] = last[i];
}

// --------------------------------------------------------------------------------------------- matrix products

/// Element (i, j) lies at data[i * row + j * column].
struct MatrixView {
  const float* data;
  std::ptrdiff_t row, column;
};

/// kRows x kVectors vectors of a product, in registers.
template <int kRows, int kVectors>
inline void product_tile(MatrixView a, std::size_t depth, const float* b, std::size_t b_row, float* c,
                         std::size_t c_row, bool add) {
  F16 sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[r][v] = add ? load(c + r * c_row + 16 * v) : broadcast(0.0f);
  }
  for (std::size_t k = 0; k < depth; ++k, b += b_row, a.data += a.column) {
    F16 right[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) right[v] = load(b + 16 * v);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const F16 left = broadcast(a.data[r * a.row]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[r][v] = fma(left, right[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(c + r * c_row + 16 * v, sum[r][v]);
  }
}

template <int kRows, int kVectors>
void product_panel(MatrixView a, std::size_t rows, std::size_t depth, const float* b, std::size_t b_row, float* c,
                   std::size_t c_row, bool add) {
  std::size_t i = 0;
  const auto left = [&] { return MatrixView{a.data + static_cast<std::ptrdiff_t>(i) * a.row, a.row, a.column}; };
  for (; i + kRows <= rows; i += kRows) {
    product_tile<kRows, kVectors>(left(), depth, b, b_row, c + i * c_row, c_row, add);
  }
  for (; i < rows; ++i) product_tile<1, kVectors>(left(), depth, b, b_row, c + i * c_row, c_row, add);
}

/// A matrix of contiguous rows, `row` apart, in the workspace.
struct Buffer {
  float* data;
  std::size_t row;
};

/// c = a b, or c += a b: a is rows x depth, b depth x columns, whole vectors wide.
void product(MatrixView a, std::size_t rows, std::size_t depth, Buffer b, Buffer c, std::size_t columns, bool add) {
  std::size_t j = 0;
  for (; j + 16 * kWideVectors <= columns; j += 16 * kWideVectors) {
    product_panel<kWideRows, kWideVectors>(a, rows, depth, b.data + j, b.row, c.data + j, c.row, add);
  }
  for (; j < columns; j += 16) {
    product_panel<kNarrowRows, 1>(a, rows, depth, b.data + j, b.row, c.data + j, c.row, add);
  }
}

inline MatrixView plain(Buffer m) { return {m.data, static_cast<std::ptrdiff_t>(m.row), 1}; }
inline MatrixView transposed(Buffer m) { return {m.data, 1, static_cast<std::ptrdiff_t>(m.row)}; }

// --------------------------------------------------------------------------------------------------- attention

/// e^x for x of at most about 1, to 2 units in the last place; 0 below -87, where float's normal range ends. The
/// polynomial is that of Cephes' expf.
inline F16 exponential(F16 x) {
  const F16 lowest = broadcast(-87.0f), magic = broadcast(12582912.0f);  // 1.5 * 2^23: rounds, and keeps n in low bits
  const F16 bounded = max(lowest, x);
  const F16 shifted = fma(bounded, broadcast(1.44269504088896341f), magic);
  const F16 n = shifted - magic;
  F16 r = fma(n, broadcast(-0.693359375f), bounded);
  r = fma(n, broadcast(2.12194440e-4f), r);
  F16 p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = fma(p, r * r, r) + broadcast(1.0f);
  return zero_if_less(x, lowest, p * power_of_two(shifted));
}

/// Hands out aligned pieces of the workspace.
class Workspace {
 public:
  explicit Workspace(float* data) : next_(data) {}
  float* take(std::size_t floats) {
    float* piece = next_;
    next_ += padded(floats);
    return piece;
  }
  Buffer matrix(std::size_t rows, std::size_t columns) { return {take(rows * columns), columns}; }

 private:
  float* next_;
};

/// The mask of consecutive elements, read 16 at a time from any place.
class MaskWindow {
 public:
  MaskWindow(const AttentionHead& head, std::uint64_t* words)
      : source_(head.dropout == nullptr ? MaskStream{} : *head.dropout), words_(words) {}

  void draw(std::size_t first, std::size_t count) {
    const std::size_t first_group = first / kMaskGroup, groups = (first + count - 1) / kMaskGroup - first_group + 1;
    for (std::size_t i = 0; i < groups; ++i) words_[i] = source_.group(first_group + i);
    words_[groups] = 0;
    start_ = first_group * kMaskGroup;
  }

  std::uint32_t bits(std::size_t element) const {
    const std::size_t place = element - start_, word = place / kMaskGroup, shift = place % kMaskGroup;
    // Two steps for the upper part: a shift by 64 would be undefined.
    return static_cast<std::uint32_t>(words_[word] >> shift | words_[word + 1] << 1 << (63 - shift));
  }

 private:
  MaskSource source_;
  std::uint64_t* words_;
  std::size_t start_ = 0;
};

/// Queries that are worked on together: their scores stay in the first-level cache for sequences of usual length.
inline std::size_t block_rows(std::size_t keys) {
  const std::size_t rows = 6144 / padded(keys) / 8 * 8;
  return rows < 8 ? 8 : smaller(rows, 64);
}

inline std::size_t mask_words(std::size_t keys) { return block_rows(keys) * keys / kMaskGroup + 3; }

std::size_t attention_workspace(const AttentionHead& head) {
  const std::size_t rows = block_rows(head.keys), width = padded(head.keys), depth = padded(head.head_size);
  const std::size_t transposed_inputs = 2 * head.head_size * width, key_rows = 3 * head.keys * depth;
  const std::size_t block = 2 * rows * width + 4 * rows * depth;
  return transposed_inputs + key_rows + block + padded(2 * mask_words(head.keys));
}

/// Rows of `n` floats, times `factor`, into rows of a buffer, whose padding becomes 0.
void pack(const float* in, std::ptrdiff_t in_row, std::size_t rows, std::size_t n, float factor, Buffer out) {
  for (std::size_t i = 0; i < rows; ++i, in += in_row) {
    float* to = out.data + i * out.row;
    for (std::size_t c = 0; c < n; ++c) to[c] = in[c] * factor;
    for (std::size_t c = n; c < out.row; ++c) to[c] = 0.0f;
  }
}

/// The same with rows and columns exchanged.
void pack_transposed(const float* in, std::ptrdiff_t in_row, std::size_t rows, std::size_t n, float factor,
                     Buffer out) {
  for (std::size_t i = 0; i < rows; ++i, in += in_row) {
    for (std::size_t c = 0; c < n; ++c) out.data[c * out.row + i] = in[c] * factor;
  }
  for (std::size_t c = 0; c < n; ++c) {
    for (std::size_t i = rows; i < out.row; ++i) out.data[c * out.row + i] = 0.0f;
  }
}

void unpack_row(const float* in, std::size_t n, float factor, float* out) {
  for (std::size_t c = 0; c < n; ++c) out[c] = in[c] * factor;
}

void unpack(Buffer in, std::size_t rows, std::size_t n, float factor, float* out, std::ptrdiff_t out_row) {
  for (std::size_t i = 0; i < rows; ++i, out += out_row) unpack_row(in.data + i * in.row, n, factor, out);
}

/// What is added to a row of scores.
class Bias {
 public:
  Bias(const AttentionHead& head, std::size_t query)
      : keys_(head.key_bias), row_(head.bias == nullptr ? nullptr : head.bias + query * padded(head.keys)) {}

  F16 add_to(F16 scores, std::size_t key) const {
    scores = scores + load(keys_ + key);
    return row_ == nullptr ? scores : scores + load(row_ + key);
  }

 private:
  const float *keys_, *row_;
};

/// How a row of exponentials becomes a row of softmax.
struct RowScale {
  float largest, sum;
};

/// Turns the scores of one query into exp(score - largest), those of dropped weights into 0; the sum has all of them.
template <bool kDropout>
RowScale exponentials(const AttentionHead& head, std::size_t query, const MaskWindow& mask, float* row) {
  const std::size_t width = padded(head.keys);
  const Bias bias(head, query);
  F16 running = broadcast(-kInfinity);
  for (std::size_t j = 0; j < width; j += 16) {
    const F16 scores = bias.add_to(load(row + j), j);
    store(row + j, scores);
    running = max(running, scores);
  }
  float largest = max_lanes(running);
  if (largest == -kInfinity) largest = 0.0f;  // every key is masked
  const F16 offset = broadcast(largest);
  const std::size_t element = head.first_element + query * head.keys;
  F16 sum = broadcast(0.0f);
  for (std::size_t j = 0; j < width; j += 16) {
    const F16 value = exponential(load(row + j) - offset);
    sum = sum + value;
    store(row + j, kDropout ? keep_lanes(mask.bits(element + j), value) : value);
  }
  return {largest, sum_lanes(sum)};
}

template <bool kDropout>
void forward(const AttentionHead& head, const AttentionResult& result, float* workspace) {
  const std::size_t width = padded(head.keys), depth = padded(head.head_size), block = block_rows(head.keys);
  Workspace space(workspace);
  const Buffer keys = space.matrix(head.head_size, width), values = space.matrix(head.keys, depth);
  const Buffer scores = space.matrix(block, width), out = space.matrix(block, depth);
  MaskWindow mask(head, reinterpret_cast<std::uint64_t*>(space.take(2 * mask_words(head.keys))));
  pack_transposed(head.k, head.k_row, head.keys, head.head_size, head.scale, keys);
  pack(head.v, head.v_row, head.keys, head.head_size, 1.0f, values);

  for (std::size_t first = 0; first < head.queries; first += block) {
    const std::size_t rows = smaller(block, head.queries - first);
    const auto start = static_cast<std::ptrdiff_t>(first);
    product({head.q + start * head.q_row, head.q_row, 1}, rows, head.head_size, keys, scores, width, false);
    if (kDropout) mask.draw(head.first_element + first * head.keys, rows * head.keys);
    float factors[64];
    for (std::size_t r = 0; r < rows; ++r) {
      const RowScale scale = exponentials<kDropout>(head, first + r, mask, scores.data + r * width);
      const bool masked = scale.sum == 0.0f;
      factors[r] = masked ? 0.0f : head.keep_scale / scale.sum;
      result.log_sums[first + r] = masked ? kInfinity : scale.largest + std::log(scale.sum);
    }
    product(plain(scores), rows, head.keys, values, out, depth, false);
    for (std::size_t r = 0; r < rows; ++r) {
      unpack_row(out.data + r * depth, head.head_size, factors[r],
                 result.out + (start + static_cast<std::ptrdiff_t>(r)) * result.out_row);
    }
  }
}

/// From the scores of one query and the gradient of its dropped weights: the gradient of the scores, and the dropped
/// weights in the place of their gradient. `shift` is the gradient times the output, summed.
template <bool kDropout>
void score_gradients(const AttentionHead& head, std::size_t query, float log_sum, float shift, const MaskWindow& mask,
                     float* scores, float* weights) {
  const Bias bias(head, query);
  const F16 offset = broadcast(log_sum), shifts = broadcast(shift), keep_scale = broadcast(head.keep_scale);
  const std::size_t element = head.first_element + query * head.keys;
  for (std::size_t j = 0; j < padded(head.keys); j += 16) {
    const F16 weight = exponential(bias.add_to(load(scores + j), j) - offset);
    F16 gradient = load(weights + j), dropped = weight;
    if (kDropout) {
      const std::uint32_t kept = mask.bits(element + j);
      gradient = keep_lanes(kept, gradient * keep_scale);
      dropped = keep_lanes(kept, weight * keep_scale);
    }
    store(scores + j, weight * (gradient - shifts));
    store(weights + j, dropped);
  }
}

float dot(const float* a, const float* b, std::size_t n) {
  F16 sum = broadcast(0.0f);
  for (std::size_t c = 0; c < n; c += 16) sum = fma(load(a + c), load(b + c), sum);
  return sum_lanes(sum);
}

template <bool kDropout>
void backward(const AttentionHead& head, const AttentionGradients& gradients, float* workspace) {
  const std::size_t width = padded(head.keys), depth = padded(head.head_size), block = block_rows(head.keys);
  Workspace space(workspace);
  const Buffer keys_t = space.matrix(head.head_size, width), values_t = space.matrix(head.head_size, width);
  const Buffer keys = space.matrix(head.keys, depth);
  const Buffer key_grads = space.matrix(head.keys, depth), value_grads = space.matrix(head.keys, depth);
  const Buffer scores = space.matrix(block, width), weights = space.matrix(block, width);
  const Buffer queries = space.matrix(block, depth), query_grads = space.matrix(block, depth);
  const Buffer out = space.matrix(block, depth), out_grads = space.matrix(block, depth);
  MaskWindow mask(head, reinterpret_cast<std::uint64_t*>(space.take(2 * mask_words(head.keys))));
  pack_transposed(head.k, head.k_row, head.keys, head.head_size, head.scale, keys_t);
  pack_transposed(head.v, head.v_row, head.keys, head.head_size, 1.0f, values_t);
  pack(head.k, head.k_row, head.keys, head.head_size, head.scale, keys);

  for (std::size_t first = 0; first < head.queries; first += block) {
    const std::size_t rows = smaller(block, head.queries - first);
    const auto start = static_cast<std::ptrdiff_t>(first);
    pack(head.q + start * head.q_row, head.q_row, rows, head.head_size, 1.0f, queries);
    pack(gradients.out + start * gradients.out_row, gradients.out_row, rows, head.head_size, 1.0f, out);
    pack(gradients.out_grad + start * gradients.out_grad_row, gradients.out_grad_row, rows, head.head_size, 1.0f,
         out_grads);
    product(plain(queries), rows, head.head_size, keys_t, scores, width, false);
    product(plain(out_grads), rows, head.head_size, values_t, weights, width, false);
    if (kDropout) mask.draw(head.first_element + first * head.keys, rows * head.keys);
    for (std::size_t r = 0; r < rows; ++r) {
      const float shift = dot(out.data + r * depth, out_grads.data + r * depth, depth);
      score_gradients<kDropout>(head, first + r, gradients.log_sums[first + r], shift, mask, scores.data + r * width,
                                weights.data + r * width);
    }
    const bool add = first > 0;
    product(transposed(weights), head.keys, rows, out_grads, value_grads, depth, add);
    product(transposed(scores), head.keys, rows, queries, key_grads, depth, add);
    product(plain(scores), rows, head.keys, keys, query_grads, depth, false);
    unpack(query_grads, rows, head.head_size, 1.0f, gradients.q + start * gradients.q_row, gradients.q_row);
  }
  unpack(key_grads, head.keys, head.head_size, head.scale, gradients.k, gradients.k_row);
  unpack(value_grads, head.keys, head.head_size, 1.0f, gradients.v, gradients.v_row);
}

void attention_forward(const AttentionHead& head, const AttentionResult& result, float* workspace) {
  (head.dropout == nullptr ? forward<false> : forward<true>)(head, result, workspace);
}

void attention_backward(const AttentionHead& head, const AttentionGradients& gradients, float* workspace) {
  (head.dropout == nullptr ? backward<false> : backward<true>)(head, gradients, workspace);
}

constexpr Kernels make_kernels() {
  return {keep_bits, dropout, attention_workspace, attention_forward, attention_backward};
}

}  // namespace
}  // namespace mmtrain::nn::detail
