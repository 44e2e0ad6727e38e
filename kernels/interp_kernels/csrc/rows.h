// A block of query rows: packed and scaled queries, and for each row the keys that it may see (bounds first, then the finer conditions).
#pragma once
#include <algorithm>
#include <vector>

#include "gemm.h"
#include "problem.h"

namespace ik {

constexpr int MAX_ROWS = 96;  // rows of a block; a multiple of MR

enum class Cover { none, all, part };  // of a rectangle of rows and keys: nothing visible, everything visible, must be masked

// Extremes over a group of at most MR rows, by which whole rectangles are skipped or left unmasked.
struct Group {
  int first = 0, n = 0;
  int32_t lo_min, lo_max, hi_min, hi_max, sink_min, sink_max, doc_min, doc_max;
  int32_t words;
};

struct Rows {
  int n = 0, groups = 0;
  int64_t b = 0, hkv = 0;
  int32_t left = 0;
  int32_t h[MAX_ROWS], i[MAX_ROWS], pos[MAX_ROWS];
  // Row r sees key j only if left <= j < hi[r], and lo[r] <= j or j < sink[r].
  int32_t lo[MAX_ROWS], hi[MAX_ROWS], sink[MAX_ROWS], doc[MAX_ROWS], word[MAX_ROWS];
  float folded[MAX_ROWS];  // factor on q: the scale, and the edit's factor on logits where it may be folded in
  float after[MAX_ROWS];   // that factor where it may not, else 1
  Group group[MAX_ROWS];
  int64_t ldq = 0;
  std::vector<float> q;    // [MAX_ROWS][ldq], times `folded`, zero beyond D
  std::vector<uint16_t> q_half;  // in its place where the problem is in bfloat16: as given, `folded` is applied to the products

  void load(const Problem& p);
  int32_t first_key() const;
  int32_t last_key() const;
};

inline int32_t clamp_key(int64_t j, int64_t keys) { return static_cast<int32_t>(std::clamp<int64_t>(j, 0, keys)); }

// Fills everything from b, hkv, n, h and i.
inline void Rows::load(const Problem& p) {
  const MaskData& m = p.mask;
  const int64_t keys = p.Nk;
  const int64_t pad = m.left ? *m.left.at(b, 0, 0) : 0;
  const int64_t end = keys - (m.right ? *m.right.at(b, 0, 0) : 0);
  const int64_t prefix = m.prefix ? pad + *m.prefix.at(b, 0, 0) : 0;
  left = clamp_key(pad, keys);
  if (ldq == 0) {
    ldq = round_up(p.D, VL);
    if (p.half()) q_half.assign(MAX_ROWS * ldq, 0);
    else q.assign(MAX_ROWS * ldq, 0.0f);
  }
  const bool fold = p.folds();
  for (int r = 0; r < n; r++) {
    const int64_t at = i[r] + m.offset;
    pos[r] = static_cast<int32_t>(std::clamp<int64_t>(at, -(1 << 30), 1 << 30));
    int64_t high = m.causal ? at + 1 : m.window ? at + m.window : keys;
    high = std::max(high, prefix);
    hi[r] = clamp_key(std::min(high, end), keys);
    const bool per_head = static_cast<bool>(m.head_windows);
    const int64_t window = per_head ? *m.head_windows.at(0, h[r], 0) : m.window;
    lo[r] = clamp_key(std::max(pad, window > 0 && window <= at ? at - window + 1 : 0), keys);
    // A window may reach over the whole axis in its head; then there is no sink range to speak of.
    sink[r] = per_head && m.head_sinks ? clamp_key(std::min<int64_t>(pad + *m.head_sinks.at(0, h[r], 0), hi[r]), keys) : 0;
    doc[r] = m.query_docs ? m.query_docs.at(b, 0, 0)[i[r]] : 0;
    word[r] = m.hide_rows ? m.hide_rows.at(b, 0, 0)[i[r]] & *m.hide_heads.at(0, h[r], 0) : 0;
    const float edit = p.edit.logit_scale ? *p.edit.logit_scale.at(b, h[r], i[r]) : 1.0f;
    after[r] = fold ? 1.0f : edit;
    folded[r] = fold ? p.scale * edit : p.scale;
    if (p.half()) {
      std::memcpy(&q_half[r * ldq], p.q_half.at(b, h[r], i[r]), sizeof(uint16_t) * p.D);
      continue;
    }
    const float* src = p.q.at(b, h[r], i[r]);
    float* dst = q.data() + r * ldq;
    for (int64_t d = 0; d < p.D; d++) dst[d] = src[d] * folded[r];
  }
  groups = 0;
  for (int r = 0; r < n; r += MR) {
    Group& g = group[groups++];
    g.first = r;
    g.n = std::min(MR, n - r);
    auto low = [&](const int32_t* x) { return *std::min_element(x + r, x + r + g.n); };
    auto high = [&](const int32_t* x) { return *std::max_element(x + r, x + r + g.n); };
    g.lo_min = low(lo), g.lo_max = high(lo), g.hi_min = low(hi), g.hi_max = high(hi);
    g.sink_min = low(sink), g.sink_max = high(sink), g.doc_min = low(doc), g.doc_max = high(doc);
    g.words = 0;
    for (int c = 0; c < g.n; c++) g.words |= word[r + c];
  }
}

inline int32_t Rows::first_key() const {
  int32_t lowest = *std::min_element(lo, lo + n), sinks = *std::max_element(sink, sink + n);
  return sinks > left ? left : lowest;
}
inline int32_t Rows::last_key() const { return *std::max_element(hi, hi + n); }

// What the finer conditions of the mask do to a rectangle that the bounds let pass.
inline Cover fine_cover(const Problem& p, const Rows& rows, const Group& g, int64_t j0, int64_t n) {
  const MaskData& m = p.mask;
  bool part = static_cast<bool>(m.bias) || static_cast<bool>(p.edit.key_bias);
  if (m.key_docs) {
    const int32_t* d = m.key_docs.at(rows.b, 0, 0) + j0;
    auto [low, high] = std::minmax_element(d, d + n);
    if (*low > g.doc_max || *high < g.doc_min) return Cover::none;
    part |= !(*low == *high && g.doc_min == g.doc_max && *low == g.doc_min);
  }
  if (m.hide_keys && g.words) {
    const int32_t* w = m.hide_keys.at(rows.b, 0, 0) + j0;
    int32_t any = 0;
    for (int64_t c = 0; c < n; c++) any |= w[c];
    part |= (any & g.words) != 0;
  }
  if (m.keep) {
    bool kept = false, cut = false;
    for (int c = 0; c < g.n; c++) {
      const int r = g.first + c;
      const uint8_t* row = m.keep.at(rows.b, rows.h[r], rows.i[r] / m.block_rows);
      for (int64_t x = j0 / m.block_keys; x <= (j0 + n - 1) / m.block_keys; x++) (row[x] ? kept : cut) = true;
    }
    if (!kept) return Cover::none;
    part |= cut;
  }
  return part ? Cover::part : Cover::all;
}

inline Cover cover(const Problem& p, const Rows& rows, const Group& g, int64_t j0, int64_t n) {
  const int64_t j1 = j0 + n;
  const bool sinks = g.sink_max > rows.left && j0 < g.sink_max;
  if (j0 >= g.hi_max || j1 <= rows.left || (j1 <= g.lo_min && !sinks)) return Cover::none;
  const Cover fine = fine_cover(p, rows, g, j0, n);
  if (fine != Cover::all) return fine;
  const bool inside = j0 >= rows.left && j1 <= g.hi_min && (j0 >= g.lo_max || j1 <= g.sink_min);
  return inside ? Cover::all : Cover::part;
}

}  // namespace ik
