"""Forward kernels of attention: one sweep over the keys of a row tile, or over a part of them (split) followed by a join.

Tiles that are wholly visible run in a loop without masks; the masked loop takes the rest (edges of the causal triangle, windows, paddings,
everything when documents, cut edges, blocks, a dense bias or a key bias are given). Tiles outside every row's reach are never visited.
Memory: O(N) beyond the results; splits add splits x rows x (Dv + 11 + masses) float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from interp_kernels.attention.triton_state import (
    BASE,
    absorbed,
    empty_state,
    joined,
    load_row_ids,
    load_state,
    store_results,
    store_state,
)
from interp_kernels.triton_masks import (
    head_limits,
    key_tile_ranges,
    load_rows,
    masked_tile,
    product,
    row_logit_scale,
    tile_logits,
    visible_tile,
)


@triton.jit
def _row_step(
    st, b_acc, b_q, b_factor, row_ids, tile, limits, p_k, k_stride, p_v, v_stride, mk, ed, co, b, h, o_i, NQ, NK, D,
    DV, offset, scale, softcap,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, ENTROPY: tl.constexpr, MOMENTS: tl.constexpr, SQUARE: tl.constexpr,
    DISTANCE: tl.constexpr, REST: tl.constexpr, SETS: tl.constexpr, MATCHES: tl.constexpr, WINDOWS: tl.constexpr,
    OFFSETS: tl.constexpr, BASE_2: tl.constexpr,
    BN: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr, PAD_D: tl.constexpr, PAD_DV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    o_n = tile * BN + tl.arange(0, BN)
    o_j = o_n[None, :]
    b_k = load_rows(p_k, o_n[:, None], tl.arange(0, BD)[None, :], k_stride, NK, D, MASKED, PAD_D)
    b_raw = product(b_q, tl.trans(b_k), None, PRECISION)
    b_s, _ = tile_logits(b_raw, mk, ed, b_factor, b, h, o_i, o_j, NQ, NK, offset, scale, softcap)
    m_vis = None
    if MASKED:
        m_vis = visible_tile(mk, ed, limits, b, h, o_i, o_j, NQ, NK, offset, CAUSAL)
        b_s = tl.where(m_vis, b_s, -float("inf"))
    st, b_p, b_alpha = absorbed(
        st, b_s, m_vis, tile, row_ids, ed, co, b, h, o_i, o_j, NQ, NK, offset,
        MASKED, ENTROPY, MOMENTS, SQUARE, DISTANCE, REST, SETS, MATCHES, WINDOWS, OFFSETS, BASE_2, BN,
    )  # fmt: skip
    b_v = load_rows(p_v, o_n[:, None], tl.arange(0, BDV)[None, :], v_stride, NK, DV, MASKED, PAD_DV)
    b_acc = product(b_p.to(b_v.dtype), b_v, b_acc * b_alpha[:, None], PRECISION)
    return st, b_acc


@triton.jit
def attention_fwd_kernel(
    p_q, p_k, p_v, p_out, p_lse, p_entropy, p_stats, p_sink, p_part, p_part_acc, mk, ed, co,
    H, NQ, NK, D, DV, group, splits, offset, reach, scale, softcap,
    CAUSAL: tl.constexpr, SPLIT: tl.constexpr, ENTROPY: tl.constexpr, ROW_MAX: tl.constexpr, MOMENTS: tl.constexpr,
    SQUARE: tl.constexpr, DISTANCE: tl.constexpr, REST: tl.constexpr, SETS: tl.constexpr, MATCHES: tl.constexpr,
    WINDOWS: tl.constexpr, OFFSETS: tl.constexpr, BASE_2: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr, PAD_D: tl.constexpr, PAD_DV: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One row tile of one head (one part of its keys when SPLIT). Grid: row tiles (last first), B * H, splits."""
    EXTRA: tl.constexpr = SETS + MATCHES + WINDOWS + OFFSETS
    # Later rows see more keys: they start first, so that no long tile is left for the end.
    row_tile = tl.num_programs(0) - 1 - tl.program_id(0)
    bh = tl.program_id(1).to(tl.int64)
    b = bh // H
    h = bh % H
    i0 = row_tile * BM
    o_m = i0 + tl.arange(0, BM)
    o_i = o_m[:, None]
    b_q = load_rows(p_q.p + b * p_q.b + h * p_q.h, o_i, tl.arange(0, BD)[None, :], p_q.r, NQ, D, True, PAD_D)
    p_k_head = p_k.p + b * p_k.b + (h // group) * p_k.h
    p_v_head = p_v.p + b * p_v.b + (h // group) * p_v.h
    b_factor = row_logit_scale(ed, b, h, o_i, NQ)

    row_ids = load_row_ids(co, b, o_i, NQ, MATCHES)
    limits = head_limits(mk, b, h, NK)
    ranges = key_tile_ranges(mk, ed, limits, i0, BM, NQ, NK, offset, reach, CAUSAL, BN)
    sink_first, sink_end, near, full, full_end, end = ranges
    masked_first = 0
    masked_stop = sink_end - sink_first + full - near + end - full_end
    if SPLIT:
        part = tl.program_id(2)
        count = full_end - full
        full_end_part = full + count * (part + 1) // splits
        full_part = full + count * part // splits
        masked_first = masked_stop * part // splits
        masked_stop = masked_stop * (part + 1) // splits
    else:
        full_part = full
        full_end_part = full_end

    st = empty_state(EXTRA, BM)
    b_acc = tl.zeros([BM, BDV], tl.float32)
    for tile in range(full_part, full_end_part):
        st, b_acc = _row_step(
            st, b_acc, b_q, b_factor, row_ids, tile, limits, p_k_head, p_k.r, p_v_head, p_v.r, mk, ed, co, b, h, o_i,
            NQ, NK, D, DV, offset, scale, softcap,
            False, CAUSAL, ENTROPY, MOMENTS, SQUARE, DISTANCE, REST, SETS, MATCHES, WINDOWS, OFFSETS, BASE_2, BN, BD,
            BDV, PAD_D, PAD_DV, PRECISION,
        )  # fmt: skip
    for index in tl.range(masked_first, masked_stop, num_stages=1):
        tile = masked_tile(index, sink_first, sink_end, near, full, full_end)
        st, b_acc = _row_step(
            st, b_acc, b_q, b_factor, row_ids, tile, limits, p_k_head, p_k.r, p_v_head, p_v.r, mk, ed, co, b, h, o_i,
            NQ, NK, D, DV, offset, scale, softcap,
            True, CAUSAL, ENTROPY, MOMENTS, SQUARE, DISTANCE, REST, SETS, MATCHES, WINDOWS, OFFSETS, BASE_2, BN, BD,
            BDV, PAD_D, PAD_DV, PRECISION,
        )  # fmt: skip

    plane = tl.num_programs(1).to(tl.int64) * NQ
    o_row = bh * NQ + o_m
    o_d = tl.arange(0, BDV)
    if SPLIT:
        store_state(p_part + part * (BASE + EXTRA) * plane, st, o_row, o_m < NQ, plane, BASE + EXTRA)
        p_rows = p_part_acc + (part * plane + o_row)[:, None] * DV + o_d[None, :]
        tl.store(p_rows, b_acc, mask=(o_m < NQ)[:, None] & (o_d < DV)[None, :])
    else:
        store_results(
            st, b_acc, p_out, p_lse, p_entropy, p_stats, p_sink, ed, b, h, o_m, o_d, o_row, plane, NQ, DV,
            ENTROPY, ROW_MAX, MOMENTS, SQUARE, DISTANCE, REST, EXTRA, BASE_2,
        )  # fmt: skip


@triton.jit
def attention_join_kernel(
    p_out, p_lse, p_entropy, p_stats, p_sink, p_part, p_part_acc, ed, H, NQ, DV, splits,
    ENTROPY: tl.constexpr, ROW_MAX: tl.constexpr, MOMENTS: tl.constexpr, SQUARE: tl.constexpr, DISTANCE: tl.constexpr,
    REST: tl.constexpr, EXTRA: tl.constexpr, BASE_2: tl.constexpr, BM: tl.constexpr, BDV: tl.constexpr,
):  # fmt: skip
    """Join the parts of a split forward, part by part, and store the results. Grid: row tiles, B * H."""
    bh = tl.program_id(1).to(tl.int64)
    o_m = tl.program_id(0) * BM + tl.arange(0, BM)
    o_d = tl.arange(0, BDV)
    m_row = o_m < NQ
    plane = tl.num_programs(1).to(tl.int64) * NQ
    o_row = bh * NQ + o_m
    st = empty_state(EXTRA, BM)
    b_acc = tl.zeros([BM, BDV], tl.float32)
    for part in range(0, splits):
        other = load_state(p_part + part * (BASE + EXTRA) * plane, o_row, m_row, plane, BASE + EXTRA)
        p_rows = p_part_acc + (part * plane + o_row)[:, None] * DV + o_d[None, :]
        b_other = tl.load(p_rows, mask=m_row[:, None] & (o_d < DV)[None, :], other=0.0)
        st, b_alpha, b_beta = joined(st, other, ENTROPY, MOMENTS, SQUARE, DISTANCE, EXTRA, BASE_2)
        b_acc = b_acc * b_alpha[:, None] + b_other * b_beta[:, None]
    store_results(
        st, b_acc, p_out, p_lse, p_entropy, p_stats, p_sink, ed, bh // H, bh % H, o_m, o_d, o_row, plane, NQ, DV,
        ENTROPY, ROW_MAX, MOMENTS, SQUARE, DISTANCE, REST, EXTRA, BASE_2,
    )  # fmt: skip
