// Online softmax with statistics: the running state of a row block, one pass over a tile of logits, and the merge of two states.
//
// For a row with running maximum m every sum is kept relative to m: l = sum e^{s-m}, S1 = sum e^{s-m} (s-m), and so on (centred, so that
// logits near +-300 lose nothing). Where the maximum rises by d = m' - m, a = e^{-d}: S1 <- a (S1 - d l), l <- a l.
#pragma once
#include <array>
#include <utility>
#include <vector>

#include "scores.h"

namespace ik {

// Places of a row's sums in its state; sums of weights follow from SUMS on: key sets, matches, windows, offsets.
enum Slot { L = 0, S1 = 1, SQ = 2, DIST = 3, M1 = 4, M2 = 5, SEEN = 6, REST_L = 7, REST_S1 = 8, SUMS = 9 };

enum Wish { ENTROPY = 1, SQUARE = 2, DISTANCE = 4, MOMENTS = 8, REST = 16 };

struct Layout {
  int wish = 0;
  int64_t sets = 0, match = 0, windows = 0, offsets = 0, width = 0, topk = 0, ldo = 0;
  bool rest = false;

  Layout(const Problem& p, const CollectData& c) {
    wish = (c.entropy ? ENTROPY : 0) | (c.prob_square ? SQUARE : 0) | (c.distance ? DISTANCE : 0) | (c.moments ? MOMENTS : 0);
    sets = SUMS;
    match = sets + round_up(c.n_sets, 4);
    windows = match + c.n_match;
    offsets = windows + c.n_windows;
    width = offsets + c.n_offsets;
    rest = c.rest_mass || c.rest_entropy;
    topk = c.topk;
    ldo = round_up(p.Dv, VL);
  }
};

struct State {
  std::vector<float> max, rest_max, sum, out, top;
  std::vector<int64_t> top_key;

  void reset(int rows, const Layout& lay) {
    max.assign(rows, -INF);
    rest_max.assign(rows, -INF);
    sum.assign(rows * lay.width, 0.0f);
    out.assign(rows * lay.ldo, 0.0f);
    top.assign(rows * lay.topk, -INF);
    top_key.assign(rows * lay.topk, -1);
  }
};

// Moves the sums of one row to the maximum `to` >= its own.
inline void raise(const Layout& lay, float from, float to, float* x, float* out) {
  if (from == to) return;
  if (from == -INF) return;  // every sum is still 0
  const float d = to - from, a = std::exp(-d);
  x[M2] += d * (d * x[SEEN] - 2.0f * x[M1]);
  x[M1] -= d * x[SEEN];
  x[S1] = a == 0.0f ? 0.0f : a * (x[S1] - d * x[L]);
  x[L] *= a;
  x[SQ] *= a * a;
  x[DIST] *= a;
  for (int64_t c = SUMS; c < lay.width; c++) x[c] *= a;
  for (int64_t c = 0; c < lay.ldo; c += VL) store(out + c, load(out + c) * a);
}
inline void raise_rest(float from, float to, float* x) {
  if (from == to || from == -INF) return;
  const float d = to - from, a = std::exp(-d);
  x[REST_S1] = a == 0.0f ? 0.0f : a * (x[REST_S1] - d * x[REST_L]);
  x[REST_L] *= a;
}

inline float row_max(const float* s, int64_t n) {
  vf a = load(s);
  for (int64_t c = VL; c < n; c += VL) a = vmax(a, load(s + c));
  return hmax(a);
}

// Largest logit of the keys outside `rest` (`others` is -1 there, else 0).
inline float rest_top(const float* s, int64_t n, const int32_t* others) {
  const vf hidden = set1(-INF);
  vf top = hidden;
  for (int64_t c = 0; c < n; c += VL) top = vmax(top, loadi(others + c) ? load(s + c) : hidden);
  return hmax(top);
}

// The rest's sums have a maximum of their own: exact even where every such weight is below the row's float32 range. Where that maximum is
// within REST_NEAR of the row's, the weights relative to the row's are as exact (s - m is rounded no worse than by 1e-6, e^{s-m} is far from
// the floor for every entry that counts), so they are scaled and no second exponential is taken.
constexpr float REST_NEAR = 16.0f;

// Logits to weights relative to m, in place, and the sums over them. `away` is position - first key. n is a multiple of VL.
// REST: also the sums over `others`, relative to `rest` (m - REST_NEAR <= rest <= m).
template <int W, bool PART>
inline void weigh(float* s, int64_t n, float m, float away, float* x, const int32_t* others, float rest) {
  vf l{}, s1{}, sq{}, dist{}, m1{}, m2{}, seen{}, rest_l{}, rest_s1{};
  vf d = away - iota();
  for (int64_t c = 0; c < n; c += VL) {
    vf raw = load(s + c);
    vf t = vmax(raw - m, set1(EXP_FLOOR));
    vf p = exp_floored(t);
    if (PART) p = raw == -INF ? vf{} : p;
    store(s + c, p);
    l += p;
    if (W & REST) {
      vf other = (vf)((vi)p & loadi(others + c));
      rest_l += other;
      rest_s1 += other * vmax(raw - rest, set1(EXP_FLOOR));
    }
    if (W & ENTROPY) s1 += p * t;
    if (W & SQUARE) sq += p * p;
    if (W & DISTANCE) {
      dist += p * d;
      d -= static_cast<float>(VL);
    }
    if (W & MOMENTS) {
      vf u = raw - m;
      if (PART) {
        u = raw == -INF ? vf{} : u;
        seen += raw == -INF ? vf{} : set1(1.0f);
      }
      m1 += u;
      m2 += u * u;
    }
  }
  x[L] += hsum(l);
  if (W & ENTROPY) x[S1] += hsum(s1);
  if (W & SQUARE) x[SQ] += hsum(sq);
  if (W & DISTANCE) x[DIST] += hsum(dist);
  if (W & REST) {
    const float unit = std::exp(m - rest);
    x[REST_L] += unit * hsum(rest_l);
    x[REST_S1] += unit * hsum(rest_s1);
  }
  if (W & MOMENTS) {
    x[M1] += hsum(m1);
    x[M2] += hsum(m2);
    x[SEEN] += PART ? hsum(seen) : static_cast<float>(n);
  }
}

using Weigh = void (*)(float*, int64_t, float, float, float*, const int32_t*, float);
template <bool PART, int... W>
constexpr std::array<Weigh, sizeof...(W)> weigh_table(std::integer_sequence<int, W...>) {
  return {weigh<W, PART>...};
}
template <bool PART>
Weigh weigh_for(int wish) {
  static constexpr auto table = weigh_table<PART>(std::make_integer_sequence<int, 2 * REST>());
  return table[wish];
}

// Sums of the weights of `R` rows over four key sets at once, each set an indicator row of 0 and 1.
template <int R>
inline void set_masses(const float* p, int64_t ldp, int64_t n, const float* ind, int64_t ldi, float* x, int64_t ldx) {
  vf acc[R][4] = {};
  for (int64_t c = 0; c < n; c += VL) {
    vf w[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) w[k] = load(ind + k * ldi + c);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      vf y = load(p + r * ldp + c);
#pragma GCC unroll 4
      for (int k = 0; k < 4; k++) acc[r][k] += y * w[k];
    }
  }
  for (int r = 0; r < R; r++)
    for (int k = 0; k < 4; k++) x[r * ldx + k] += hsum(acc[r][k]);
}

// The rest's sums relative to its own maximum, from the logits: where that is too far below the row's.
inline void weigh_rest(const float* s, int64_t n, const int32_t* others, float m, float* x) {
  vf l{}, s1{};
  for (int64_t c = 0; c < n; c += VL) {
    vf raw = loadi(others + c) ? load(s + c) : set1(-INF);
    vf t = vmax(raw - m, set1(EXP_FLOOR));
    vf p = raw == -INF ? vf{} : exp_floored(t);
    l += p;
    s1 += p * t;
  }
  x[REST_L] += hsum(l);
  x[REST_S1] += hsum(s1);
}

// Keeps the k largest logits, best first; among equals the key that came first stays (keys come in rising order).
inline void keep_top(int64_t k, float s, int64_t key, float* top, int64_t* keys) {
  int64_t at = k - 1;
  for (; at > 0 && s > top[at - 1]; at--) {
    top[at] = top[at - 1];
    keys[at] = keys[at - 1];
  }
  top[at] = s;
  keys[at] = key;
}
inline void scan_top(int64_t k, const float* s, int64_t n, int64_t j0, float* top, int64_t* keys) {
  for (int64_t c = 0; c < n; c += VL) {
    if (!any(load(s + c) > top[k - 1])) continue;
    for (int64_t e = c; e < c + VL; e++)
      if (s[e] > top[k - 1]) keep_top(k, s[e], j0 + e, top, keys);
  }
}

// Adds the state of later keys to that of earlier keys, row by row.
inline void merge(const Layout& lay, int rows, State& into, State& from) {
  for (int r = 0; r < rows; r++) {
    float *a = &into.sum[r * lay.width], *b = &from.sum[r * lay.width];
    float *oa = &into.out[r * lay.ldo], *ob = &from.out[r * lay.ldo];
    const float m = std::max(into.max[r], from.max[r]);
    raise(lay, into.max[r], m, a, oa);
    raise(lay, from.max[r], m, b, ob);
    into.max[r] = m;
    const float rest = std::max(into.rest_max[r], from.rest_max[r]);
    raise_rest(into.rest_max[r], rest, a);
    raise_rest(from.rest_max[r], rest, b);
    into.rest_max[r] = rest;
    for (int64_t c = 0; c < lay.width; c++) a[c] += b[c];
    for (int64_t c = 0; c < lay.ldo; c++) oa[c] += ob[c];
    for (int64_t c = 0; c < lay.topk; c++) {
      const int64_t e = r * lay.topk + c;
      if (from.top_key[e] >= 0 && from.top[e] > into.top[(r + 1) * lay.topk - 1])
        keep_top(lay.topk, from.top[e], from.top_key[e], &into.top[r * lay.topk], &into.top_key[r * lay.topk]);
    }
  }
}

}  // namespace ik
