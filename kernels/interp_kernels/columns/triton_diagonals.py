"""Sums over the diagonals of the map, without atomics: one program a band of BN diagonals, walking down the rows.

For BM rows the band covers a parallelogram of keys. The tile of weights around it, [BM, BM + BN], is sheared by a
gather along the rows, so that
column t holds diagonal t, and summed over the rows. Half of the products fall outside the band: twice the arithmetic of `received`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from interp_kernels.columns.triton_received import row_words
from interp_kernels.spec.problem import Problem
from interp_kernels.triton_masks import (
    head_limits,
    load_lse,
    load_rows,
    member,
    product,
    row_logit_scale,
    tile_weights,
    upper_width,
    visible_tile,
)
from interp_kernels.triton_tiles import launch, map_args, row_lse


@triton.jit
def columns_diagonal_kernel(
    p_q, p_k, p_lse, p_diagonal, words, mk, ed, H, NQ, NK, D, group, offset, scale, softcap,
    CAUSAL: tl.constexpr, SUBSETS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BN diagonals of one head, BM = BN. Grid: bands, B * H."""
    bh = tl.program_id(1).to(tl.int64)
    b = bh // H
    h = bh % H
    o_t = tl.arange(0, BN)
    d0 = tl.program_id(0) * BN
    # Diagonal d holds the entries with i - j = d - (NK - 1).
    shift = d0 - (NK - 1)
    limits = head_limits(mk, b, h, NK)
    first = tl.maximum(shift, 0)
    stop = tl.minimum(NQ, NK + shift + BN - 1)
    if (CAUSAL or mk.window is not None) and mk.prefix is None:
        stop = tl.where(shift + BN - 1 + offset > -upper_width(mk, CAUSAL), stop, 0)
    if (mk.window is not None or mk.windows is not None) and mk.sinks is None:
        stop = tl.where(shift + offset < limits[4], stop, 0)
    sums = ()
    for _c in tl.static_range(SUBSETS):
        sums = sums + (tl.zeros([BN], tl.float32),)
    o_d = tl.arange(0, BD)
    o_shear = tl.arange(0, BM)[:, None] - o_t[None, :] + BN - 1
    for i0 in range(first, stop, BM):
        o_i = (i0 + tl.arange(0, BM))[:, None]
        o_j = (i0 - shift - BN + 1 + tl.arange(0, 2 * BN))[None, :]
        o_key = tl.maximum(o_j, 0)
        b_q = load_rows(p_q.p + b * p_q.b + h * p_q.h, o_i, o_d[None, :], p_q.r, NQ, D, True, True)
        b_k = load_rows(p_k.p + b * p_k.b + (h // group) * p_k.h, o_key, o_d[:, None], p_k.r, NK, D, True, True)
        b_raw = product(b_q, b_k, None, PRECISION)
        m_vis = visible_tile(mk, ed, limits, b, h, o_i, o_key, NQ, NK, offset, CAUSAL) & (o_j >= 0)
        b_lse = load_lse(p_lse + bh * NQ, o_i, NQ)
        b_factor = row_logit_scale(ed, b, h, o_i, NQ)
        _x, b_p, _tanh = tile_weights(
            b_raw, b_lse, m_vis, mk, ed, b_factor, b, h, o_i, o_key, NQ, NK, offset, scale, softcap, True
        )
        b_band = tl.gather(b_p, o_shear, 1)
        b_word = tl.load(words.p + b * words.b + o_i, mask=o_i < NQ, other=0)
        grown = ()
        for c in tl.static_range(SUBSETS):
            grown = grown + (sums[c] + tl.sum(b_band * member(b_word, c), 0),)
        sums = grown
    count = NQ + NK - 1
    for c in tl.static_range(SUBSETS):
        tl.store(p_diagonal + (bh * SUBSETS + c) * count + d0 + o_t, sums[c], mask=d0 + o_t < count)


def diagonals(problem: Problem, lse: Tensor, rows: Tensor) -> Tensor:
    """Float32 [B, H, S, Nq + Nk - 1]: sum of each subset's weights over each diagonal, by i - j + Nk - 1."""
    p = problem
    count = p.queries + p.keys - 1
    out = torch.empty(p.batch, p.heads, rows.shape[1], count, dtype=torch.float32, device=p.q.device)
    args = map_args(p) | {"p_lse": row_lse(lse)}
    launch(
        columns_diagonal_kernel,
        "columns_diagonal",
        lambda meta: (triton.cdiv(count, meta["BN"]), p.batch * p.heads),
        args["BD"],
        p.q.dtype,
        {"p_diagonal": out, "words": row_words(rows), "SUBSETS": rows.shape[1], **args},
    )
    return out
