// From tensors to the plain structs of problem.h. The order of the slots is the contract with flatten.py.
#pragma once
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "problem.h"

namespace ik {

using MaybeTensors = c10::List<std::optional<at::Tensor>>;

template <typename T>
const T* data(const at::Tensor& x) {
  return x.const_data_ptr<T>();
}
template <>
inline const uint16_t* data<uint16_t>(const at::Tensor& x) {
  return static_cast<const uint16_t*>(x.const_data_ptr());
}
template <>
inline const uint8_t* data<uint8_t>(const at::Tensor& x) {
  return static_cast<const uint8_t*>(x.const_data_ptr());
}

// Stride of an axis that broadcasts from size 1.
inline int64_t step(const at::Tensor& x, int64_t axis) { return x.size(axis) == 1 ? 0 : x.stride(axis); }

// x[b, h, r, ...] with 2, 3 or 4 axes.
template <typename T>
View<T> view(const at::Tensor& x) {
  View<T> v;
  v.p = data<T>(x);
  v.sb = step(x, 0);
  v.sh = x.dim() > 1 ? step(x, 1) : 0;
  v.sr = x.dim() > 2 ? step(x, 2) : 0;
  return v;
}
// x[b] or x[h]: one number for each.
template <typename T>
View<T> by_batch(const std::optional<at::Tensor>& x) {
  View<T> v;
  if (x) v.p = data<T>(*x), v.sb = step(*x, 0);
  return v;
}
template <typename T>
View<T> by_head(const std::optional<at::Tensor>& x) {
  View<T> v;
  if (x) v.p = data<T>(*x), v.sh = step(*x, 0);
  return v;
}
// x[b, n]: a row of numbers for each batch item.
template <typename T>
View<T> rows_by_batch(const std::optional<at::Tensor>& x) {
  return by_batch<T>(x);
}
template <typename T>
View<T> maybe(const std::optional<at::Tensor>& x) {
  return x ? view<T>(*x) : View<T>();
}

inline void fill(MaskData& m, const MaybeTensors& t, at::IntArrayRef n) {
  m.causal = n[0] != 0;
  m.offset = n[1], m.window = n[2], m.block_rows = n[3], m.block_keys = n[4];
  m.left = by_batch<int64_t>(t[0]), m.right = by_batch<int64_t>(t[1]), m.prefix = by_batch<int64_t>(t[2]);
  m.head_sinks = by_head<int64_t>(t[3]), m.head_windows = by_head<int64_t>(t[4]);
  m.query_docs = rows_by_batch<int32_t>(t[5]), m.key_docs = rows_by_batch<int32_t>(t[6]);
  m.hide_rows = rows_by_batch<int32_t>(t[7]), m.hide_keys = rows_by_batch<int32_t>(t[8]), m.hide_heads = by_head<int32_t>(t[9]);
  m.keep = maybe<uint8_t>(t[10]);
  m.alibi = by_head<float>(t[11]);
  m.bias = maybe<float>(t[12]);
}

inline void fill(EditData& e, const MaybeTensors& t) {
  // [B, H, N] or [B, H, N, C]: an axis of rows of size 1 broadcasts; an axis of keys is walked and has no stride here.
  auto keys = [](View<float> v) { v.sr = 0; return v; };
  e.logit_scale = maybe<float>(t[0]);
  e.key_bias = keys(maybe<float>(t[1]));
  e.set_of_key = maybe<uint8_t>(t[2]);
  e.set_of_key.sr = 0;
  e.factors = maybe<float>(t[3]);
  e.gate = maybe<float>(t[4]);
}

template <typename T>
View<T> whole(const at::Tensor& x) {
  return View<T>{data<T>(x), x.stride(0), x.stride(1), x.stride(2)};
}

inline bool has_rows(const at::Tensor& x) { return x.size(3) == 1 || x.stride(3) == 1; }

inline Problem problem(const at::Tensor& q, const at::Tensor& k, double scale, double softcap, const MaybeTensors& mask, at::IntArrayRef mask_ints,
                       const MaybeTensors& edit, bool may_be_half = false) {
  const at::ScalarType type = may_be_half && q.scalar_type() == at::kBFloat16 ? at::kBFloat16 : at::kFloat;
  TORCH_CHECK(q.scalar_type() == type && k.scalar_type() == type, "interp_kernels_cpu: wanted q and k in ", type);
  TORCH_CHECK(has_rows(q) && has_rows(k), "interp_kernels_cpu: wanted q and k with contiguous features");
  TORCH_CHECK(mask.size() == 13 && mask_ints.size() == 5 && edit.size() == 5, "interp_kernels_cpu: wrong number of slots");
  Problem p;
  p.B = q.size(0), p.H = q.size(1), p.Nq = q.size(2), p.D = q.size(3);
  p.Hkv = k.size(1), p.Nk = k.size(2), p.G = p.H / p.Hkv;
  p.scale = static_cast<float>(scale), p.softcap = static_cast<float>(softcap);
  if (type == at::kFloat) p.q = whole<float>(q), p.k = whole<float>(k);
  else p.q_half = whole<uint16_t>(q), p.k_half = whole<uint16_t>(k);
  fill(p.mask, mask, mask_ints);
  fill(p.edit, edit);
  return p;
}

inline void set_values(Problem& p, const at::Tensor& v) {
  TORCH_CHECK(v.scalar_type() == (p.half() ? at::kBFloat16 : at::kFloat), "interp_kernels_cpu: wanted v in the type of q and k");
  TORCH_CHECK(has_rows(v), "interp_kernels_cpu: wanted v with contiguous features");
  if (p.half()) p.v_half = whole<uint16_t>(v);
  else p.v = whole<float>(v);
  p.Dv = v.size(3);
}

}  // namespace ik
