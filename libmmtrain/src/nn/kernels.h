#pragma once

#include <cstddef>
#include <cstdint>

/// The loops of dropout and of attention on CPU, compiled once for each `SimdLevel`. Dropout gives equal bits at all
/// levels. Attention does so at all levels with fused multiplications (AVX2, AVX512; scalar on machines that always
/// have them): sums are taken over 16 lanes and combined in one order.
namespace mmtrain::nn::detail {

/// The random numbers of one sample in one dropout call. Element e of the sample belongs to group g = e / 64; with
/// bit b = e % 64, lane l = (b / 2) % 8, word w = 2 * (b / 32) + b % 2, its number is word w of
/// Philox4x32-10(counter {8 g + l, 0, sample low, sample high}, key), rotated by 16 bits where b / 16 is odd.
/// The element is kept where its number is at least `threshold` = p * 2^32.
struct MaskStream {
  std::uint32_t key[2];
  std::uint32_t threshold;
  std::uint64_t sample;
};

inline constexpr std::size_t kMaskGroup = 64;

/// One head of one sample. Matrices have rows of `head_size` contiguous floats, `*_row` apart.
struct AttentionHead {
  std::size_t queries, keys, head_size;
  const float *q, *k, *v;
  std::ptrdiff_t q_row, k_row, v_row;
  float scale;            ///< of the products of queries and keys
  const float* key_bias;  ///< `padded(keys)` values added to every row of scores; -infinity in the padding
  const float* bias;      ///< `[queries, padded(keys)]`, added too; may be null
  /// Of the weights; null: no dropout. Weight (i, j) is element `first_element + i * keys + j`.
  const MaskStream* dropout;
  std::size_t first_element;
  float keep_scale;  ///< 1 / (1 - p)
};

/// What the forward pass writes for one head.
struct AttentionResult {
  float* out;
  std::ptrdiff_t out_row;
  /// `[queries]`: log of the sum of the exponentials of a row of scores; +infinity where every key is masked.
  float* log_sums;
};

/// What the backward pass reads and writes for one head; `*_row` as above.
struct AttentionGradients {
  const float *out, *out_grad, *log_sums;
  std::ptrdiff_t out_row, out_grad_row;
  float *q, *k, *v;
  std::ptrdiff_t q_row, k_row, v_row;
};

/// `n` rounded up to whole vectors.
constexpr std::size_t padded(std::size_t n) { return (n + 15) / 16 * 16; }

struct Kernels {
  /// Bit e, counted from the lowest of words[0], tells whether element 64 * first_group + e is kept.
  void (*keep_bits)(const MaskStream& stream, std::size_t first_group, std::size_t groups, std::uint64_t* words);
  /// out[i] = scale * in[i] where element 64 * first_group + i is kept, else 0. `out` may be `in`.
  void (*dropout)(const MaskStream& stream, std::size_t first_group, std::size_t n, float scale, const float* in,
                  float* out);
  /// Floats of workspace, aligned to 64 bytes, that both attention kernels need for heads of this shape.
  std::size_t (*attention_workspace)(const AttentionHead& head);
  void (*attention_forward)(const AttentionHead& head, const AttentionResult& result, float* workspace);
  void (*attention_backward)(const AttentionHead& head, const AttentionGradients& gradients, float* workspace);
};

extern const Kernels kScalarKernels, kAvx2Kernels, kAvx512Kernels;

/// The kernels of `simd_level()`.
const Kernels& kernels();

}  // namespace mmtrain::nn::detail
