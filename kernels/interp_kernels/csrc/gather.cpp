// Single entries and pooled rectangles of the attention map, from q, k and lse.
#include "kernels.h"
#include "tasks.h"
#include "weights.h"

namespace ik {
namespace {

constexpr int64_t TILE = 256;
constexpr int64_t RUN = 256;  // entries of one task

struct Scratch {
  Rows rows;
  std::vector<float> panels, s, sum;
  std::vector<double> pixels;
};

// The final logit of one pair in double: scattered pairs are few, and a logit of some hundreds loses digits in float32.
double exact_logit(const Problem& p, const Rows& rows, int64_t j) {
  const MaskData& m = p.mask;
  const int64_t b = rows.b, h = rows.h[0], i = rows.i[0];
  const float *q = p.q.at(b, h, i), *k = p.k.at(b, rows.hkv, j);
  double s = 0;
  for (int64_t d = 0; d < p.D; d++) s += static_cast<double>(q[d]) * k[d];
  s *= p.scale;
  if (p.softcap != 0) s = p.softcap * std::tanh(s / p.softcap);
  if (m.alibi) s -= static_cast<double>(*m.alibi.at(0, h, 0)) * std::abs(static_cast<double>(rows.pos[0] - j));
  if (m.bias) s += m.bias.at(b, h, i)[j];
  if (s == -INF) return s;
  if (p.edit.logit_scale) s *= *p.edit.logit_scale.at(b, h, i);
  if (p.edit.key_bias) s += p.edit.key_bias.at(b, h, 0)[j];
  return s;
}

}  // namespace

void single_entries(const Problem& p, const float* lse, const int64_t* i, const int64_t* j, int64_t entries, float* out) {
  const int64_t runs = (entries + RUN - 1) / RUN;
  share<Scratch>(p.B * p.H * runs, [&](int64_t t, Scratch& w) {
    const int64_t bh = t / runs, b = bh / p.H, h = bh % p.H;
    for (int64_t e = t % runs * RUN; e < std::min(entries, (t % runs + 1) * RUN); e++) {
      rows_of_head(p, b, h, i[e], 1, w.rows);
      float seen[VL] = {};
      mask_row(p, w.rows, 0, j[e], VL, 1, seen);
      const double s = seen[0] == -INF ? -INF : exact_logit(p, w.rows, j[e]);
      const float top = lse[bh * p.Nq + i[e]];
      out[bh * entries + e] = s == -INF || top == -INF ? 0.0f : static_cast<float>(std::exp(s - top));
    }
  });
}

void pooled_tile(const Problem& p, const float* lse, const TileData& tile, float* out) {
  const int64_t per = std::max<int64_t>(1, MAX_ROWS * tile.height / (tile.row_edges[tile.height] - tile.row_edges[0]));
  const int64_t strips = (tile.height + per - 1) / per;
  const int64_t left = tile.col_edges[0], right = tile.col_edges[tile.width];
  share<Scratch>(p.B * p.H * strips, [&](int64_t t, Scratch& w) {
    const int64_t bh = t / strips, b = bh / p.H, h = bh % p.H;
    const int64_t y0 = t % strips * per, y1 = std::min(tile.height, y0 + per);
    w.pixels.assign((y1 - y0) * tile.width, 0.0);
    w.panels.resize(TILE * p.D);
    w.s.resize(MR * TILE);
    for (int64_t i = tile.row_edges[y0]; i < tile.row_edges[y1]; i += MAX_ROWS) {
      rows_of_head(p, b, h, i, std::min<int64_t>(MAX_ROWS, tile.row_edges[y1] - i), w.rows);
      int64_t x0 = 0;
      for (int64_t j0 = left; j0 < right; j0 += TILE) {
        const int64_t n = std::min(TILE, right - j0), padded = round_up(n, VL);
        while (tile.col_edges[x0 + 1] <= j0) x0++;
        bool packed = false;
        int64_t y = y0;
        w.sum.assign(TILE, 0.0f);
        bool any = false;
        auto flush = [&] {
          double* pixel = &w.pixels[(y - y0) * tile.width];
          for (int64_t x = x0; any && x < tile.width && tile.col_edges[x] < j0 + n; x++) {
            const int64_t from = std::max<int64_t>(0, tile.col_edges[x] - j0), to = std::min(n, tile.col_edges[x + 1] - j0);
            if (tile.largest) pixel[x] = std::max(pixel[x], static_cast<double>(range_max(w.sum.data(), from, to)));
            else pixel[x] += range_sum(w.sum.data(), from, to);
          }
          if (any) std::fill(w.sum.begin(), w.sum.end(), 0.0f);
          any = false;
        };
        for (int g = 0; g < w.rows.groups; g++) {
          const Group& group = w.rows.group[g];
          if (cover(p, w.rows, group, j0, n) == Cover::none) continue;
          if (!packed) pack_panels(n, p.D, p.k.at(b, h / p.G, j0), p.k.sr, w.panels.data());
          packed = true;
          const Cover seen = score_group(p, w.rows, group, w.panels.data(), j0, n, w.s.data(), TILE);
          for (int e = 0; e < group.n; e++) {
            const int64_t row = w.rows.i[group.first + e];
            if (row >= tile.row_edges[y + 1]) {
              flush();
              while (row >= tile.row_edges[y + 1]) y++;
            }
            float* s = w.s.data() + e * TILE;
            to_weights(s, padded, lse[bh * p.Nq + row], seen == Cover::part);
            any = true;
            for (int64_t c = 0; c < padded; c += VL) {
              vf old = load(&w.sum[c]), more = load(s + c);
              store(&w.sum[c], tile.largest ? vmax(old, more) : old + more);
            }
          }
        }
        flush();
      }
    }
    for (int64_t y = y0; y < y1; y++)
      for (int64_t x = 0; x < tile.width; x++) {
        const double cells = tile.largest ? 1.0 : static_cast<double>((tile.row_edges[y + 1] - tile.row_edges[y]) * (tile.col_edges[x + 1] - tile.col_edges[x]));
        out[(bh * tile.height + y) * tile.width + x] = static_cast<float>(w.pixels[(y - y0) * tile.width + x] / cells);
      }
  });
}

}  // namespace ik
