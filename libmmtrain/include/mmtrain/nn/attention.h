#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "mmtrain/core/export.h"
#include "mmtrain/nn/linear.h"
#include "mmtrain/nn/random_context.h"

namespace mmtrain::nn {

/// What attention may not look at. A query all of whose keys are masked gets 0.
struct AttentionMasks {
  /// bool `[B,S]`, true: no query of this sample looks at that key; or float, added to the scores. May be undefined.
  torch::Tensor key_padding = {};
  /// bool `[T,S]`, true: this query does not look at that key; or float, added to the scores; or either of them
  /// `[B*H,T,S]`. May be undefined.
  torch::Tensor attention = {};
};

struct MultiheadAttentionOptions {
  std::int64_t embed_dim = 0;  ///< features of queries and output
  std::int64_t num_heads = 1;  ///< must divide `embed_dim`
  double dropout = 0;          ///< of the attention weights, in training mode
  bool bias = true;
  std::int64_t kdim = 0;  ///< features of keys; 0: `embed_dim`
  std::int64_t vdim = 0;  ///< features of values; 0: `embed_dim`
};

/// Multi-head attention of Vaswani et al., "Attention is all you need", NeurIPS 2017, with batch-first tensors and the
/// parameter names and initial values of Python's `torch.nn.MultiheadAttention`, whose results it gives. Dropout is
/// this library's. In float32 on CPU one fused kernel does scores, softmax, dropout and sum, forward and backward,
/// without ever holding the `[B,H,T,S]` weights; elsewhere it is composed of LibTorch's operators. Made without
/// dropout, with heads of more than 16 features, it trains on CPU with the same bits as Python's.
class MMTRAIN_API MultiheadAttentionImpl : public torch::nn::Cloneable<MultiheadAttentionImpl>, public RandomLayer {
 public:
  /// Throws `ConfigError` for sizes that do not fit.
  explicit MultiheadAttentionImpl(const MultiheadAttentionOptions& options_);
  void reset() override;

  /// query `[B,T,embed_dim]`, key `[B,S,kdim]`, value `[B,S,vdim]` -> `[B,T,embed_dim]`. The same tensor given twice or
  /// three times is projected in one product.
  torch::Tensor forward(const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                        const AttentionMasks& masks = {});

  /// Also the weights after dropout, averaged over the heads: `[B,T,S]`. Slower.
  std::pair<torch::Tensor, torch::Tensor> forward_with_weights(const torch::Tensor& query, const torch::Tensor& key,
                                                               const torch::Tensor& value,
                                                               const AttentionMasks& masks = {});

  MultiheadAttentionOptions options;
  torch::Tensor in_proj_weight;                               ///< `[3 E,E]`; undefined where kdim or vdim differ
  torch::Tensor q_proj_weight, k_proj_weight, v_proj_weight;  ///< defined where kdim or vdim differ
  torch::Tensor in_proj_bias;                                 ///< `[3 E]`; undefined without bias
  Linear out_proj{nullptr};

 private:
  std::vector<torch::Tensor> project(const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                                     bool time_first);
  bool rounds_as_python(const torch::Tensor& query) const;
  double dropout_now() const { return is_training() ? options.dropout : 0.0; }
};
TORCH_MODULE(MultiheadAttention);

}  // namespace mmtrain::nn
