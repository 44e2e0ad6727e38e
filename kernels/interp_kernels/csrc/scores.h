// Final logits of a row group against a run of packed keys: product, soft-cap, biases, edits, mask (-inf where hidden).
#pragma once
#include "rows.h"

namespace ik {

// Everything between q.k and the mask, on one row of n logits (n a multiple of VL; entries beyond the keys hold anything finite or -inf).
inline void transform_row(const Problem& p, const Rows& rows, int r, int64_t j0, int64_t n, int64_t real, float* s) {
  const MaskData& m = p.mask;
  if (p.softcap != 0) {
    const float inv = 1.0f / p.softcap;
    for (int64_t c = 0; c < n; c += VL) store(s + c, p.softcap * vtanh(load(s + c) * inv));
  }
  if (m.alibi) {
    const float slope = *m.alibi.at(0, rows.h[r], 0);
    vf away = iota() + static_cast<float>(j0 - rows.pos[r]);
    for (int64_t c = 0; c < n; c += VL, away += static_cast<float>(VL)) store(s + c, load(s + c) - slope * (away < 0.0f ? -away : away));
  }
  if (m.bias) {
    const float* x = m.bias.at(rows.b, rows.h[r], rows.i[r]) + j0;
    for (int64_t c = 0; c < real; c++) s[c] += x[c];
  }
  if (p.edit.logit_scale && rows.after[r] != 1.0f) {
    const float f = rows.after[r];
    // A hidden entry stays hidden: -inf * 0 would be NaN.
    for (int64_t c = 0; c < n; c++) s[c] = s[c] == -INF ? -INF : s[c] * f;
  }
  if (p.edit.key_bias) {
    const float* x = p.edit.key_bias.at(rows.b, rows.h[r], 0) + j0;
    for (int64_t c = 0; c < real; c++) s[c] += x[c];
  }
}

inline bool transforms(const Problem& p) { return !p.folds() || p.edit.key_bias; }

// Writes -inf where row r does not see key j0 + c, for all c < n, the padding of the last vector included.
inline void mask_row(const Problem& p, const Rows& rows, int r, int64_t j0, int64_t n, int64_t real, float* s) {
  const MaskData& m = p.mask;
  const vf hidden = set1(-INF);
  const int32_t lo = rows.lo[r], hi = rows.hi[r], sink = rows.sink[r], left = rows.left;
  vi j = iotai() + static_cast<int32_t>(j0);
  for (int64_t c = 0; c < n; c += VL, j += VL) {
    vi seen = (j < hi) & ((j >= lo) | (j < sink)) & (j >= left);
    store(s + c, seen ? load(s + c) : hidden);
  }
  if (m.key_docs) {
    const int32_t* d = m.key_docs.at(rows.b, 0, 0) + j0;
    for (int64_t c = 0; c < real; c++) s[c] = d[c] == rows.doc[r] ? s[c] : -INF;
  }
  if (m.hide_keys && rows.word[r]) {
    const int32_t* w = m.hide_keys.at(rows.b, 0, 0) + j0;
    for (int64_t c = 0; c < real; c++) s[c] = (w[c] & rows.word[r]) ? -INF : s[c];
  }
  if (m.keep) {
    const uint8_t* row = m.keep.at(rows.b, rows.h[r], rows.i[r] / m.block_rows);
    for (int64_t c = 0; c < real;) {
      const int64_t block = (j0 + c) / m.block_keys, stop = std::min(real, (block + 1) * m.block_keys - j0);
      if (!row[block])
        for (int64_t x = c; x < stop; x++) s[x] = -INF;
      c = stop;
    }
  }
  for (int64_t c = real; c < n; c++) s[c] = -INF;
}

// What is left after the products of group g with keys j0 .. j0 + n - 1: everything between q.k and the softmax.
inline void finish_scores(const Problem& p, const Rows& rows, const Group& g, int64_t j0, int64_t n, bool part, float* s, int64_t lds) {
  const int64_t padded = round_up(n, VL);
  const bool change = transforms(p);
  for (int c = 0; c < g.n && (change || part); c++) {
    if (change) transform_row(p, rows, g.first + c, j0, padded, n, s + c * lds);
    if (part) mask_row(p, rows, g.first + c, j0, padded, n, s + c * lds);
  }
}

// Logits of group g against keys j0 .. j0 + n - 1, packed at `panels`, into s[c * lds]; rows are padded to a multiple of VL.
// `part` in the answer means that some entries are -inf. Nothing is written for `none`.
inline Cover score_group(const Problem& p, const Rows& rows, const Group& g, const float* panels, int64_t j0, int64_t n, float* s, int64_t lds) {
  Cover seen = cover(p, rows, g, j0, n);
  if (seen == Cover::none) return seen;
  const int64_t padded = round_up(n, VL);
  if (padded != n) seen = Cover::part;
  products(g.n, padded, p.D, rows.q.data() + g.first * rows.ldq, rows.ldq, panels, s, lds);
  finish_scores(p, rows, g, j0, n, seen == Cover::part, s, lds);
  return seen;
}

}  // namespace ik
