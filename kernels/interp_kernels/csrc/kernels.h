// The entry points of the kernels, free of torch's types; ops.cpp binds them.
#pragma once
#include "problem.h"

namespace ik {

// out [B, H, Nq, Dv], lse and lse_low [B, H, Nq], contiguous float32, and the statistics of `collect`. lse_low is what rounding took from lse.
void attention_forward(const Problem& p, const CollectData& collect, float* out, float* lse, float* lse_low);

// What `column_sums` shall write; a null output is not computed.
struct ColumnsData {
  const float* lse = nullptr;  // [B, H, Nq]
  View<uint8_t> rows;          // [B, Nq]: bit s says that the row is in subset s
  int64_t subsets = 1;
  float *received = nullptr, *diagonals = nullptr;  // [B, H, S, Nk], [B, H, S, Nq + Nk - 1]
  int64_t block = 0;
  float *block_sum = nullptr, *block_max = nullptr;  // [B, H, ceil(Nq / block), ceil(Nk / block)], zero at the start
  bool histogram = false;
  int64_t* histogram_count = nullptr;  // [B, H, S, 32]
  float* histogram_mass = nullptr;
};
void column_sums(const Problem& p, const ColumnsData& c);

// out [B, H, entries]: the weights at (i[e], j[e]).
void single_entries(const Problem& p, const float* lse, const int64_t* i, const int64_t* j, int64_t entries, float* out);

struct TileData {
  const int64_t *row_edges = nullptr, *col_edges = nullptr;
  int64_t height = 0, width = 0;
  bool largest = false;  // pool by maximum, not by mean
};
// out [B, H, height, width].
void pooled_tile(const Problem& p, const float* lse, const TileData& tile, float* out);

struct BackwardData {
  View<float> grad_out;                    // [B, H, Nq, Dv]
  const float *lse = nullptr, *lse_low = nullptr;                        // [B, H, Nq]; their sum is the logarithm
  const float *base = nullptr, *grad_entropy = nullptr;                  // [B, H, Nq]; base = dlse - dO.out - dH H; no dH: null
  float *grad_q = nullptr, *grad_k = nullptr, *grad_v = nullptr;         // contiguous
};
void attention_backward(const Problem& p, const BackwardData& d);

}  // namespace ik
