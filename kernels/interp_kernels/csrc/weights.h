// Weights p = exp(s - lse) of a row group against a run of keys, from q, k and lse: what every sweep after the forward one recomputes.
#pragma once
#include "scores.h"

namespace ik {

constexpr float LOG2E = 1.44269504088896341f;

// Final logits to weights, in place; 0 where hidden, and on a row without any visible key (lse -inf).
inline void to_weights(float* s, int64_t n, float lse, bool part) {
  if (lse == -INF) {
    std::fill(s, s + n, 0.0f);
    return;
  }
  for (int64_t c = 0; c < n; c += VL) {
    vf raw = load(s + c);
    vf p = vexp(raw - lse);
    store(s + c, part ? (raw == -INF ? vf{} : p) : p);
  }
}

// Rows first .. first + n - 1 of one head.
inline void rows_of_head(const Problem& p, int64_t b, int64_t h, int64_t first, int64_t n, Rows& rows) {
  rows.b = b;
  rows.hkv = h / p.G;
  rows.n = static_cast<int>(n);
  for (int r = 0; r < rows.n; r++) {
    rows.h[r] = static_cast<int32_t>(h);
    rows.i[r] = static_cast<int32_t>(first + r);
  }
  rows.load(p);
}

inline float range_sum(const float* s, int64_t from, int64_t to) {
  vf sum{};
  float rest = 0;
  for (; from + VL <= to; from += VL) sum += load(s + from);
  for (; from < to; from++) rest += s[from];
  return hsum(sum) + rest;
}
inline float range_max(const float* s, int64_t from, int64_t to) {
  float top = 0;  // weights are not negative
  for (; from < to; from++) top = std::max(top, s[from]);
  return top;
}

}  // namespace ik
