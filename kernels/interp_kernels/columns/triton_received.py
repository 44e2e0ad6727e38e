"""Mass that each key receives from row subsets: key-major sweep, one program a key tile, so every sum stays in
registers and is written once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from interp_kernels.spec.problem import Problem
from interp_kernels.triton_args import Strided, keyed
from interp_kernels.triton_masks import (
    head_limits,
    load_lse,
    load_rows,
    member,
    product,
    row_logit_scale,
    row_tile_ranges,
    tile_weights,
    visible_tile,
)
from interp_kernels.triton_tiles import launch, map_args, row_lse


@triton.jit
def _column_step(
    sums, b_k, row_tile, limits, p_q, q_stride, p_lse, words, mk, ed, b, h, o_j, NQ, NK, D, offset, scale, softcap,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, SUBSETS: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, PAD_D: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    o_i = (row_tile * BM + tl.arange(0, BM))[None, :]
    b_q = load_rows(p_q, o_i, tl.arange(0, BD)[:, None], q_stride, NQ, D, MASKED, PAD_D)
    b_raw = product(b_k, b_q, None, PRECISION)
    b_factor = row_logit_scale(ed, b, h, o_i, NQ)
    b_lse = load_lse(p_lse, o_i, NQ)
    m_vis = None
    if MASKED:
        m_vis = visible_tile(mk, ed, limits, b, h, o_i, o_j, NQ, NK, offset, CAUSAL)
    _x, b_p, _tanh = tile_weights(
        b_raw, b_lse, m_vis, mk, ed, b_factor, b, h, o_i, o_j, NQ, NK, offset, scale, softcap, MASKED
    )
    b_word = tl.load(words.p + b * words.b + o_i, mask=o_i < NQ, other=0)
    grown = ()
    for c in tl.static_range(SUBSETS):
        grown = grown + (sums[c] + tl.sum(b_p * member(b_word, c), 1),)
    return grown


@triton.jit
def columns_received_kernel(
    p_q, p_k, p_lse, p_received, words, mk, ed, H, NQ, NK, D, group, offset, scale, softcap,
    CAUSAL: tl.constexpr, SUBSETS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PAD_D: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One key tile of one head. `words` holds one bit a subset for every row. Grid: key tiles, B * H."""
    bh = tl.program_id(1).to(tl.int64)
    b = bh // H
    h = bh % H
    j0 = tl.program_id(0) * BN
    o_n = j0 + tl.arange(0, BN)
    o_j = o_n[:, None]
    b_k = load_rows(p_k.p + b * p_k.b + (h // group) * p_k.h, o_j, tl.arange(0, BD)[None, :], p_k.r, NK, D, True, PAD_D)
    p_q_head = p_q.p + b * p_q.b + h * p_q.h
    p_lse_head = p_lse + bh * NQ
    limits = head_limits(mk, b, h, NK)
    first, full, full_end, end = row_tile_ranges(mk, ed, limits, j0, BN, NQ, NK, offset, CAUSAL, BM)
    sums = ()
    for _c in tl.static_range(SUBSETS):
        sums = sums + (tl.zeros([BN], tl.float32),)
    for tile in range(full, full_end):
        sums = _column_step(
            sums, b_k, tile, limits, p_q_head, p_q.r, p_lse_head, words, mk, ed, b, h, o_j, NQ, NK, D, offset, scale, softcap,
            False, CAUSAL, SUBSETS, BM, BD, PAD_D, PRECISION,
        )  # fmt: skip
    for index in range(0, full - first + end - full_end):
        tile = tl.where(index < full - first, first + index, full_end + index - (full - first))
        sums = _column_step(
            sums, b_k, tile, limits, p_q_head, p_q.r, p_lse_head, words, mk, ed, b, h, o_j, NQ, NK, D, offset, scale, softcap,
            True, CAUSAL, SUBSETS, BM, BD, PAD_D, PRECISION,
        )  # fmt: skip
    for c in tl.static_range(SUBSETS):
        tl.store(p_received + (bh * SUBSETS + c) * NK + o_n, sums[c], mask=o_n < NK)


def row_words(rows: Tensor) -> Strided:
    """Row subsets bool [B or 1, S, Nq] as one int32 word a row: bit s says that the row is in subset s."""
    words = torch.zeros_like(rows[:, 0], dtype=torch.int32)
    for c in range(rows.shape[1]):
        words |= rows[:, c].to(torch.int32) << c
    return keyed(words)


def received(problem: Problem, lse: Tensor, rows: Tensor) -> Tensor:
    """Float32 [B, H, S, Nk]: sum over each subset's rows of the weights."""
    p = problem
    out = torch.empty(p.batch, p.heads, rows.shape[1], p.keys, dtype=torch.float32, device=p.q.device)
    args = map_args(p) | {"p_lse": row_lse(lse)}
    own = {"p_received": out, "words": row_words(rows), "SUBSETS": rows.shape[1], "PAD_D": args["BD"] != p.q.shape[3]}
    launch(
        columns_received_kernel,
        "columns_received",
        lambda meta: (triton.cdiv(p.keys, meta["BN"]), p.batch * p.heads),
        args["BD"],
        p.q.dtype,
        {**own, **args},
    )
    return out
