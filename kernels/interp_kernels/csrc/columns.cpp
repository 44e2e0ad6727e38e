// Key-major sweep: for a chunk of keys, all rows that may see it; every sum over rows stays with the thread that owns the chunk.
#include "kernels.h"
#include "tasks.h"
#include "weights.h"

namespace ik {
namespace {

constexpr int64_t TILE = 256;
constexpr int BINS = 32;
constexpr int64_t WANTED_PARTS = 32;  // tasks where a sum over all keys (diagonals, histogram) needs a buffer of its own for each

struct Plan {
  const Problem& p;
  const ColumnsData& c;
  int64_t chunk, chunks, parts, diagonals;
  std::vector<double> diagonal, mass;  // [B * H, parts, S, ...], of each part
  std::vector<int64_t> count;
};

struct Scratch {
  Rows rows;
  std::vector<float> panels, s, run, part, block_sum, block_max;
  std::vector<double> total;
};

int64_t chunk_of(const Problem& p, const ColumnsData& c) {
  const int64_t wide = p.Nk <= 2048 ? 256 : p.Nk <= 8192 ? 512 : 1024;
  if (c.block == 0) return wide;
  return c.block * std::max<int64_t>(1, wide / c.block);
}

// The rows that can see keys j0 .. j1 - 1 where that follows from one interval for all heads; else all rows.
void rows_in_reach(const Problem& p, int64_t j0, int64_t j1, int64_t& first, int64_t& last) {
  const MaskData& m = p.mask;
  first = 0, last = p.Nq;
  if (!m.prefix && (m.causal || m.window)) first = std::clamp<int64_t>(j0 - m.offset - (m.causal ? 0 : m.window - 1), 0, p.Nq);
  if (m.window && !m.head_windows) last = std::clamp<int64_t>(j1 + m.window - 1 - m.offset, first, p.Nq);
}

void add_histogram(const float* logits, const float* weights, int64_t n, float lse, int32_t* count, float* mass) {
  for (int64_t c = 0; c < n; c++) {
    const float t = logits[c] - lse;
    if (!(t > -745.0f)) continue;  // hidden, or a weight that is 0 in float64 too
    const int bin = std::clamp(static_cast<int>(-t * LOG2E), 0, BINS - 1);
    count[bin]++;
    mass[bin] += weights[c];
  }
}

// One block of rows against one tile of keys of the chunk that starts at `chunk0`.
void step(Plan& plan, Scratch& w, int64_t bh, int64_t part, int64_t chunk0, int64_t j0, int64_t n) {
  const Problem& p = plan.p;
  const ColumnsData& c = plan.c;
  const int64_t padded = round_up(n, VL), width = w.part.size() / c.subsets, to = j0 - chunk0;
  const int64_t span = MAX_ROWS + TILE;
  int64_t current = -1;
  bool any = false;
  auto flush = [&] {
    if (current < 0) return;
    const int64_t across = (p.Nk + c.block - 1) / c.block, down = (p.Nq + c.block - 1) / c.block;
    for (int64_t e = 0; e < n;) {
      const int64_t x = (j0 + e) / c.block, stop = std::min(n, (x + 1) * c.block - j0), at = (bh * down + current) * across + x;
      c.block_sum[at] += range_sum(w.block_sum.data(), e, stop);
      c.block_max[at] = std::max(c.block_max[at], range_max(w.block_max.data(), e, stop));
      e = stop;
    }
    current = -1;
  };
  if (c.diagonals) std::fill(w.run.begin(), w.run.end(), 0.0f);
  for (int g = 0; g < w.rows.groups; g++) {
    const Group& group = w.rows.group[g];
    const Cover seen = score_group(p, w.rows, group, w.panels.data() + to * p.D, j0, n, w.s.data(), TILE);
    if (seen == Cover::none) continue;
    any = true;
    for (int e = 0; e < group.n; e++) {
      const int r = group.first + e;
      const int64_t i = w.rows.i[r];
      const float lse = c.lse[bh * p.Nq + i];
      const uint8_t in = c.rows.at(w.rows.b, 0, 0)[i];
      float* row = w.s.data() + e * TILE;
      float* logits = w.s.data() + MR * TILE;
      if (c.histogram) std::copy(row, row + n, logits);
      to_weights(row, padded, lse, seen == Cover::part);
      if (c.block) {
        if (i / c.block != current) {
          flush();
          current = i / c.block;
          std::fill(w.block_sum.begin(), w.block_sum.end(), 0.0f);
          std::fill(w.block_max.begin(), w.block_max.end(), 0.0f);
        }
        for (int64_t x = 0; x < padded; x += VL) {
          vf y = load(row + x);
          store(&w.block_sum[x], load(&w.block_sum[x]) + y);
          store(&w.block_max[x], vmax(load(&w.block_max[x]), y));
        }
      }
      if (c.histogram && in && lse != -INF) {
        int32_t count[BINS] = {};
        float mass[BINS] = {};
        add_histogram(logits, row, n, lse, count, mass);
        for (int64_t s = 0; s < c.subsets; s++) {
          if (!(in >> s & 1)) continue;
          const int64_t at = ((bh * plan.parts + part) * c.subsets + s) * BINS;
          for (int b = 0; b < BINS; b++) plan.count[at + b] += count[b], plan.mass[at + b] += mass[b];
        }
      }
      for (int64_t s = 0; s < c.subsets; s++) {
        if (!(in >> s & 1)) continue;
        if (c.received) {
          float* sum = &w.part[s * width + to];
          for (int64_t x = 0; x < padded; x += VL) store(sum + x, load(sum + x) + load(row + x));
        }
        if (c.diagonals) {
          float* sum = &w.run[s * span + MAX_ROWS - 1 - r];
          for (int64_t x = 0; x < padded; x += VL) store(sum + x, load(sum + x) + load(row + x));
        }
      }
    }
  }
  if (c.block) flush();
  if (!c.diagonals || !any) return;
  // run[e] holds the sums with j - i = j0 - i0 + e - (MAX_ROWS - 1); results are indexed by i - j + Nk - 1.
  const int64_t top = w.rows.i[0] - j0 + MAX_ROWS - 1 + p.Nk - 1;
  for (int64_t s = 0; s < c.subsets; s++) {
    double* out = &plan.diagonal[((bh * plan.parts + part) * c.subsets + s) * plan.diagonals];
    for (int64_t e = MAX_ROWS - w.rows.n; e < MAX_ROWS - 1 + n; e++) out[top - e] += w.run[s * span + e];
  }
}

void sweep(Plan& plan, Scratch& w, int64_t bh, int64_t part, int64_t chunk) {
  const Problem& p = plan.p;
  const ColumnsData& c = plan.c;
  const int64_t j0 = chunk * plan.chunk, n = std::min(plan.chunk, p.Nk - j0), width = round_up(plan.chunk, NR);
  const int64_t b = bh / p.H, h = bh % p.H;
  w.panels.resize(width * p.D);
  w.s.resize((MR + 1) * TILE);
  w.run.resize(c.subsets * (MAX_ROWS + TILE));
  w.block_sum.resize(TILE), w.block_max.resize(TILE);
  w.part.resize(c.subsets * width);
  w.total.assign(c.subsets * width, 0.0);
  pack_panels(n, p.D, p.k.at(b, h / p.G, j0), p.k.sr, w.panels.data());
  int64_t first, last;
  rows_in_reach(p, j0, j0 + n, first, last);
  for (int64_t i = first; i < last; i += MAX_ROWS) {
    rows_of_head(p, b, h, i, std::min<int64_t>(MAX_ROWS, last - i), w.rows);
    std::fill(w.part.begin(), w.part.end(), 0.0f);
    for (int64_t at = 0; at < n; at += TILE) step(plan, w, bh, part, j0, j0 + at, std::min(TILE, n - at));
    if (c.received)
      for (int64_t e = 0; e < c.subsets * width; e++) w.total[e] += w.part[e];
  }
  if (!c.received) return;
  for (int64_t s = 0; s < c.subsets; s++)
    for (int64_t e = 0; e < n; e++) c.received[(bh * c.subsets + s) * p.Nk + j0 + e] = static_cast<float>(w.total[s * width + e]);
}

}  // namespace

void column_sums(const Problem& p, const ColumnsData& c) {
  Plan plan{p, c, chunk_of(p, c), 0, 0, p.Nq + p.Nk - 1, {}, {}, {}};
  const int64_t heads = p.B * p.H;
  plan.chunks = (p.Nk + plan.chunk - 1) / plan.chunk;
  const bool whole = c.diagonals || c.histogram;
  plan.parts = whole ? std::min(plan.chunks, std::max<int64_t>(1, WANTED_PARTS / heads)) : plan.chunks;
  if (c.diagonals) plan.diagonal.assign(heads * plan.parts * c.subsets * plan.diagonals, 0.0);
  if (c.histogram) {
    plan.mass.assign(heads * plan.parts * c.subsets * BINS, 0.0);
    plan.count.assign(plan.mass.size(), 0);
  }
  // Causal: the first chunks of keys are seen by the most rows, so they go first; a part takes every parts-th chunk.
  share<Scratch>(heads * plan.parts, [&](int64_t t, Scratch& w) {
    for (int64_t chunk = t / heads; chunk < plan.chunks; chunk += plan.parts) sweep(plan, w, t % heads, t / heads, chunk);
  });
  auto fold = [&](const auto& parts, int64_t size, auto* out) {
    for (int64_t x = 0; x < heads; x++)
      for (int64_t e = 0; e < c.subsets * size; e++) {
        auto sum = parts[x * plan.parts * c.subsets * size + e];
        for (int64_t k = 1; k < plan.parts; k++) sum += parts[(x * plan.parts + k) * c.subsets * size + e];
        out[x * c.subsets * size + e] = static_cast<std::remove_reference_t<decltype(*out)>>(sum);
      }
  };
  if (c.diagonals) fold(plan.diagonal, plan.diagonals, c.diagonals);
  if (c.histogram) fold(plan.count, BINS, c.histogram_count), fold(plan.mass, BINS, c.histogram_mass);
}

}  // namespace ik
