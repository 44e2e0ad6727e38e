// Gradients of out, lse and entropy for q, k and v. Two sweeps, by rows (dq) and by keys (dk, dv), so that nothing is added by two threads.
//
// With t = s - lse (s - lse - lse_low: the rounding of a large lse would be an error of every weight of its row) and p = e^t: dS = p (f dO.v + base - dH t), where base = dlse - dO.out - dH H and f are the edit's factors; the curve of the
// soft-cap and the factors on logits follow. Sums run in the same tiles and the same order on any number of threads.
#include "kernels.h"
#include "tasks.h"
#include "weights.h"

namespace ik {
namespace {

constexpr int64_t TILE = 128;

struct Plan {
  const Problem& p;
  const BackwardData& d;
  int64_t ldk, ldv, flat, blocks, heads, chunks;
};

struct Scratch {
  Rows rows;
  std::vector<float> key_panels, value_panels, keys, s, raw, dp, back, weight, turned, grad_out, dq, dk, dv;
  void resize(const Plan& plan) {
    key_panels.resize(TILE * plan.p.D);
    value_panels.resize(TILE * plan.p.Dv);
    keys.assign(TILE * plan.ldk, 0.0f);
    s.resize(MR * TILE), raw.resize(MR * TILE), dp.resize(MR * TILE);
    back.resize(MAX_ROWS * TILE), weight.resize(MAX_ROWS * TILE), turned.resize(MAX_ROWS * TILE);
    grad_out.assign(MAX_ROWS * plan.ldv, 0.0f);
    dq.resize(MAX_ROWS * plan.ldk), dk.resize(TILE * plan.ldk), dv.resize(TILE * plan.ldv);
  }
};

void place(const Plan& plan, int64_t block, int64_t head, Scratch& w) {
  const Problem& p = plan.p;
  Rows& rows = w.rows;
  rows.b = head / p.Hkv;
  rows.hkv = head % p.Hkv;
  rows.n = static_cast<int>(std::min<int64_t>(MAX_ROWS, plan.flat - block * MAX_ROWS));
  for (int r = 0; r < rows.n; r++) {
    const int64_t f = block * MAX_ROWS + r;
    rows.i[r] = static_cast<int32_t>(f / p.G);
    rows.h[r] = static_cast<int32_t>(rows.hkv * p.G + f % p.G);
  }
  rows.load(p);
  for (int r = 0; r < rows.n; r++) {
    const float gate = p.edit.gate ? *p.edit.gate.at(rows.b, rows.h[r], rows.i[r]) : 1.0f;
    const float* from = plan.d.grad_out.at(rows.b, rows.h[r], rows.i[r]);
    for (int64_t d = 0; d < p.Dv; d++) w.grad_out[r * plan.ldv + d] = from[d] * gate;
  }
}

void load_keys(const Plan& plan, int64_t b, int64_t g, int64_t j0, int64_t n, Scratch& w) {
  const Problem& p = plan.p;
  pack_panels(n, p.D, p.k.at(b, g, j0), p.k.sr, w.key_panels.data());
  pack_panels(n, p.Dv, p.v.at(b, g, j0), p.v.sr, w.value_panels.data());
  for (int64_t j = 0; j < n; j++) std::memcpy(&w.keys[j * plan.ldk], p.k.at(b, g, j0 + j), sizeof(float) * p.D);
}

// Fills `back` (gradient of q'.k, q' as packed in `rows`) and `weight` (factors times p) of one row group; false where nothing is visible.
bool differentiate(const Plan& plan, Scratch& w, const Group& g, int64_t j0, int64_t n) {
  const Problem& p = plan.p;
  const int64_t padded = round_up(n, VL);
  const Cover seen = score_group(p, w.rows, g, w.key_panels.data(), j0, n, w.s.data(), TILE);
  if (seen == Cover::none) return false;
  products(g.n, padded, p.Dv, w.grad_out.data() + g.first * plan.ldv, plan.ldv, w.value_panels.data(), w.dp.data(), TILE);
  if (p.softcap != 0) products(g.n, padded, p.D, w.rows.q.data() + g.first * w.rows.ldq, w.rows.ldq, w.key_panels.data(), w.raw.data(), TILE);
  for (int e = 0; e < g.n; e++) {
    const int r = g.first + e;
    const int64_t at = (w.rows.b * p.H + w.rows.h[r]) * p.Nq + w.rows.i[r];
    const float lse = plan.d.lse[at], low = plan.d.lse_low[at], base = plan.d.base[at], entropy = plan.d.grad_entropy ? plan.d.grad_entropy[at] : 0.0f;
    float *s = w.s.data() + e * TILE, *dp = w.dp.data() + e * TILE, *back = w.back.data() + r * TILE, *weight = w.weight.data() + r * TILE;
    if (lse == -INF) {
      std::fill(back, back + padded, 0.0f), std::fill(weight, weight + padded, 0.0f);
      continue;
    }
    const float* factor = nullptr;
    const uint8_t* set = nullptr;
    if (p.edit.factors) {
      factor = p.edit.factors.at(w.rows.b, w.rows.h[r], w.rows.i[r]);
      set = p.edit.set_of_key.at(w.rows.b, w.rows.h[r], 0) + j0;
      for (int64_t c = 0; c < n; c++) dp[c] *= factor[set[c]];
    }
    const float after = w.rows.after[r];
    for (int64_t c = 0; c < padded; c += VL) {
      vf raw = load(s + c), t = vmax(raw - lse - low, set1(EXP_FLOOR)), weigh = exp_floored(t);
      if (seen == Cover::part) weigh = raw == -INF ? vf{} : weigh;
      vf grad = weigh * (load(dp + c) + base - entropy * t) * after;
      if (p.softcap != 0) {
        vf bent = vtanh(load(w.raw.data() + e * TILE + c) * (1.0f / p.softcap));
        grad *= 1.0f - bent * bent;
      }
      store(back + c, grad);
      store(weight + c, weigh);
    }
    if (factor)
      for (int64_t c = 0; c < n; c++) weight[c] *= factor[set[c]];
  }
  return true;
}

void by_rows(const Plan& plan, Scratch& w, int64_t block, int64_t head) {
  const Problem& p = plan.p;
  w.resize(plan);
  place(plan, block, head, w);
  std::fill(w.dq.begin(), w.dq.end(), 0.0f);
  const int64_t last = w.rows.last_key();
  for (int64_t j0 = w.rows.first_key() / NR * NR; j0 < last; j0 += TILE) {
    const int64_t n = std::min(TILE, last - j0);
    load_keys(plan, w.rows.b, w.rows.hkv, j0, n, w);
    for (int g = 0; g < w.rows.groups; g++) {
      const Group& group = w.rows.group[g];
      if (!differentiate(plan, w, group, j0, n)) continue;
      gemm(group.n, plan.ldk, n, w.back.data() + group.first * TILE, TILE, w.keys.data(), plan.ldk, NR, w.dq.data() + group.first * plan.ldk, plan.ldk, true);
    }
  }
  for (int r = 0; r < w.rows.n; r++) {
    float* to = plan.d.grad_q + ((w.rows.b * p.H + w.rows.h[r]) * p.Nq + w.rows.i[r]) * p.D;
    for (int64_t d = 0; d < p.D; d++) to[d] = w.dq[r * plan.ldk + d] * w.rows.folded[r];
  }
}

void by_keys(const Plan& plan, Scratch& w, int64_t head, int64_t chunk) {
  const Problem& p = plan.p;
  const int64_t j0 = chunk * TILE, n = std::min(TILE, p.Nk - j0), b = head / p.Hkv, h = head % p.Hkv;
  w.resize(plan);
  load_keys(plan, b, h, j0, n, w);
  std::fill(w.dk.begin(), w.dk.end(), 0.0f), std::fill(w.dv.begin(), w.dv.end(), 0.0f);
  const MaskData& m = p.mask;
  int64_t first = 0;
  if (m.causal && !m.prefix) first = std::clamp<int64_t>(j0 - m.offset, 0, p.Nq) * p.G / MAX_ROWS;
  for (int64_t block = first; block < plan.blocks; block++) {
    place(plan, block, head, w);
    bool any = false;
    for (int g = 0; g < w.rows.groups; g++) {
      const Group& group = w.rows.group[g];
      const bool some = differentiate(plan, w, group, j0, n);
      any |= some;
      if (some) continue;
      std::fill_n(w.back.begin() + group.first * TILE, group.n * TILE, 0.0f);
      std::fill_n(w.weight.begin() + group.first * TILE, group.n * TILE, 0.0f);
    }
    if (!any) continue;
    transpose(w.rows.n, n, w.back.data(), TILE, w.turned.data(), MAX_ROWS);
    gemm_rows(n, plan.ldk, w.rows.n, w.turned.data(), MAX_ROWS, w.rows.q.data(), w.rows.ldq, NR, w.dk.data(), plan.ldk, true);
    transpose(w.rows.n, n, w.weight.data(), TILE, w.turned.data(), MAX_ROWS);
    gemm_rows(n, plan.ldv, w.rows.n, w.turned.data(), MAX_ROWS, w.grad_out.data(), plan.ldv, NR, w.dv.data(), plan.ldv, true);
  }
  for (int64_t j = 0; j < n; j++) {
    const int64_t at = (b * p.Hkv + h) * p.Nk + j0 + j;
    std::memcpy(plan.d.grad_k + at * p.D, &w.dk[j * plan.ldk], sizeof(float) * p.D);
    std::memcpy(plan.d.grad_v + at * p.Dv, &w.dv[j * plan.ldv], sizeof(float) * p.Dv);
  }
}

}  // namespace

void attention_backward(const Problem& p, const BackwardData& d) {
  const int64_t flat = p.Nq * p.G;
  const Plan plan{p, d, round_up(p.D, VL), round_up(p.Dv, VL), flat, (flat + MAX_ROWS - 1) / MAX_ROWS, p.B * p.Hkv, (p.Nk + TILE - 1) / TILE};
  share<Scratch>(plan.blocks * plan.heads, [&](int64_t t, Scratch& w) { by_rows(plan, w, plan.blocks - 1 - t / plan.heads, t % plan.heads); });
  share<Scratch>(plan.chunks * plan.heads, [&](int64_t t, Scratch& w) { by_keys(plan, w, t % plan.heads, t / plan.heads); });
}

}  // namespace ik
