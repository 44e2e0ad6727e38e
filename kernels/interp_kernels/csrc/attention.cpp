// Forward sweep: a block of query rows (all query heads of one key head together) against tiles of keys; O(N) memory.
#include "half.h"
#include "kernels.h"
#include "softmax.h"
#include "tasks.h"
#include "weights.h"

namespace ik {
namespace {

constexpr int64_t TILE = 256;         // keys at a time: logits of one row group stay in L1, the tile of k and v in L2
constexpr int64_t SMALL_TILE = 4 * NR > 128 ? 128 : 4 * NR;  // where whole tiles may be skipped by blocks or documents
constexpr int SPAN = 48;              // rows of one product in bfloat16; a multiple of MR, and of the 16 rows of an AMX tile
constexpr int64_t MIN_SPLIT = 512;    // keys of one part when few rows are split over their keys
constexpr int64_t WANTED_TASKS = 32;  // fixed, so that results do not depend on the number of threads

struct Plan {
  const Problem& p;
  const CollectData& c;
  Layout lay;
  int64_t flat, blocks, heads, splits, tile, align;  // `align`: where a run of keys may begin
  bool shared_panels;
  std::vector<float> panels, values;  // of all key heads, or empty where a task packs its own tiles
  int64_t panel_keys, ldv, words;     // `words`: of two bfloat16 features, in a key

  Plan(const Problem& problem, const CollectData& collect);
  void pack();
  void pack_half();
  void pack_half_tile(int64_t b, int64_t g, int64_t j0, float* keys, float* rows) const;
  const float* half_keys(int64_t b, int64_t g, int64_t j0) const { return panels.data() + ((b * p.Hkv + g) * panel_keys + j0) * words; }
  const float* half_values(int64_t b, int64_t g, int64_t j0) const { return values.data() + ((b * p.Hkv + g) * panel_keys + j0) / 2 * lay.ldo; }
  const float* key_panels(int64_t b, int64_t g, int64_t j0) const {
    return panels.data() + ((b * p.Hkv + g) * panel_keys + j0) * p.D;
  }
  const float* value_rows(int64_t b, int64_t g, int64_t j0) const {
    return values.empty() ? p.v.at(b, g, j0) : values.data() + ((b * p.Hkv + g) * p.Nk + j0) * ldv;
  }
};

struct Scratch {
  Rows rows;
  State state;
  std::vector<float> s, panels, values;
  std::vector<uint16_t> weights;
  bool holds_tiles = false;  // of the processor's matrix unit

  ~Scratch() {
    if (holds_tiles) half_release();
  }
};

struct Nothing {};

Plan::Plan(const Problem& problem, const CollectData& collect) : p(problem), c(collect), lay(problem, collect) {
  flat = p.Nq * p.G;
  blocks = (flat + MAX_ROWS - 1) / MAX_ROWS;
  heads = p.B * p.Hkv;
  const int64_t tasks = blocks * heads;
  splits = tasks >= WANTED_TASKS ? 1 : std::max<int64_t>(1, std::min((p.Nk + MIN_SPLIT - 1) / MIN_SPLIT, WANTED_TASKS / tasks));
  tile = p.mask.keep || p.mask.key_docs ? SMALL_TILE : TILE;
  align = p.half() ? tile : NR;
  shared_panels = blocks > 1;
  panel_keys = round_up(p.Nk, align);
  words = (p.D + 1) / 2;
  if (p.half()) pack_half();
  else pack();
}

void Plan::pack_half_tile(int64_t b, int64_t g, int64_t j0, float* keys, float* rows) const {
  const int64_t n = std::min(tile, p.Nk - j0);
  pack_half_keys(n, p.D, p.k_half.at(b, g, j0), p.k_half.sr, keys, tile);
  pack_half_values(n, p.Dv, p.v_half.at(b, g, j0), p.v_half.sr, rows, lay.ldo, tile);
}

void Plan::pack_half() {
  ldv = lay.ldo;
  if (!shared_panels) return;
  panels.resize(heads * panel_keys * words);
  values.resize(heads * panel_keys / 2 * ldv);
  const int64_t tiles = panel_keys / tile;
  share<Nothing>(heads * tiles, [&](int64_t t, Nothing&) {
    const int64_t b = t / tiles / p.Hkv, g = t / tiles % p.Hkv, j0 = t % tiles * tile;
    pack_half_tile(b, g, j0, const_cast<float*>(half_keys(b, g, j0)), const_cast<float*>(half_values(b, g, j0)));
  });
}

void Plan::pack() {
  const bool ready = p.Dv % VL == 0 && (blocks == 1 || p.v.sr == p.Dv);
  ldv = ready ? p.v.sr : lay.ldo;
  if (shared_panels) panels.resize(heads * panel_keys * p.D);
  if (!ready) values.resize(heads * p.Nk * ldv);
  if (!shared_panels && ready) return;
  const int64_t step = 1024, chunks = (p.Nk + step - 1) / step;
  share<Nothing>(heads * chunks, [&](int64_t t, Nothing&) {
    const int64_t b = t / chunks / p.Hkv, g = t / chunks % p.Hkv, j0 = t % chunks * step, n = std::min(step, p.Nk - j0);
    if (shared_panels) pack_panels(n, p.D, p.k.at(b, g, j0), p.k.sr, const_cast<float*>(key_panels(b, g, j0)));
    if (ready) return;
    for (int64_t j = j0; j < j0 + n; j++) {
      float* to = const_cast<float*>(value_rows(b, g, j));
      std::memcpy(to, p.v.at(b, g, j), sizeof(float) * p.Dv);
      std::fill(to + p.Dv, to + ldv, 0.0f);
    }
  });
}

// Factors of the edit on the weights of one row, after the statistics were taken.
void reweigh(const Problem& p, const Rows& rows, int r, int64_t j0, int64_t n, float* s) {
  const float* f = p.edit.factors.at(rows.b, rows.h[r], rows.i[r]);
  const uint8_t* set = p.edit.set_of_key.at(rows.b, rows.h[r], 0) + j0;
  for (int64_t c = 0; c < n; c++) s[c] *= f[set[c]];
}

// Sums over the weights of one row that only some calls ask for.
void extra_sums(const Plan& plan, const Rows& rows, int r, int64_t j0, int64_t n, const float* s, float* x) {
  const CollectData& c = plan.c;
  for (int64_t m = 0; m < c.n_match; m++) {
    const int32_t id = c.match_rows.at(rows.b, m, 0)[rows.i[r]];
    if (id < 0) continue;
    const int32_t* ids = c.match_keys.at(rows.b, m, 0) + j0;
    vf sum{};
    for (int64_t e = 0; e < n; e += VL) sum += loadi(ids + e) == id ? load(s + e) : vf{};
    x[plan.lay.match + m] += hsum(sum);
  }
  const int64_t pos = rows.pos[r];
  for (int64_t w = 0; w < c.n_windows; w++) {
    const int64_t from = std::max<int64_t>(0, pos - c.window_sizes[w] + 1 - j0), to = std::min(n, pos + 1 - j0);
    if (from < to) x[plan.lay.windows + w] += range_sum(s, from, to);
  }
  for (int64_t o = 0; o < c.n_offsets; o++) {
    const int64_t e = pos - c.offset_values[o] - j0;
    if (e >= 0 && e < n) x[plan.lay.offsets + o] += s[e];
  }
}

// Final logits of one group of rows and n keys to weights (the edit's factors included), in place; every statistic of them into the state.
void absorb(const Plan& plan, const Rows& rows, const Group& g, int64_t j0, int64_t n, bool part, State& state, float* s) {
  const Problem& p = plan.p;
  const CollectData& c = plan.c;
  const Layout& lay = plan.lay;
  const int64_t padded = round_up(n, VL);
  const Weigh weigh = part ? weigh_for<true>(lay.wish) : weigh_for<false>(lay.wish);
  const Weigh weigh_both = part ? weigh_for<true>(lay.wish | REST) : weigh_for<false>(lay.wish | REST);
  const int32_t* others = lay.rest ? c.others.at(rows.b, 0, 0) + j0 : nullptr;
  const bool extras = c.n_match || c.n_windows || c.n_offsets;
  for (int e = 0; e < g.n; e++) {
    const int r = g.first + e;
    float *row = s + e * TILE, *x = &state.sum[r * lay.width];
    const float m = std::max(state.max[r], row_max(row, padded));
    if (m == -INF) {
      std::fill(row, row + padded, 0.0f);
      continue;
    }
    if (lay.topk && c.topk_slot[rows.i[r]] >= 0) scan_top(lay.topk, row, padded, j0, &state.top[r * lay.topk], &state.top_key[r * lay.topk]);
    float& rest = state.rest_max[r];
    const float top = lay.rest ? rest_top(row, padded, others) : -INF;
    if (top > rest) {
      raise_rest(rest, top, x);
      rest = top;
    }
    const bool near = top != -INF && m - rest <= REST_NEAR;
    if (top != -INF && !near) weigh_rest(row, padded, others, rest, x);
    raise(lay, state.max[r], m, x, &state.out[r * lay.ldo]);
    state.max[r] = m;
    (near ? weigh_both : weigh)(row, padded, m, static_cast<float>(rows.pos[r] - j0), x, others, rest);
    if (extras) extra_sums(plan, rows, r, j0, padded, row, x);
  }
  for (int64_t k = 0; k < c.n_sets; k += 4) {
    const float* ind = c.indicators.at(rows.b, k, 0) + j0;
    float* x = &state.sum[g.first * lay.width + lay.sets + k];
    int e = 0;
    for (; e + 4 <= g.n; e += 4) set_masses<4>(s + e * TILE, TILE, padded, ind, c.indicators.sh, x + e * lay.width, lay.width);
    for (; e < g.n; e++) set_masses<1>(s + e * TILE, TILE, padded, ind, c.indicators.sh, x + e * lay.width, lay.width);
  }
  if (p.edit.factors)
    for (int e = 0; e < g.n; e++) reweigh(p, rows, g.first + e, j0, n, s + e * TILE);
}

// One group of rows against one tile of keys.
void step(const Plan& plan, const Rows& rows, const Group& g, const float* panels, int64_t j0, int64_t n, State& state, float* s) {
  n = std::min<int64_t>(n, g.hi_max - j0);
  if (n <= 0) return;
  const Layout& lay = plan.lay;
  const Cover seen = score_group(plan.p, rows, g, panels, j0, n, s, TILE);
  if (seen == Cover::none) return;
  absorb(plan, rows, g, j0, n, seen == Cover::part, state, s);
  gemm(g.n, lay.ldo, n, s, TILE, plan.value_rows(rows.b, rows.hkv, j0), plan.ldv, NR, &state.out[g.first * lay.ldo], lay.ldo, true);
}

// In bfloat16: the groups of up to SPAN rows from `first` on together, so that a matrix unit has enough rows. Logits, sums and statistics are
// float32; the weights are rounded to bfloat16 for their product with v alone. The denominator sums unrounded weights, as torch's fused
// attention does: lse and every statistic carry no rounding of the weights, and out errs by at most 2^-9 times the mean of |v|.
void step_half(const Plan& plan, Scratch& w, int first, const float* keys, const float* values, int64_t j0, int64_t n) {
  const Problem& p = plan.p;
  const Rows& rows = w.rows;
  const int64_t ldo = plan.lay.ldo;
  const int m = std::min(SPAN, rows.n - first), from = first / MR, groups = (m + MR - 1) / MR;
  Cover seen[SPAN / MR];
  int64_t wide[SPAN / MR], widest = 0;
  for (int c = 0; c < groups; c++) {
    const Group& g = rows.group[from + c];
    wide[c] = std::min<int64_t>(n, g.hi_max - j0);
    seen[c] = wide[c] > 0 ? cover(p, rows, g, j0, wide[c]) : Cover::none;
    if (seen[c] != Cover::none) widest = std::max(widest, wide[c]);
  }
  if (widest == 0) return;
  // Few widths: each makes a kernel of its own.
  const int64_t cols = std::min(plan.tile, round_up(widest, 64));
  half_product(m, cols, 2 * plan.words, &rows.q_half[first * rows.ldq], rows.ldq, keys, plan.tile, w.s.data(), TILE, false);
  w.holds_tiles = true;
  for (int c = 0; c < groups; c++) {
    const Group& g = rows.group[from + c];
    float* s = &w.s[c * MR * TILE];
    uint16_t* weights = &w.weights[c * MR * TILE];
    const int64_t padded = seen[c] == Cover::none ? 0 : round_up(wide[c], VL);
    if (padded) {
      const bool part = seen[c] == Cover::part || padded != wide[c];
      for (int e = 0; e < g.n; e++)
        for (int64_t x = 0; x < padded; x += VL) store(s + e * TILE + x, load(s + e * TILE + x) * rows.folded[g.first + e]);
      finish_scores(p, rows, g, j0, wide[c], part, s, TILE);
      absorb(plan, rows, g, j0, wide[c], part, w.state, s);
    }
    for (int e = 0; e < g.n; e++) {
      to_half(s + e * TILE, padded, weights + e * TILE);
      std::fill(weights + e * TILE + padded, weights + e * TILE + cols, uint16_t{0});
    }
  }
  half_product(m, ldo, cols, w.weights.data(), TILE, values, ldo, &w.state.out[first * ldo], ldo, true);
}

void step_tile(const Plan& plan, Scratch& w, int64_t j0, int64_t n) {
  const Problem& p = plan.p;
  const Rows& rows = w.rows;
  if (p.half()) {
    const float *keys = w.panels.data(), *values = w.values.data();
    if (plan.shared_panels) keys = plan.half_keys(rows.b, rows.hkv, j0), values = plan.half_values(rows.b, rows.hkv, j0);
    else plan.pack_half_tile(rows.b, rows.hkv, j0, w.panels.data(), w.values.data());
    for (int first = 0; first < rows.n; first += SPAN) step_half(plan, w, first, keys, values, j0, n);
    return;
  }
  const float* panels = plan.shared_panels ? plan.key_panels(rows.b, rows.hkv, j0) : w.panels.data();
  if (!plan.shared_panels) pack_panels(n, p.D, p.k.at(rows.b, rows.hkv, j0), p.k.sr, w.panels.data());
  for (int g = 0; g < rows.groups; g++) step(plan, rows, rows.group[g], panels, j0, n, w.state, w.s.data());
}

void sweep(const Plan& plan, Scratch& w, int64_t from, int64_t to) {
  const Problem& p = plan.p;
  w.s.resize((p.half() ? SPAN : MR) * TILE);
  if (p.half()) w.weights.resize(SPAN * TILE);
  if (!plan.shared_panels) {
    w.panels.resize(TILE * (p.half() ? plan.words : p.D));
    if (p.half()) w.values.resize(TILE / 2 * plan.lay.ldo);
  }
  const int32_t sinks = *std::max_element(w.rows.sink, w.rows.sink + w.rows.n);
  const int64_t lowest = *std::min_element(w.rows.lo, w.rows.lo + w.rows.n);
  to = std::min<int64_t>(to, w.rows.last_key());
  int64_t j0 = std::max<int64_t>(from, w.rows.first_key() / plan.align * plan.align);
  while (j0 < to) {
    // The gap between the sinks and the windows of all rows is jumped over.
    if (j0 >= sinks && j0 + plan.align <= lowest) j0 = std::max(j0, lowest / plan.align * plan.align);
    if (j0 >= to) break;
    const int64_t n = std::min(plan.tile, to - j0);
    step_tile(plan, w, j0, n);
    j0 += n;
  }
}

// Divides by the denominator (a learned sink logit included) and writes the results of one row block.
void finish(const Plan& plan, const Rows& rows, State& state, float* out, float* lse, float* lse_low) {
  const Problem& p = plan.p;
  const CollectData& c = plan.c;
  const Layout& lay = plan.lay;
  for (int r = 0; r < rows.n; r++) {
    const int64_t at = (rows.b * p.H + rows.h[r]) * p.Nq + rows.i[r];
    float *x = &state.sum[r * lay.width], *o = &state.out[r * lay.ldo];
    const float top = state.max[r];
    float m = top, sink_weight = 0, sink_s1 = 0;
    if (c.moments) {
      c.moments[2 * at] = x[M1];
      c.moments[2 * at + 1] = x[M2];
    }
    if (p.sink_logits) {
      const float sink = *p.sink_logits.at(0, rows.h[r], 0);
      m = std::max(top, sink);
      raise(lay, top, m, x, o);
      sink_weight = std::exp(sink - m);
      sink_s1 = sink_weight > 0 ? sink_weight * (sink - m) : 0.0f;
    }
    // Zero only where nothing is visible and there is no sink logit; then every sum is 0 too.
    const float l = x[L] + sink_weight, inv = l > 0 ? 1.0f / l : 0.0f;
    const double exact = l > 0 ? m + std::log(static_cast<double>(l)) : -INF;
    lse[at] = static_cast<float>(exact);
    lse_low[at] = l > 0 ? static_cast<float>(exact - lse[at]) : 0.0f;
    if (c.entropy) c.entropy[at] = l > 0 ? std::max(0.0f, std::log(l) - (x[S1] + sink_s1) * inv) : 0.0f;
    if (c.row_max) c.row_max[at] = top;
    if (c.sink_mass) c.sink_mass[at] = sink_weight * inv;
    if (c.prob_square) c.prob_square[at] = x[SQ] * inv * inv;
    if (c.distance) c.distance[at] = x[DIST] * inv;
    for (int64_t k = 0; k < c.n_sets; k++) c.sets[at * c.n_sets + k] = x[lay.sets + k] * inv;
    for (int64_t k = 0; k < c.n_match; k++) c.match[at * c.n_match + k] = x[lay.match + k] * inv;
    for (int64_t k = 0; k < c.n_windows; k++) c.windows[at * c.n_windows + k] = x[lay.windows + k] * inv;
    for (int64_t k = 0; k < c.n_offsets; k++) c.offsets[at * c.n_offsets + k] = x[lay.offsets + k] * inv;
    if (lay.rest) {
      const float rl = x[REST_L];
      if (c.rest_mass) c.rest_mass[at] = rl > 0 ? std::exp(state.rest_max[r] - m) * rl * inv : 0.0f;
      if (c.rest_entropy) c.rest_entropy[at] = rl > 0 ? std::max(0.0f, std::log(rl) - x[REST_S1] / rl) : 0.0f;
    }
    if (lay.topk && c.topk_slot[rows.i[r]] >= 0) {
      const int64_t to = ((rows.b * p.H + rows.h[r]) * c.topk_rows + c.topk_slot[rows.i[r]]) * lay.topk;
      for (int64_t k = 0; k < lay.topk; k++) {
        c.topk_index[to + k] = state.top_key[r * lay.topk + k];
        c.topk_prob[to + k] = state.top_key[r * lay.topk + k] < 0 ? 0.0f : std::exp(state.top[r * lay.topk + k] - m) * inv;
      }
    }
    const float gate = p.edit.gate ? *p.edit.gate.at(rows.b, rows.h[r], rows.i[r]) : 1.0f;
    for (int64_t d = 0; d < p.Dv; d++) out[at * p.Dv + d] = o[d] * inv * gate;
  }
}

// Rows in the order (row number, head of the group): neighbours see nearly the same keys and share them.
void place(const Plan& plan, int64_t block, int64_t head, Rows& rows) {
  const Problem& p = plan.p;
  rows.b = head / p.Hkv;
  rows.hkv = head % p.Hkv;
  rows.n = static_cast<int>(std::min<int64_t>(MAX_ROWS, plan.flat - block * MAX_ROWS));
  for (int r = 0; r < rows.n; r++) {
    const int64_t f = block * MAX_ROWS + r;
    rows.i[r] = static_cast<int32_t>(f / p.G);
    rows.h[r] = static_cast<int32_t>(rows.hkv * p.G + f % p.G);
  }
  rows.load(p);
}

}  // namespace

void attention_forward(const Problem& p, const CollectData& collect, float* out, float* lse, float* lse_low) {
  Plan plan(p, collect);
  const int64_t tasks = plan.blocks * plan.heads;
  auto block_of = [&](int64_t t) { return plan.blocks - 1 - t / plan.heads; };  // causal: the longest first
  if (plan.splits == 1) {
    share<Scratch>(tasks, [&](int64_t t, Scratch& w) {
      place(plan, block_of(t), t % plan.heads, w.rows);
      w.state.reset(w.rows.n, plan.lay);
      sweep(plan, w, 0, p.Nk);
      finish(plan, w.rows, w.state, out, lse, lse_low);
    });
    return;
  }
  const int64_t part = round_up((p.Nk + plan.splits - 1) / plan.splits, plan.align);
  std::vector<State> states(tasks * plan.splits);
  share<Scratch>(tasks * plan.splits, [&](int64_t t, Scratch& w) {
    const int64_t task = t / plan.splits, split = t % plan.splits;
    place(plan, block_of(task), task % plan.heads, w.rows);
    w.state.reset(w.rows.n, plan.lay);
    if (split * part < p.Nk) sweep(plan, w, split * part, std::min(p.Nk, (split + 1) * part));
    std::swap(states[t], w.state);
  });
  // Not shared: this is little work, and another meeting of the threads costs a decode step more than it saves.
  Scratch w;
  for (int64_t task = 0; task < tasks; task++) {
    place(plan, block_of(task), task % plan.heads, w.rows);
    State& whole = states[task * plan.splits];
    for (int64_t k = 1; k < plan.splits; k++) merge(plan.lay, w.rows.n, whole, states[task * plan.splits + k]);
    finish(plan, w.rows, whole, out, lse, lse_low);
  }
}

}  // namespace ik
