"""Backward kernels of attention for gradients of out, lse and entropy: one row-major sweep for dq, one key-major sweep for dk and dv.

With w the edit's factors, g the gate, dO' = g dO, and x = s - ref (the forward's reference logit, log p = x - log sum):

    ds_ij = p_ij (w_ij dO'_i . v_j + c_i - dH_i x_ij),   c_i = dlse_i - dO_i . out_i - dH_i (H_i - log sum_i)
    dv_j = sum_i p_ij w_ij dO'_i,   dq_i = scale sum_j ds'_ij k_j,   dk_j = scale sum_i ds'_ij q_i,   ds' = ds (1 - tanh^2) logit_scale

c_i is made by torch in O(N) (`triton_ops`). Heads that share a key head are summed inside the key-major program: no atomics, so gradients
repeat bit for bit. The weights are computed again from q, k, ref and sum in both sweeps; memory is O(N).
"""

from __future__ import annotations

import triton
import triton.language as tl

from interp_kernels.triton_masks import (
    head_limits,
    key_factor,
    key_tile_ranges,
    load_rows,
    masked_tile,
    product,
    raw_gradient,
    row_logit_scale,
    row_tile_ranges,
    tile_logits,
    visible_tile,
    weight,
)


@triton.jit
def _logit_gradient(
    b_raw, b_dp, b_ref, b_inverse, b_c, b_dh, m_vis, mk, ed, b_factor, b, h, o_i, o_j, NQ, NK, offset, scale, softcap,
    MASKED: tl.constexpr, ENTROPY: tl.constexpr, BASE_2: tl.constexpr,
):  # fmt: skip
    """(ds', p w) of a tile; the row vectors have the shape of o_i. The logits are the forward's own to the last bit,
    and so are the weights."""
    b_s, b_tanh = tile_logits(b_raw, mk, ed, b_factor, b, h, o_i, o_j, NQ, NK, offset, scale, softcap)
    b_x = b_s - b_ref
    b_p = weight(b_x, BASE_2) * b_inverse
    if MASKED:
        b_p = tl.where(m_vis, b_p, 0.0)
    b_pw = b_p
    if ed.factors is not None:
        b_w = key_factor(ed, b, h, o_i, o_j, NQ, NK)
        b_pw = b_p * b_w
        b_dp = b_dp * b_w
    b_inner = b_dp + b_c
    if ENTROPY:
        if MASKED:
            b_x = tl.where(m_vis, b_x, 0.0)
        b_inner -= b_dh * b_x
    return raw_gradient(b_p * b_inner, b_tanh, ed, b_factor, softcap), b_pw


@triton.jit
def _row_vectors(p_unit, plane, p_c, p_dh, o_i, NQ, ENTROPY: tl.constexpr):
    m_i = o_i < NQ
    b_ref = tl.load(p_unit + o_i, mask=m_i, other=0.0)
    b_inverse = tl.load(p_unit + plane + o_i, mask=m_i, other=0.0)
    b_c = tl.load(p_c + o_i, mask=m_i, other=0.0)
    b_dh = b_c
    if ENTROPY:
        b_dh = tl.load(p_dh + o_i, mask=m_i, other=0.0)
    return b_ref, b_inverse, b_c, b_dh


@triton.jit
def _dq_step(
    b_dq, b_q, b_do, b_ref, b_inverse, b_c, b_dh, b_factor, tile, limits, p_k, k_stride, p_v, v_stride, mk, ed, b, h, o_i,
    NQ, NK, D, DV, offset, scale, softcap,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, ENTROPY: tl.constexpr, BASE_2: tl.constexpr, BN: tl.constexpr, BD:
    tl.constexpr, BDV: tl.constexpr,
    PAD_D: tl.constexpr, PAD_DV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    o_n = tile * BN + tl.arange(0, BN)
    o_j = o_n[None, :]
    b_k = load_rows(p_k, o_n[:, None], tl.arange(0, BD)[None, :], k_stride, NK, D, MASKED, PAD_D)
    b_v = load_rows(p_v, o_n[:, None], tl.arange(0, BDV)[None, :], v_stride, NK, DV, MASKED, PAD_DV)
    b_raw = product(b_q, tl.trans(b_k), None, PRECISION)
    b_dp = product(b_do, tl.trans(b_v), None, PRECISION)
    m_vis = None
    if MASKED:
        m_vis = visible_tile(mk, ed, limits, b, h, o_i, o_j, NQ, NK, offset, CAUSAL)
    b_ds, _ = _logit_gradient(
        b_raw,
        b_dp,
        b_ref,
        b_inverse,
        b_c,
        b_dh,
        m_vis,
        mk,
        ed,
        b_factor,
        b,
        h,
        o_i,
        o_j,
        NQ,
        NK,
        offset,
        scale,
        softcap,
        MASKED,
        ENTROPY,
        BASE_2,
    )
    return product(b_ds.to(b_k.dtype), b_k, b_dq, PRECISION)


@triton.jit
def attention_dq_kernel(
    p_q, p_k, p_v, p_do, p_unit, p_c, p_dh, p_dq, mk, ed, H, NQ, NK, D, DV, group, offset, scale, scale_nats, softcap,
    CAUSAL: tl.constexpr, ENTROPY: tl.constexpr, BASE_2: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD:
    tl.constexpr, BDV: tl.constexpr,
    PAD_D: tl.constexpr, PAD_DV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq of one row tile of one head. Grid: row tiles (last first), B * H."""
    bh = tl.program_id(1).to(tl.int64)
    plane = tl.num_programs(1).to(tl.int64) * NQ
    b = bh // H
    h = bh % H
    i0 = (tl.num_programs(0) - 1 - tl.program_id(0)) * BM
    o_i = (i0 + tl.arange(0, BM))[:, None]
    o_d = tl.arange(0, BD)[None, :]
    b_q = load_rows(p_q.p + b * p_q.b + h * p_q.h, o_i, o_d, p_q.r, NQ, D, True, PAD_D)
    b_do = load_rows(p_do.p + b * p_do.b + h * p_do.h, o_i, tl.arange(0, BDV)[None, :], p_do.r, NQ, DV, True, PAD_DV)
    p_k_head = p_k.p + b * p_k.b + (h // group) * p_k.h
    p_v_head = p_v.p + b * p_v.b + (h // group) * p_v.h
    b_ref, b_inverse, b_c, b_dh = _row_vectors(p_unit + bh * NQ, plane, p_c + bh * NQ, p_dh + bh * NQ, o_i, NQ, ENTROPY)
    b_factor = row_logit_scale(ed, b, h, o_i, NQ)
    limits = head_limits(mk, b, h, NK)
    ranges = key_tile_ranges(mk, ed, limits, i0, BM, NQ, NK, offset, -(1 << 29), CAUSAL, BN)
    sink_first, sink_end, near, full, full_end, end = ranges
    b_dq = tl.zeros([BM, BD], tl.float32)
    for tile in range(full, full_end):
        b_dq = _dq_step(
            b_dq, b_q, b_do, b_ref, b_inverse, b_c, b_dh, b_factor, tile, limits, p_k_head, p_k.r, p_v_head, p_v.r, mk, ed, b, h, o_i,
            NQ, NK, D, DV, offset, scale, softcap, False, CAUSAL, ENTROPY, BASE_2, BN, BD, BDV, PAD_D, PAD_DV, PRECISION,
        )  # fmt: skip
    for index in range(0, sink_end - sink_first + full - near + end - full_end):
        tile = masked_tile(index, sink_first, sink_end, near, full, full_end)
        b_dq = _dq_step(
            b_dq, b_q, b_do, b_ref, b_inverse, b_c, b_dh, b_factor, tile, limits, p_k_head, p_k.r, p_v_head, p_v.r, mk, ed, b, h, o_i,
            NQ, NK, D, DV, offset, scale, softcap, True, CAUSAL, ENTROPY, BASE_2, BN, BD, BDV, PAD_D, PAD_DV, PRECISION,
        )  # fmt: skip
    p_tile = p_dq.p + b * p_dq.b + h * p_dq.h + o_i.to(tl.int64) * p_dq.r + o_d
    tl.store(p_tile, (b_dq * scale_nats).to(p_dq.p.dtype.element_ty), mask=(o_i < NQ) & (o_d < D))


@triton.jit
def _dkdv_step(
    b_dk, b_dv, b_k, b_v, tile, limits, p_q, q_stride, p_do, do_stride, p_unit, plane, p_c, p_dh, mk, ed, b, h, o_j,
    NQ, NK, D, DV, offset, scale, softcap,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, ENTROPY: tl.constexpr, BASE_2: tl.constexpr, BM: tl.constexpr, BD:
    tl.constexpr, BDV: tl.constexpr,
    PAD_D: tl.constexpr, PAD_DV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    o_m = tile * BM + tl.arange(0, BM)
    o_i = o_m[None, :]
    b_q = load_rows(p_q, o_m[:, None], tl.arange(0, BD)[None, :], q_stride, NQ, D, MASKED, PAD_D)
    b_do = load_rows(p_do, o_m[:, None], tl.arange(0, BDV)[None, :], do_stride, NQ, DV, MASKED, PAD_DV)
    b_ref, b_inverse, b_c, b_dh = _row_vectors(p_unit, plane, p_c, p_dh, o_i, NQ, ENTROPY)
    b_factor = row_logit_scale(ed, b, h, o_i, NQ)
    b_raw = product(b_k, tl.trans(b_q), None, PRECISION)
    b_dp = product(b_v, tl.trans(b_do), None, PRECISION)
    m_vis = None
    if MASKED:
        m_vis = visible_tile(mk, ed, limits, b, h, o_i, o_j, NQ, NK, offset, CAUSAL)
    b_ds, b_pw = _logit_gradient(
        b_raw,
        b_dp,
        b_ref,
        b_inverse,
        b_c,
        b_dh,
        m_vis,
        mk,
        ed,
        b_factor,
        b,
        h,
        o_i,
        o_j,
        NQ,
        NK,
        offset,
        scale,
        softcap,
        MASKED,
        ENTROPY,
        BASE_2,
    )
    b_dv = product(b_pw.to(b_do.dtype), b_do, b_dv, PRECISION)
    b_dk = product(b_ds.to(b_q.dtype), b_q, b_dk, PRECISION)
    return b_dk, b_dv


@triton.jit
def attention_dkdv_kernel(
    p_q, p_k, p_v, p_do, p_unit, p_c, p_dh, p_dk, p_dv, mk, ed, H, NQ, NK, D, DV, group, offset, scale, scale_nats, softcap,
    CAUSAL: tl.constexpr, ENTROPY: tl.constexpr, BASE_2: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD:
    tl.constexpr, BDV: tl.constexpr,
    PAD_D: tl.constexpr, PAD_DV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk and dv of one key tile of one key head, over its `group` query heads. Grid: key tiles, B * Hkv."""
    heads = H // group
    plane = tl.num_programs(1).to(tl.int64) * group * NQ
    b = tl.program_id(1).to(tl.int64) // heads
    key_head = tl.program_id(1).to(tl.int64) % heads
    j0 = tl.program_id(0) * BN
    o_j = (j0 + tl.arange(0, BN))[:, None]
    o_d = tl.arange(0, BD)[None, :]
    o_dv = tl.arange(0, BDV)[None, :]
    b_k = load_rows(p_k.p + b * p_k.b + key_head * p_k.h, o_j, o_d, p_k.r, NK, D, True, PAD_D)
    b_v = load_rows(p_v.p + b * p_v.b + key_head * p_v.h, o_j, o_dv, p_v.r, NK, DV, True, PAD_DV)
    b_dk = tl.zeros([BN, BD], tl.float32)
    b_dv = tl.zeros([BN, BDV], tl.float32)
    for member in range(0, group):
        h = key_head * group + member
        o_head = (b * H + h) * NQ
        p_q_head = p_q.p + b * p_q.b + h * p_q.h
        p_do_head = p_do.p + b * p_do.b + h * p_do.h
        limits = head_limits(mk, b, h, NK)
        first, full, full_end, end = row_tile_ranges(mk, ed, limits, j0, BN, NQ, NK, offset, CAUSAL, BM)
        for tile in range(full, full_end):
            b_dk, b_dv = _dkdv_step(
                b_dk, b_dv, b_k, b_v, tile, limits, p_q_head, p_q.r, p_do_head, p_do.r, p_unit + o_head, plane, p_c + o_head,
                p_dh + o_head, mk, ed, b, h, o_j, NQ, NK, D, DV, offset, scale, softcap,
                False, CAUSAL, ENTROPY, BASE_2, BM, BD, BDV, PAD_D, PAD_DV, PRECISION,
            )  # fmt: skip
        for index in range(0, full - first + end - full_end):
            tile = tl.where(index < full - first, first + index, full_end + index - (full - first))
            b_dk, b_dv = _dkdv_step(
                b_dk, b_dv, b_k, b_v, tile, limits, p_q_head, p_q.r, p_do_head, p_do.r, p_unit + o_head, plane, p_c + o_head,
                p_dh + o_head, mk, ed, b, h, o_j, NQ, NK, D, DV, offset, scale, softcap,
                True, CAUSAL, ENTROPY, BASE_2, BM, BD, BDV, PAD_D, PAD_DV, PRECISION,
            )  # fmt: skip
    p_dk_tile = p_dk.p + b * p_dk.b + key_head * p_dk.h + o_j.to(tl.int64) * p_dk.r + o_d
    tl.store(p_dk_tile, (b_dk * scale_nats).to(p_dk.p.dtype.element_ty), mask=(o_j < NK) & (o_d < D))
    p_dv_tile = p_dv.p + b * p_dv.b + key_head * p_dv.h + o_j.to(tl.int64) * p_dv.r + o_dv
    tl.store(p_dv_tile, b_dv.to(p_dv.p.dtype.element_ty), mask=(o_j < NK) & (o_dv < DV))
