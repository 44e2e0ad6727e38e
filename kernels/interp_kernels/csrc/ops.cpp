// The operators torch.ops.interp_kernels_cpu.*: schemas, allocation of results, and the calls of the kernels.
#include <ATen/Functions.h>
#include <torch/library.h>

#include "bind.h"
#include "half.h"
#include "kernels.h"

namespace ik {
namespace {

using at::Tensor;
using Maybe = std::optional<Tensor>;
using Attended = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// Bits of `wish`, as in flatten.py.
enum { WANT_ENTROPY = 1, WANT_MAX = 2, WANT_MOMENTS = 4, WANT_SQUARE = 8, WANT_DISTANCE = 16 };

Attended attention(const Tensor& q, const Tensor& k, const Tensor& v, double scale, double softcap, const Maybe& sink_logits, const MaybeTensors& mask,
                   at::IntArrayRef mask_ints, const MaybeTensors& edit, const MaybeTensors& collect, int64_t wish, int64_t sets, int64_t topk,
                   int64_t topk_rows, at::IntArrayRef windows, at::IntArrayRef offsets) {
  Problem p = problem(q, k, scale, softcap, mask, mask_ints, edit, /*may_be_half=*/true);
  set_values(p, v);
  p.sink_logits = by_head<float>(sink_logits);
  TORCH_CHECK(collect.size() == 5, "interp_kernels_cpu: wrong number of slots");
  CollectData c;
  auto floats = q.options().dtype(at::kFloat).requires_grad(false);
  auto absent = [&] { return at::empty({0}, floats); };
  auto wanted = [&](bool ask, float*& to, int64_t last) {
    if (!ask) return absent();
    Tensor t = last < 0 ? at::empty({p.B, p.H, p.Nq}, floats) : at::empty({p.B, p.H, p.Nq, last}, floats);
    to = t.data_ptr<float>();
    return t;
  };
  Tensor out = at::empty({p.B, p.H, p.Nq, p.Dv}, floats), lse = at::empty({p.B, p.H, p.Nq}, floats), lse_low = at::empty({p.B, p.H, p.Nq}, floats);
  Tensor entropy = wanted(wish & WANT_ENTROPY, c.entropy, -1), row_max = wanted(wish & WANT_MAX, c.row_max, -1);
  Tensor moments = wanted(wish & WANT_MOMENTS, c.moments, 2), square = wanted(wish & WANT_SQUARE, c.prob_square, -1);
  Tensor distance = wanted(wish & WANT_DISTANCE, c.distance, -1);
  const Maybe indicators = collect[0], others = collect[1], match_rows = collect[2], match_keys = collect[3], slots = collect[4];
  c.n_sets = sets;
  c.n_match = match_rows ? match_rows->size(1) : 0;
  c.n_windows = windows.size(), c.n_offsets = offsets.size();
  c.window_sizes = windows.data(), c.offset_values = offsets.data();
  Tensor masses = wanted(sets > 0, c.sets, sets);
  Tensor rest_mass = wanted(others.has_value(), c.rest_mass, -1), rest_entropy = wanted(others.has_value(), c.rest_entropy, -1);
  Tensor match = wanted(c.n_match > 0, c.match, c.n_match);
  Tensor in_windows = wanted(c.n_windows > 0, c.windows, c.n_windows), at_offsets = wanted(c.n_offsets > 0, c.offsets, c.n_offsets);
  Tensor sink_mass = wanted(sink_logits.has_value(), c.sink_mass, -1);
  if (indicators) c.indicators = view<float>(*indicators), c.indicators.sh = indicators->stride(1);
  c.others = rows_by_batch<int32_t>(others);
  if (match_rows) {
    c.match_rows = view<int32_t>(*match_rows), c.match_keys = view<int32_t>(*match_keys);
    c.match_rows.sr = c.match_keys.sr = 0;
  }
  Tensor top_index = at::empty({0}, floats.dtype(at::kLong)), top_prob = absent();
  if (topk > 0) {
    c.topk = topk, c.topk_rows = topk_rows, c.topk_slot = data<int64_t>(*slots);
    top_index = at::empty({p.B, p.H, topk_rows, topk}, floats.dtype(at::kLong));
    top_prob = at::empty({p.B, p.H, topk_rows, topk}, floats);
    c.topk_index = top_index.data_ptr<int64_t>(), c.topk_prob = top_prob.data_ptr<float>();
  }
  attention_forward(p, c, out.data_ptr<float>(), lse.data_ptr<float>(), lse_low.data_ptr<float>());
  return {out, lse, lse_low, entropy, row_max, moments, square, distance, masses, rest_mass, rest_entropy, match, in_windows, at_offsets, top_index, top_prob, sink_mass};
}

const float* log_sums(const Problem& p, const Tensor& lse) {
  TORCH_CHECK(lse.scalar_type() == at::kFloat && lse.is_contiguous() && lse.numel() == p.B * p.H * p.Nq, "interp_kernels_cpu: wanted contiguous float32 lse");
  return data<float>(lse);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> columns(const Tensor& q, const Tensor& k, double scale, double softcap, const MaybeTensors& mask,
                                                                   at::IntArrayRef mask_ints, const MaybeTensors& edit, const Tensor& lse, const Tensor& rows,
                                                                   int64_t subsets, bool received, bool diagonals, int64_t block, bool histogram) {
  Problem p = problem(q, k, scale, softcap, mask, mask_ints, edit);
  ColumnsData c;
  c.lse = log_sums(p, lse);
  c.rows = rows_by_batch<uint8_t>(rows);
  c.subsets = subsets, c.block = block, c.histogram = histogram;
  auto floats = q.options().requires_grad(false);
  auto absent = [&] { return at::empty({0}, floats); };
  Tensor got = received ? at::empty({p.B, p.H, subsets, p.Nk}, floats) : absent();
  Tensor diagonal = diagonals ? at::empty({p.B, p.H, subsets, p.Nq + p.Nk - 1}, floats) : absent();
  Tensor sum = absent(), top = absent(), count = at::empty({0}, floats.dtype(at::kLong)), mass = absent();
  if (received) c.received = got.data_ptr<float>();
  if (diagonals) c.diagonals = diagonal.data_ptr<float>();
  if (block > 0) {
    sum = at::zeros({p.B, p.H, (p.Nq + block - 1) / block, (p.Nk + block - 1) / block}, floats);
    top = at::zeros_like(sum);
    c.block_sum = sum.data_ptr<float>(), c.block_max = top.data_ptr<float>();
  }
  if (histogram) {
    count = at::empty({p.B, p.H, subsets, 32}, floats.dtype(at::kLong));
    mass = at::empty({p.B, p.H, subsets, 32}, floats);
    c.histogram_count = count.data_ptr<int64_t>(), c.histogram_mass = mass.data_ptr<float>();
  }
  column_sums(p, c);
  return {got, diagonal, sum, top, count, mass};
}

Tensor entries(const Tensor& q, const Tensor& k, double scale, double softcap, const MaybeTensors& mask, at::IntArrayRef mask_ints, const MaybeTensors& edit,
               const Tensor& lse, const Tensor& i, const Tensor& j) {
  Problem p = problem(q, k, scale, softcap, mask, mask_ints, edit);
  Tensor out = at::empty({p.B, p.H, i.size(0)}, q.options().requires_grad(false));
  single_entries(p, log_sums(p, lse), data<int64_t>(i), data<int64_t>(j), i.size(0), out.data_ptr<float>());
  return out;
}

Tensor tile(const Tensor& q, const Tensor& k, double scale, double softcap, const MaybeTensors& mask, at::IntArrayRef mask_ints, const MaybeTensors& edit,
            const Tensor& lse, const Tensor& row_edges, const Tensor& col_edges, bool largest) {
  Problem p = problem(q, k, scale, softcap, mask, mask_ints, edit);
  TileData t{data<int64_t>(row_edges), data<int64_t>(col_edges), row_edges.size(0) - 1, col_edges.size(0) - 1, largest};
  Tensor out = at::empty({p.B, p.H, t.height, t.width}, q.options().requires_grad(false));
  pooled_tile(p, log_sums(p, lse), t, out.data_ptr<float>());
  return out;
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& q, const Tensor& k, double scale, double softcap, const MaybeTensors& mask, at::IntArrayRef mask_ints,
                                            const MaybeTensors& edit, const Tensor& v, const Tensor& lse, const Tensor& lse_low, const Tensor& grad_out, const Tensor& base,
                                            const Maybe& grad_entropy) {
  Problem p = problem(q, k, scale, softcap, mask, mask_ints, edit);
  set_values(p, v);
  TORCH_CHECK(grad_out.scalar_type() == at::kFloat && grad_out.is_contiguous(), "interp_kernels_cpu: wanted contiguous float32 grad_out");
  auto floats = q.options().requires_grad(false);
  Tensor dq = at::empty(q.sizes(), floats), dk = at::empty(k.sizes(), floats), dv = at::empty(v.sizes(), floats);
  BackwardData d;
  d.grad_out = whole<float>(grad_out);
  d.lse = log_sums(p, lse), d.lse_low = log_sums(p, lse_low), d.base = log_sums(p, base);
  if (grad_entropy) d.grad_entropy = log_sums(p, *grad_entropy);
  d.grad_q = dq.data_ptr<float>(), d.grad_k = dk.data_ptr<float>(), d.grad_v = dv.data_ptr<float>();
  attention_backward(p, d);
  return {dq, dk, dv};
}

}  // namespace
}  // namespace ik

// What makes logits of q and k: the same leading arguments in every operator.
#define IK_PROBLEM "Tensor q, Tensor k, float scale, float softcap, Tensor?[] mask, int[] mask_ints, Tensor?[] edit, "

TORCH_LIBRARY(interp_kernels_cpu, m) {
  m.def(
      "attention(Tensor q, Tensor k, Tensor v, float scale, float softcap, Tensor? sink_logits, Tensor?[] mask, int[] mask_ints, Tensor?[] edit, "
      "Tensor?[] collect, int wish, int sets, int topk, int topk_rows, int[] windows, int[] offsets) -> (Tensor out, Tensor lse, Tensor lse_low, Tensor entropy, "
      "Tensor row_max, Tensor logit_moments, Tensor prob_square, Tensor distance, Tensor key_sets, Tensor rest_mass, Tensor rest_entropy, "
      "Tensor match, Tensor windows_mass, Tensor offsets_prob, Tensor topk_index, Tensor topk_prob, Tensor sink_mass)");
  m.def("half_support() -> int", [] { return static_cast<int64_t>(ik::half_support()); });
  m.def("columns(" IK_PROBLEM "Tensor lse, Tensor rows, int subsets, bool received, bool diagonals, int block, bool histogram) -> "
        "(Tensor received, Tensor diagonals, Tensor block_sum, Tensor block_max, Tensor histogram_count, Tensor histogram_mass)");
  m.def("entries(" IK_PROBLEM "Tensor lse, Tensor i, Tensor j) -> Tensor");
  m.def("tile(" IK_PROBLEM "Tensor lse, Tensor row_edges, Tensor col_edges, bool largest) -> Tensor");
  m.def("attention_backward(" IK_PROBLEM "Tensor v, Tensor lse, Tensor lse_low, Tensor grad_out, Tensor base, Tensor? grad_entropy) -> "
        "(Tensor grad_q, Tensor grad_k, Tensor grad_v)");
}

TORCH_LIBRARY_IMPL(interp_kernels_cpu, CPU, m) {
  m.impl("attention", &ik::attention);
  m.impl("attention_backward", &ik::backward);
  m.impl("columns", &ik::columns);
  m.impl("entries", &ik::entries);
  m.impl("tile", &ik::tile);
}
